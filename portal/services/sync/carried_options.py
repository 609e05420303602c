"""Options that go along with a move: who had chosen digests, or no mail, at the old address has the same at the new.

Source: docs/semantics.md, "Identity".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan, Reason
from portal.listmanagers.base import CarriesOptions, KnowsOptions, ListManager, Outcome
from portal.services.sync.batches import Send


def with_options(manager: ListManager, plan: Plan) -> Plan:
    """Return a plan whose adds know the options of the address that the person had before.

    Where the list manager cannot set them, an add of a person who had switched mail off is held back. The options are
    read from the list manager now, and only where a move adds somebody whose old address is still on the roster.
    """
    origins = _origins(plan)
    if not origins or not isinstance(manager, KnowsOptions):
        return plan
    found = manager.options(sorted(set(origins.values())))
    carried = {address_id: found[spelling] for address_id, spelling in origins.items() if spelling in found}
    can_carry = isinstance(manager, CarriesOptions)

    def told(decision: Decision) -> Decision:
        options = carried.get(decision.row.address_id)
        if options is None:
            return decision
        if can_carry:
            return replace(decision, options=options)
        return replace(decision, held_back=True, reason=Reason.OPTIONS) if options.is_mail_off else decision

    return replace(plan, decisions=tuple(map(told, plan.decisions)))


def sender_of_options(manager: ListManager, adds: Iterable[Decision]) -> Send:
    """Return what adds addresses with the options that their decisions know."""
    options = {each.spelling: each.options for each in adds if each.options is not None}

    def send(addresses: Sequence[str]) -> Mapping[str, Outcome]:
        if not isinstance(manager, CarriesOptions):  # with_options knows better than to ask for it
            raise TypeError("this list manager carries no options")
        return manager.add_with_options([(each, options[each]) for each in addresses])

    return send


def _origins(plan: Plan) -> dict[int, str]:
    """Return how the roster spells the old address of each person that a move adds, by the id of the new one."""
    on_roster = {each.row.address_id: each.spelling.partition("\n")[0] for each in plan.decisions if each.on_roster}
    return {
        each.row.address_id: on_roster[each.moved_from] for each in plan.of(Action.ADD) if each.moved_from in on_roster
    }
