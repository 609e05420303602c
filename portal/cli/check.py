"""`flask mailinglist check`: what is wrong, and what to do."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import current_app

from portal.cli.mailinglist import mailinglist
from portal.cli.output import as_text_or_json, print_json, print_table
from portal.extensions import db, portal
from portal.faults import UNFORESEEN, as_portal_error, fault_of, one_line

if TYPE_CHECKING:
    from portal.services.reports.check import Finding


@mailinglist.command()
@as_text_or_json
def check(*, form: str) -> None:
    """Check the whole portal, and report what is wrong and what to do.

    Checks the configuration, the key files, the database and its clock, each list at its list manager, and each list's
    last run. Changes nothing. The exit code is 0 if all is well, 69 if a list manager, the database or a run failed,
    and 78 if the configuration has to be corrected. If several apply, it is the largest.

    \b
    Example: flask mailinglist check
    """
    from portal.services.reports import check as service

    evidence = service.Evidence(
        Path(current_app.instance_path),
        portal().catalogue,
        portal().open_list_manager,
        portal().clock,
        portal().settings,
    )
    findings = [_as_record(each) for each in service.check(db.session(), evidence)]
    if form == "json":
        print_json(findings)
    else:
        state = {True: "ok", False: "WRONG"}
        rows = [(each["list"] or "-", each["what"], state[each["ok"]], each["words"]) for each in findings]
        print_table(("LIST", "WHAT", "STATE", "DETAILS"), rows)
    codes = {each["exit_code"] for each in findings}
    raise SystemExit(UNFORESEEN.exit_code if UNFORESEEN.exit_code in codes else max(codes))


def _as_record(finding: "Finding") -> dict[str, Any]:
    known = None if finding.error is None else as_portal_error(finding.error)
    return {
        "what": finding.what,
        "list": finding.handle,
        "ok": known is None,
        "words": finding.words if known is None else one_line(known),
        "exit_code": 0 if known is None else fault_of(known).exit_code,
    }
