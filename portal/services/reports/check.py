"""A check of everything: configuration, keys, database, clock, list managers, and the runs of each list."""

import os
import stat
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import exists, make_url, select
from sqlalchemy.orm import Session

from portal import database
from portal.config import Catalogue, Settings, load_settings
from portal.domain.mailinglist import MailingList
from portal.domain.run import IN_PROGRESS, RunState
from portal.errors import ConfigurationError, UnavailableError
from portal.listmanagers.base import IdentifiesList, ListManager, Warns
from portal.models import LoginSession
from portal.services.mail.overview import waits_too_long
from portal.services.mail.sending import Mailer
from portal.services.mail.sending import check as check_mail
from portal.services.reports import lists as list_reports
from portal.services.reports import readiness
from portal.services.reports.audiences import audience_faults
from portal.services.reports.lists import ListReport, RunReport
from portal.services.sync import leases
from portal.services.transaction import reading

_CLOCKS_DIFFER = timedelta(minutes=1)
_NOT_EVERYBODY = 0o007
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# The files whose modes count, and the bits that must not be set. Keys are their owner's alone; the database may be a
# group's, and is behind the folder's door as well.
_FILES = {"secret_key": 0o077, "list_password_key": 0o077, "portal.db": _NOT_EVERYBODY}


class Finding(NamedTuple):
    """The result of one check; ``handle`` is the list's if it is about one.

    ``error`` is None if all is well, and ``words`` describe the state; else they say what is wrong and what to do.
    """

    what: str
    handle: str | None
    words: str
    error: Exception | None


class Evidence(NamedTuple):
    """What is checked besides the database: the instance folder, the catalogue and the list managers."""

    instance: Path
    catalogue: Callable[[], Catalogue]
    open_list_manager: Callable[[MailingList], ListManager]
    clock: Callable[[], datetime]
    settings: Settings


def check(session: Session, evidence: Evidence) -> Iterator[Finding]:
    """Yield one finding after the other. Nothing is written, and no fault stops the other checks."""
    yield _check_line("portal.toml", partial(_settings, evidence))
    for name, bits in _FILES.items():
        if (evidence.instance / name).exists():
            yield _check_line(name, partial(_mode, evidence.instance / name, bits))
    yield _check_line("security.log", partial(_security_log, evidence))
    tables = _check_line("database", partial(_database, session))
    yield tables
    if tables.error is None:
        yield _check_line("mail", partial(_mail, session, evidence))
        yield _check_line("clock", partial(_clock, session, evidence.clock))
        yield _check_line("trusted_proxies", partial(_proxies, session, evidence.settings.trusted_proxies))
    yield _check_line("mailinglists.toml", partial(_catalogue, evidence))
    try:
        lists = evidence.catalogue().lists
    except ConfigurationError:
        return  # already reported
    for what, path in _password_files(evidence.catalogue()):
        yield _check_line(what, partial(_mode, path, _NOT_EVERYBODY))
    if tables.error is None:
        yield from _audiences(session, evidence.catalogue())
    identities: dict[str, str] = {}
    for handle, mailing_list in lists.items():
        if mailing_list.is_paused:
            yield Finding("list manager", handle, "paused: choices are kept, nothing is read or pushed", None)
            continue
        yield _check_line("list manager", partial(_list_manager, evidence, mailing_list, identities), handle)
        if tables.error is None:
            yield _check_line("runs", partial(_runs, session, evidence, handle), handle)


def _check_line(what: str, at: Callable[[], str], handle: str | None = None) -> Finding:
    try:
        return Finding(what, handle, at(), None)
    except Exception as error:  # noqa: BLE001 - the other checks still run
        return Finding(what, handle, "", error)


def _settings(evidence: Evidence) -> str:
    """Describe the settings' source. With a fault in them, or in the session key, no command would have started."""
    path = evidence.instance / "portal.toml"
    if not path.exists():
        return f"{path} does not exist, so every setting has its default value"
    uri = load_settings(evidence.instance, {}).sqlalchemy_database_uri  # as the file has it, whatever a variable says
    if uri and make_url(uri).password:
        _mode(path, _NOT_EVERYBODY)
    return str(path)


