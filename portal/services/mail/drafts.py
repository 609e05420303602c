"""The recipient and the content of each requested mail; its links are made here, just before it is sent."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from portal.domain.address import outgoing
from portal.models import Address, Preference, User, UserAddress
from portal.services.mail import letters, links
from portal.services.mail.own_addresses import is_used_by_others
from portal.services.outbox import ClaimedMail
from portal.services.transaction import reading, transaction
from portal.translation import gettext, marked


class Draft(NamedTuple):
    """A letter to write: its recipient, its name and its values."""

    to: str
    name: str
    values: Mapping[str, str]


def language_of(session: Session, claimed: ClaimedMail, languages: Sequence[str]) -> str:
    """Return the language of a letter: the recipient's choice, else that of the requesting page, else the first."""
    holds = (UserAddress.user_id == User.id, UserAddress.address_id == Address.id, Address.canonical == claimed.mailbox)
    is_theirs = User.id == claimed.user_id if claimed.user_id is not None else exists().where(*holds).correlate(User)
    query = select(User.language).where(is_theirs, User.is_active, User.language.is_not(None)).order_by(User.id)
    with reading(session):
        chosen = session.scalar(query.limit(1))
    wishes = (chosen, claimed.details.get("language"))
    return next((each for each in wishes if each and each in languages), languages[0])


def make(session: Session, claimed: ClaimedMail, *, base_url: str, now: datetime) -> Draft | None:
    """Return the letter of a mail, or None if nobody is to get it."""
    return _MAKERS[claimed.purpose](session, claimed, _Links(base_url.rstrip("/"), now))


class _Links(NamedTuple):
    """Makes the URLs of links."""

    base_url: str
    now: datetime

    def url(self, token: str) -> str:
        return f"{self.base_url}/link/{token}"


def _good_for(purpose: str) -> str:
    return letters.in_words(links.GOOD_FOR[purpose])


def _log_in(session: Session, claimed: ClaimedMail, made: _Links) -> Draft | None:
    accounts = links.accounts_at(session, claimed.mailbox)
    if not accounts:
        return None
    tokens = links.make_all(session, "log-in", mailbox=claimed.mailbox, accounts=accounts, now=made.now)
    urls = [made.url(token) for token in tokens]
    if len(accounts) == 1:
        text = f"  {urls[0]}"
    else:
        text = "\n\n".join(
            f"{gettext('As %(username)s:', username=each.username)}\n\n  {url}"
            for each, url in zip(accounts, urls, strict=True)
        )
    values = {"links": text, "good_for": _good_for("log-in"), "place": claimed.place}
    return Draft(outgoing(accounts[0].spelling), "log-in", values)


def _invite(session: Session, claimed: ClaimedMail, made: _Links) -> Draft | None:
    accounts = links.accounts_at(session, claimed.mailbox, user_id=claimed.user_id)
    if not accounts:
        return None
    account = accounts[0]
    (token,) = links.make_all(session, "invite", mailbox=claimed.mailbox, accounts=[account], now=made.now)
    values = {"username": account.username, "link": made.url(token), "good_for": _good_for("invite")}
    return Draft(outgoing(account.spelling), "invite", values)


def _leave(session: Session, claimed: ClaimedMail, made: _Links) -> Draft | None:
    """Return a letter to a mailbox that is on a list here, or about to be."""
    is_on = or_(Preference.subscribed, Preference.seen.is_(True))
    known = exists().where(Preference.address_id == Address.id, is_on).correlate(Address)
    with reading(session):
        spelling = session.scalar(select(Address.spelling).where(Address.canonical == claimed.mailbox, known))
    if spelling is None:
        return None
    token = links.make_for_mailbox(session, "leave", mailbox=claimed.mailbox, now=made.now)
    values = {"link": made.url(token), "good_for": _good_for("leave"), "place": claimed.place}
    return Draft(outgoing(spelling), "leave", values)


