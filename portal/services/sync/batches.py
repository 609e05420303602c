"""Batches of addresses for a list manager; one that makes it fail is sent again, an address at a time.

So one address that the list manager fails at keeps no other waiting.
Source: docs/semantics.md, "What a run does not trust".
"""

from collections.abc import Callable, Mapping, Sequence

from portal.errors import CallFailedError
from portal.listmanagers.base import ListManager, Outcome, Result

Send = Callable[[Sequence[str]], Mapping[str, Outcome]]

_HOPELESS = 10  # so many addresses that fail, and none that does not: it is the list manager


def push_batch(
    manager: ListManager, send: Send, batch: Sequence[str], *, before_call: Callable[[int], None]
) -> dict[str, Outcome]:
    """Send a batch; return an outcome for each of its addresses.

    ``before_call`` is called before each call, with how many addresses the call has. Raise
    ListManagerUnavailableError where it is not an address that makes the list manager fail.
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
    """Return the outcome of an address that the list manager failed at. Raise where it answers nothing else either."""
    manager.check()
    return Outcome(Result.REJECTED, error.words)