def _security_log(evidence: Evidence) -> str:
    """Describe where security events go. Nothing is written, and no file is created."""
    place = evidence.settings.security_log_in(evidence.instance)
    if place is None:
        return "standard error"
    if not place.exists():
        if not os.access(place.parent, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"{place} cannot be created; create its folder, or let the portal's user write to it"
            )
        return f"{place}, which the first event will create"
    found, owner = place.stat(), evidence.instance.stat().st_uid
    is_others = stat.S_ISREG(found.st_mode) and found.st_uid != owner and not found.st_mode & _OTHERS_WRITE
    if is_others:
        raise ConfigurationError(
            f"{place} cannot be written by the owner of the instance folder; run: chown "
            f"--reference={evidence.instance} {place}"
        )
    if not os.access(place, os.W_OK):
        raise ConfigurationError(f"{place} cannot be written; check its mode, its owner and the disk space")
    return str(place)


def _mail(session: Session, evidence: Evidence) -> str:
    """Describe the mail server after checking that it can be used."""
    mail = evidence.settings.mail
    if mail is None:
        return "not configured, so no links are sent by e-mail"
    if mail.smtp and mail.smtp.password_file:
        path = evidence.instance / mail.smtp.password_file
        if path.exists():
            _mode(path, _NOT_EVERYBODY)
    words = check_mail(Mailer(evidence.settings, evidence.instance, evidence.clock))
    late = waits_too_long(session, now=evidence.clock())
    if late is not None:
        reason = late.message or "nothing is sending it; check that cron runs: flask minutely"
        raise UnavailableError(f"a mail has been waiting to be sent since {late.asked_at:%H:%M} UTC: {reason}")
    return words


def _mode(path: Path, bits: int) -> str:
    mode = path.stat().st_mode & 0o777
    is_behind_door = bits == _NOT_EVERYBODY and not path.parent.stat().st_mode & _NOT_EVERYBODY
    if mode & bits and not is_behind_door:
        raise ConfigurationError(
            f"{path} can be read by other users (mode {mode:04o}); run: chmod {mode & ~bits:o} {path}"
        )
    return f"mode {mode:04o}"


def _database(session: Session) -> str:
    readiness.require_ready(session)
    return f"{session.get_bind().dialect.name}, at migration {readiness.newest()}"


def _clock(session: Session, clock: Callable[[], datetime]) -> str:
    with reading(session):
        difference = clock() - database.clock(session)
    seconds = round(abs(difference).total_seconds())
    if abs(difference) > _CLOCKS_DIFFER:
        way = "ahead of" if difference > timedelta(0) else "behind"
        raise ConfigurationError(
            f"this host's clock is {seconds} seconds {way} the database's, on which the leases of runs depend; "
            "synchronise the two clocks"
        )
    return "the same as the database's" if seconds == 0 else f"{seconds} seconds off the database's"


def _proxies(session: Session, trusted: int) -> str:
    """Say whether log-ins are limited by people's IP addresses, or by that of a web server in front of the portal.

    Only successful log-ins count: anyone can send the header, and must not be able to alarm operators.
    """
    if trusted:
        return f"web servers in front: {trusted}"
    with reading(session):
        is_forwarded = session.scalar(select(exists().where(LoginSession.is_forwarded)))
    if is_forwarded:
        raise ConfigurationError(
            "log-ins arrive with the header X-Forwarded-For, but `trusted_proxies` is 0, so all of them count as "
            "coming from the web server in front; set `trusted_proxies` in portal.toml to the number of web servers "
            "in front of the portal"
        )
    return "no web server in front sends X-Forwarded-For"


def _password_files(catalogue: Catalogue) -> Iterator[tuple[str, Path]]:
    for name, manager in catalogue.managers.items():
        if path := getattr(manager.settings, "password_file", None):
            yield f"password of {name}", path