def _confirm(session: Session, claimed: ClaimedMail, made: _Links) -> Draft | None:
    if not _is_active(session, claimed.user_id):
        return None
    with transaction(session):
        token = links.make(
            session, "confirm", mailbox=claimed.mailbox, now=made.now, user_id=claimed.user_id, details=claimed.details
        )
    values = {"link": made.url(token), "good_for": _good_for("confirm"), "place": claimed.place}
    return Draft(outgoing(claimed.details.get("spelling", claimed.mailbox)), "confirm", values)


def _undo(session: Session, claimed: ClaimedMail, made: _Links) -> Draft | None:
    """Return a letter about changed addresses, with a link to undo the change unless others use the mailbox."""
    username = _username(session, claimed.user_id)
    if username is None or claimed.user_id is None:
        return None
    to = outgoing(claimed.details.get("main", claimed.mailbox))
    values = {"username": username, "change": _change(claimed)}
    if is_used_by_others(session, claimed.mailbox, but=claimed.user_id):
        return Draft(to, "addresses-changed", values)
    with transaction(session):
        token = links.make(
            session, "undo", mailbox=claimed.mailbox, now=made.now, user_id=claimed.user_id, details=claimed.details
        )
    return Draft(to, "undo", {**values, "link": made.url(token), "good_for": _good_for("undo")})


def _addresses_changed(session: Session, claimed: ClaimedMail, _made: _Links) -> Draft | None:
    username = _username(session, claimed.user_id)
    if username is None:
        return None
    values = {"username": username, "change": _change(claimed)}
    return Draft(outgoing(claimed.details.get("main", claimed.mailbox)), "addresses-changed", values)


def _password_changed(session: Session, claimed: ClaimedMail, _made: _Links) -> Draft | None:
    username = _username(session, claimed.user_id)
    to = _spelling(session, claimed.mailbox)
    return None if username is None or to is None else Draft(to, "password-changed", {"username": username})


def _lists_changed(session: Session, claimed: ClaimedMail, _made: _Links) -> Draft | None:
    to = _spelling(session, claimed.mailbox)
    said = (_about_list(*each.split(" ", 1)) for each in claimed.details.get("changes", "").split("\n"))
    lines = "\n".join(f"  {each}" for each in said)
    return None if to is None else Draft(to, "lists-changed", {"changes": lines})


def _change(claimed: ClaimedMail) -> str:
    """Return a description of changed addresses: a line for each, with a word and the address."""
    lines = [each.split(" ", 1) for each in claimed.details.get("change", "").split("\n")]
    return "; ".join(gettext(_ADDRESS_WORDS[what], address=address) for what, address in lines)


def _about_list(what: str, name: str) -> str:
    return gettext(_LIST_WORDS[what], name=name)


_ADDRESS_WORDS = {
    "added": marked("%(address)s was added"),
    "removed": marked("%(address)s was removed"),
    "main": marked("%(address)s is the main address now"),
}
_LIST_WORDS = {
    "on": marked("You will be added to %(name)s"),
    "off": marked("You will be taken off %(name)s"),
}


def _operators(_session: Session, claimed: ClaimedMail, made: _Links) -> Draft | None:
    words, name, when, page = map(claimed.details.__getitem__, ("what", "name", "when", "page"))
    values = {"what": gettext(when, what=gettext(words, name=name)), "page": made.base_url + page}
    return Draft(outgoing(claimed.mailbox), "operators", values)


def _username(session: Session, user_id: int | None) -> str | None:
    with reading(session):
        return session.scalar(select(User.username).where(User.id == user_id))


def _spelling(session: Session, mailbox: str) -> str | None:
    with reading(session):
        spelling = session.scalar(select(Address.spelling).where(Address.canonical == mailbox))
    return None if spelling is None else outgoing(spelling)


def _is_active(session: Session, user_id: int | None) -> bool:
    with reading(session):
        return bool(session.scalar(select(exists().where(User.id == user_id, User.is_active))))


_MAKERS: Mapping[str, Callable[[Session, ClaimedMail, _Links], Draft | None]] = {
    "addresses": _addresses_changed,
    "confirm": _confirm,
    "invite": _invite,
    "leave": _leave,
    "lists-changed": _lists_changed,
    "log-in": _log_in,
    "operators": _operators,
    "password-changed": _password_changed,
    "undo": _undo,
}
