"""Batches of addresses for a list manager; a batch that fails is sent again one address at a time.

So an address that makes the list manager fail does not keep others waiting. Source: docs/semantics.md, "What a run does
not trust".
"""

from collections.abc import Callable, Mapping, Sequence

from portal.errors import CallFailedError
from portal.listmanagers.base import ListManager, Outcome, Result

Send = Callable[[Sequence[str]], Mapping[str, Outcome]]

_HOPELESS = 10  # after this many failing addresses and no successful one, the list manager itself has failed


def push_batch(
    manager: ListManager, send: Send, batch: Sequence[str], *, before_call: Callable[[int], None]
) -> dict[str, Outcome]:
    """Send a batch; return an outcome for each of its addresses.

    ``before_call`` is called before each call with its number of addresses. Raise ListManagerUnavailableError if the
    list manager fails not just because of one address.
    """
    before_call(len(batch))
    try:
        return _complete(send(batch), batch)
    except CallFailedError as error:
        if len(batch) > 1:
            return _push_one_by_one(manager, send, batch, before_call=before_call)
        return {batch[0]: _refused_by_failing(manager, error)}


def _push_one_by_one(
    manager: ListManager, send: Send, batch: Sequence[str], *, before_call: Callable[[int], None]
) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    failures: dict[str, CallFailedError] = {}
    for address in batch:
        before_call(1)
        try:
            outcomes |= _complete(send([address]), [address])
        except CallFailedError as error:
            failures[address] = error
            if not outcomes and len(failures) in {len(batch), _HOPELESS}:
                raise
    return outcomes | {address: _refused_by_failing(manager, error) for address, error in failures.items()}


def _complete(answers: Mapping[str, Outcome], batch: Sequence[str]) -> dict[str, Outcome]:
    return {address: answers.get(address, Outcome(Result.DONE)) for address in batch}


def _refused_by_failing(manager: ListManager, error: CallFailedError) -> Outcome:
    """Return the outcome of an address that made the list manager fail. Raise if it does not answer at all."""
    manager.check()
    return Outcome(Result.REJECTED, error.words)