def _catalogue(evidence: Evidence) -> str:
    catalogue = evidence.catalogue()
    catalogue.require_enabled()
    if not catalogue.lists:
        raise ConfigurationError("mailinglists.toml contains no list; add a table [lists.HANDLE] for each list")
    if any(getattr(each.settings, "password", None) for each in catalogue.managers.values()):
        _mode(evidence.instance / "mailinglists.toml", _NOT_EVERYBODY)
    hours = catalogue.applied_within_hours
    return f"lists: {len(catalogue.lists)}, list managers: {len(catalogue.managers)}, applied within {hours} hours"


def _audiences(session: Session, catalogue: Catalogue) -> Iterator[Finding]:
    """Yield a finding for each list with an audience."""
    faults = audience_faults(session, catalogue)
    for handle, mailing_list in catalogue.lists.items():
        if mailing_list.audience is not None:
            wrong = "; ".join(each.words for each in faults if each.handle == handle)
            words = (
                f"groups: {len(mailing_list.audience)}"
                if mailing_list.audience
                else "nobody, since the audience is empty"
            )
            yield Finding("audience", handle, words, ConfigurationError(wrong) if wrong else None)


def _list_manager(evidence: Evidence, mailing_list: MailingList, identities: dict[str, str]) -> str:
    """Describe what answered. ``identities`` maps list managers' ids of lists to the handles seen so far."""
    manager = evidence.open_list_manager(mailing_list)
    words = manager.check()
    if isinstance(manager, IdentifiesList):
        other = identities.setdefault(manager.identity(), mailing_list.handle)
        if other != mailing_list.handle:
            raise ConfigurationError(
                f"{other} and {mailing_list.handle} are the same list at the list manager, so each would undo the "
                "other's changes; remove one of them from mailinglists.toml"
            )
    if isinstance(manager, Warns):
        warnings = list(manager.warnings(sets_passwords=mailing_list.sync_passwords))
        if warnings:
            raise ConfigurationError("; ".join(warnings))
    return words


def _runs(session: Session, evidence: Evidence, handle: str) -> str:
    """Describe the last run. A failed run is reported until a good one; so is a run too long ago."""
    catalogue, now = evidence.catalogue(), evidence.clock()
    (report,) = list_reports.lists(session, catalogue=catalogue, now=now, handles=[handle])
    last = report.last_run
    if last is None:
        raise ConfigurationError(f"no run yet; check the plan first: flask mailinglist sync --dry-run {handle}")
    if last.state in IN_PROGRESS and _is_held(session, handle):
        return f"run {last.id} has been running for {_age(now - last.started_at)}"
    if last.state != RunState.DONE:
        raise UnavailableError(_gone_wrong(last, now))
    if report.is_late:
        raise ConfigurationError(
            f"the last run was {_age(now - last.started_at)} ago, but members are promised "
            f"{catalogue.applied_within_hours} hours; check that cron still runs the sync, and run: flask mailinglist "
            f"sync {handle}"
        )
    return f"the last run was {_age(now - last.started_at)} ago, {_size(report)}"


def _is_held(session: Session, handle: str) -> bool:
    with reading(session):
        return leases.is_held(session, handle)


def _gone_wrong(last: RunReport, now: datetime) -> str:
    run = f"run {last.id}, {_age(now - last.started_at)} ago, "
    if last.state in {*IN_PROGRESS, RunState.UNFINISHED}:
        return f"{run}was interrupted; to repair it, run: flask mailinglist sync {last.handle}"
    return f"{run}{last.state}: {last.message}"


def _size(report: ListReport) -> str:
    wanted = report.subscribed + report.not_on_it
    return f"addresses subscribed: {wanted}" + (f", refused by the list: {report.refused}" if report.refused else "")


def _age(difference: timedelta) -> str:
    minutes = max(0, int(difference.total_seconds() // 60))
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 48 * 60 else f"{minutes // 1440} days"
