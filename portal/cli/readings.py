"""Readings of lists outside their runs, for `flask minutely` and `sync --requested`."""

from portal.cli.output import print_message
from portal.errors import PortalError
from portal.extensions import db, portal
from portal.faults import fault_of, one_line
from portal.services.sync import readings
from portal.services.sync.readings import DueReading


def carry_out() -> int:
    """Carry out due readings, except of paused lists; return the largest exit code. Errors go to stderr."""
    catalogue, now = portal().readable_catalogue(), portal().clock()
    if catalogue is None or not catalogue.enabled:
        return 0
    running = [handle for handle, each in catalogue.lists.items() if not each.is_paused]
    readings.enrol(db.session(), running, now=now)
    return max((_read(each) for each in readings.due(db.session(), running, now=now)), default=0)


def _read(wanted: DueReading) -> int:
    mailing_list = portal().catalogue().get(wanted.handle)
    try:
        readings.carry_out(
            db.session(),
            wanted,
            mailing_list,
            lambda: portal().open_list_manager(mailing_list),
            clock=portal().clock,
        )
    except PortalError as error:  # the other lists go on; a requested reading shows the error on its page
        print_message(
            f"error: {wanted.handle}: its subscribers' delivery settings could not be read: {one_line(error)}"
        )
        return fault_of(error).exit_code
    return 0
