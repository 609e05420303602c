"""GNU Mailman 3, by its REST API.

It adds one address for each request, so only the difference is sent. It removes many at once, by their lower-case form.
No mail goes out: adds say so, and a bulk removal never sends any. Only subscribers are touched. The answers are those
of Mailman 3.3.10; see docs/list-managers/mailman3.md.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import Meta

from portal.domain.delivery import Delivery, MailOff
from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import ConfigurationError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers.base import Outcome, Result
from portal.listmanagers.call_limits import CallLimits, HasCallLimits
from portal.listmanagers.http import Answer, Client, Deadline, described, unusable
from portal.listmanagers.lines import one_line, subscriber, why_unsendable

# Mailman knows a list without a configured name by its address, so ``open_list`` gets that too.
WANTS_EMAIL = True
LEAVE_SUFFIX = "-leave"  # of the address to which members send mail to leave

_PAGE = 1000
_REMOVED_AT_ONCE = 500
_READINGS = 3  # of a roster that changes during the reading
_SECRETS = ("password", "password_file", "password_env")

_SILENT = (
    ("pre_verified", "true"),
    ("pre_confirmed", "true"),
    ("pre_approved", "true"),
    ("send_welcome_message", "false"),
)

_MAIL_OFF = {"by_user", "by_moderator"}  # not by_bounces, which ends with the bouncing address

# Characters that Mailman refuses. Source: the answers of 3.3.10 to every ASCII character.
_REFUSED = re.compile(r'[][()<>|:;^,\\"]')
_DOMAIN = re.compile(r"[a-z0-9][-a-z0-9]*(\.[a-z0-9][-a-z0-9]*)+", re.IGNORECASE)

# In a 400 answer that is not about the address: two writers collided in the database.
_TRANSIENT = re.compile(r"\(raised as|is locked|IntegrityError|OperationalError")


class Settings(CallLimits, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a manager of this kind."""

    url: str
    user: str
    password: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    ca_file: Path | None = None
    timeout_per_address: Annotated[float, Meta(ge=0, le=60)] = 0.5

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not self.user or ":" in self.user or not self.user.isprintable():
            raise ValueError("`user` must be a name without a colon")
        if sum(getattr(self, key) is not None for key in _SECRETS) != 1:
            raise ValueError(f"it needs one of {', '.join(_SECRETS)}, and only one")

    def __repr__(self) -> str:
        """Leave out the password, for logs."""
        return f"Settings(url={self.url!r})"


@dataclass(frozen=True)
class Mailman3(HasCallLimits):
    """A list of a Mailman 3. ``names`` are its possible names there, the likeliest first."""

    settings: Settings
    names: tuple[str, ...]
    password: str = field(repr=False)
    _found: list[str] = field(default_factory=list, repr=False, compare=False)  # Mailman's id of the list, once known

    def check(self) -> str:
        """Request the version and the list."""
        until = self._deadline(0)
        answer = self._client.request("GET", "system", "versions", until=until)
        version = one_line(str(_table(answer, 200).get("mailman_version")))
        found = _table(self._of_list("GET", until=until), 200)
        return f"{version}: {found.get('list_id')} found, subscribers: {found.get('member_count')}"

    def identity(self) -> str:
        """Return the server and Mailman's id of the list."""
        return f"{self.settings.url} {self._list_id(self._deadline(0))}"

    def warnings(self, *, sets_passwords: bool) -> Iterable[str]:  # noqa: ARG002 - part of the protocol
        """Check whether Mailman notifies the list's owner about each change."""
        answer = self._of_list("GET", "config", "admin_notify_mchanges", until=self._deadline(0))
        if _table(answer, 200).get("admin_notify_mchanges"):
            yield (
                f"Mailman mails the owner of {self._found[0]} about each address that is added or removed; set its "
                'admin_notify_mchanges to false (in Postorius: "Notify admin of membership changes", No)'
            )

    def roster(self) -> Sequence[str]:
        """Return the members in lower case, as Mailman shows them."""
        until = self._deadline(0)
        entries = self._entries("roster", "member", until=until, fields="email")
        return [subscriber(_text(entry, "email")) for entry in entries]

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Subscribe addresses one by one."""
        until = self._deadline(len(addresses))
        return self._classified({each: self._add(each, until) for each in dict.fromkeys(addresses)}, until)

    def options(self, addresses: Sequence[str]) -> dict[str, SubscriberOptions]:
        """Return members' digests, or no mail, which an administrator may also have set."""
        until = self._deadline(len(addresses))
        return {each: found for each in addresses if (found := self._options(each, until))}

    def deliveries(self, addresses: Sequence[str]) -> dict[str, Delivery]:
        """Return members with digests or no mail; Mailman does not report since when."""
        until = self._deadline(len(addresses))
        found = {each: self._delivery(each, until) for each in addresses}
        return {each: delivery for each, delivery in found.items() if not delivery.is_usual}

    def add_with_options(self, subscribers: Sequence[tuple[str, SubscriberOptions]]) -> dict[str, Outcome]:
        """Subscribe addresses as ``add`` does, with their options."""
        until = self._deadline(len(subscribers))
        outcomes = {address: self._add(address, until, parse_qsl(found.words)) for address, found in subscribers}
        return self._classified(outcomes, until)

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Unsubscribe addresses, many at once."""
        until = self._deadline(len(addresses))
        outcomes = {each: Outcome(Result.REJECTED, reason) for each in addresses if (reason := why_unsendable(each))}
        spellings = {each: each.lower() for each in addresses if each not in outcomes}
        wanted = list(dict.fromkeys(spellings.values()))
        was_member: dict[str, bool] = {}
        for start in range(0, len(wanted), _REMOVED_AT_ONCE):
            was_member |= self._remove(wanted[start : start + _REMOVED_AT_ONCE], until)
        for address, spelling in spellings.items():
            outcomes[address] = Outcome(Result.DONE if was_member[spelling] else Result.ALREADY)
        return outcomes

    def withdraw(self, addresses: Sequence[str]) -> Collection[str]:
        """Discard requests that wait for a moderator or for the subscriber, which sends no mail."""
        until = self._deadline(len(addresses))
        wanted: dict[str, list[str]] = {}
        for each in addresses:
            wanted.setdefault(each.lower(), []).append(each)
        withdrawn: set[str] = set()
        for entry in self._entries("requests", until=until):
            email = _text(entry, "email").lower()
            if email in wanted and self._discard(_text(entry, "token"), until):
                withdrawn.update(wanted[email])
        return withdrawn

    def password_call(self) -> str:
        """Return the request that sets a password, without the password."""
        return f"PATCH {self.settings.url}/users/ADDRESS cleartext_password=PASSWORD"

    def set_passwords(self, passwords: Sequence[tuple[str, str]]) -> dict[str, Outcome]:
        """Set the passwords of Mailman's users, which apply to all their lists."""
        until = self._deadline(len(passwords))
        return {address: self._set_password(address, password, until) for address, password in passwords}

    def _delivery(self, address: str, until: Deadline) -> Delivery:
        mode, status = self._preferences(address, until) or ("regular", "")
        off = MailOff.BOUNCES if status == "by_bounces" else MailOff.CHOSEN if status in _MAIL_OFF else None
        return Delivery(mode != "regular", off)

    def _preferences(self, address: str, until: Deadline) -> tuple[str, str] | None:
        """Return the delivery mode and status of a member, or None if the address is not a member."""
        answer = self._client.request("GET", "lists", self._list_id(until), "member", address.lower(), until=until)
        if answer.status == 404:
            return None
        member = _table(answer, 200)
        answer = self._client.request("GET", "members", str(member.get("member_id")), "preferences", until=until)
        status = _table(answer, 200).get("delivery_status")
        return str(member.get("delivery_mode") or "regular"), str(status or "")

    def _options(self, address: str, until: Deadline) -> SubscriberOptions | None:
        found = self._preferences(address, until)
        if found is None:
            return None
        mode, status = found
        chosen = {}
        if mode != "regular":
            chosen["delivery_mode"] = mode
        if status in _MAIL_OFF:
            chosen["delivery_status"] = status
        return SubscriberOptions(urlencode(chosen), is_mail_off=status in _MAIL_OFF) if chosen else None

    def _add(self, address: str, until: Deadline, options: Sequence[tuple[str, str]] = ()) -> Outcome:
        if reason := why_unsendable(address) or _why_refused(address):
            return Outcome(Result.REJECTED, reason)
        form = [("list_id", self._list_id(until)), ("subscriber", address), *_SILENT, *options]
        answer = self._client.request("POST", "members", until=until, form=form, is_transient=_is_transient)
        said = described(answer)
        if answer.status == 201:
            return Outcome(Result.DONE)
        if answer.status == 202:
            return Outcome(Result.PENDING)
        if answer.status == 409:
            return Outcome(Result.PENDING if "pending" in said else Result.ALREADY, said)
        if answer.status == 400 and said == "No such list":
            raise self._no_such_list()
        if answer.status == 400:
            return Outcome(Result.REJECTED, said.removesuffix(": ."))
        raise _unusable(answer)

    def _classified(self, outcomes: dict[str, Outcome], until: Deadline) -> dict[str, Outcome]:
        """Return the outcomes with held requests classified by whether a moderator or the member must act."""
        if all(outcome.result is not Result.PENDING for outcome in outcomes.values()):
            return outcomes
        owners = {
            _text(each, "email").lower(): each.get("token_owner") for each in self._entries("requests", until=until)
        }
        for address, outcome in outcomes.items():
            if outcome.result is Result.PENDING and owners.get(address.lower()) == "subscriber":
                outcomes[address] = outcome._replace(result=Result.CONFIRM)
        return outcomes

    def _remove(self, spellings: Sequence[str], until: Deadline) -> dict[str, bool]:
        """Return for each address whether it was a member before."""
        form = [("emails", each) for each in spellings]
        answer = self._of_list("DELETE", "roster", "member", until=until, form=form)
        removed = _table(answer, 200)
        if not all(isinstance(removed.get(each), bool) for each in spellings):
            raise _unusable(answer)
        return {each: removed[each] for each in spellings}

    def _discard(self, token: str, until: Deadline) -> bool:
        """Return True if a request still existed and was discarded."""
        answer = self._client.request(
            "POST", "lists", self._list_id(until), "requests", token, until=until, form=[("action", "discard")]
        )
        if answer.status not in {204, 404}:
            raise _unusable(answer)
        return answer.status == 204

    def _set_password(self, address: str, password: str, until: Deadline) -> Outcome:
        if reason := why_unsendable(address):
            return Outcome(Result.REJECTED, reason)
        form = [("cleartext_password", password)]
        answer = self._client.request("PATCH", "users", address.lower(), until=until, form=form, is_secret=True)
        if answer.status == 204:
            return Outcome(Result.DONE)
        if answer.status == 404:
            odd = ", or cannot find the user because of the slash" if "/" in address else ""
            return Outcome(Result.REJECTED, f"Mailman has no such user{odd}")
        if answer.status == 400:
            return Outcome(Result.REJECTED, "Mailman refuses this password")  # Mailman's own message may contain it
        raise ListManagerUnavailableError(f"{answer.call}: answered with status {answer.status}")

    def _entries(self, *path: str, until: Deadline, **query: object) -> list[Any]:
        """Return the entries of all pages.

        If somebody leaves during the reading, the next member moves across the border of two pages and is missed, even
        if another joins and the count stays the same. That must not look as if they had left. So the entries at each
        border are requested again, and a roster that has changed is read again.
        """
        for _reading in range(_READINGS):
            entries: list[Any] = []
            totals, is_still = set(), True
            for page in count(1):
                answer, total, fresh = self._request_page(*path, until=until, query=query, size=_PAGE, page=page)
                if entries:
                    border = self._request_page(*path, until=until, query=query, size=1, page=len(entries))
                    is_still = is_still and border[2] == entries[-1:]
                entries += fresh
                totals.add(total)
                if len(fresh) < _PAGE or len(entries) >= total:
                    break
            if is_still and totals == {len(entries)}:
                return entries
        changed = "" if is_still else ", and the roster changed while it was read"
        raise ListManagerUnavailableError(
            f"{answer.call}: answered with {len(entries)} entries, but reports {total}{changed}; run again when nobody "
            "is joining or leaving"
        )

    def _request_page(
        self, *path: str, until: Deadline, query: Mapping[str, object], size: int, page: int
    ) -> tuple[Answer, int, list[Any]]:
        """Return a page's answer, its entries, and the total number of entries."""
        answer = self._of_list("GET", *path, until=until, query={**query, "count": size, "page": page})
        return answer, *_page(answer)

    def _of_list(self, method: str, *path: str, until: Deadline, **options: Any) -> Answer:
        """Send a request about the list. Raise NoSuchListError."""
        answer = self._client.request(method, "lists", self._list_id(until), *path, until=until, **options)
        if answer.status == 404:
            raise self._no_such_list()
        return answer

    def _list_id(self, until: Deadline) -> str:
        """Return Mailman's id for the list, such as ants.lists.example.com. Raise NoSuchListError."""
        if not self._found:
            for name in self.names:
                answer = self._client.request("GET", "lists", name, until=until)
                if answer.status != 404:
                    self._found.append(_text(_table(answer, 200), "list_id"))
                    break
            else:
                raise self._no_such_list()
        return self._found[0]

    def _no_such_list(self) -> NoSuchListError:
        return NoSuchListError(
            f"{self.settings.url}: Mailman has no list {' or '.join(self.names)}; "
            "set `list` in mailinglists.toml to the list's address there, and check that `url` ends with the API "
            "version"
        )

    def _deadline(self, count: int) -> Deadline:
        return Deadline.after(self.timeout(count))

    @cached_property
    def _client(self) -> Client:
        own = self.settings
        return Client(own.url, own.user, self.password, max_output=own.max_output, ca_file=own.ca_file)


def open_list(settings: Settings, list_name: str, *, email: str = "") -> Mailman3:
    """Return the list manager bound to one list, by its name or its address. Raise ConfigurationError."""
    if not list_name or list_name[0] in ".-" or "/" in list_name or not list_name.isprintable():
        raise ConfigurationError(
            f"a list name must not be empty, start with a dot or a dash, or contain a slash: {one_line(list_name)}"
        )
    names = [email, f"{list_name}@{email.rpartition('@')[2]}"] if email else []
    if not email or "." in list_name:
        names.append(list_name)
    return Mailman3(settings, tuple(dict.fromkeys(each.lower() for each in names)), _password(settings))


def _password(settings: Settings) -> str:
    """Return the password from its configured source. Raise ConfigurationError, which names the key."""
    if settings.password is not None:
        return settings.password
    if settings.password_env is not None:
        if not (found := os.environ.get(settings.password_env)):
            raise ConfigurationError(
                f"password_env: the environment variable {one_line(settings.password_env)} is missing or empty"
            )
        return found
    return _password_in(settings.password_file) if settings.password_file else ""


def _password_in(path: Path) -> str:
    try:
        found = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(f"password_file: {path}: not UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"password_file: {path}: {os.strerror(error.errno or 0)}") from None
    if not found:
        raise ConfigurationError(f"password_file: {path}: the file is empty; write the password on its first line")
    return found


def _check_url(url: str) -> None:
    """Raise ValueError unless a URL names a server, without anything that could leak or mislead."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host or parts.scheme not in {"http", "https"} or not url.isprintable() or " " in url:
        raise ValueError("`url` must start with http:// or https:// and a host, such as http://127.0.0.1:8001/3.1")
    if "@" in parts.netloc:
        raise ValueError("`url` must not contain a user or a password; they have their own settings")
    if "?" in url or "#" in url or url.endswith("/"):
        raise ValueError("`url` must end with the API version, without a slash after it: http://127.0.0.1:8001/3.1")


def _why_refused(address: str) -> str:
    if not address.isascii():
        return "Mailman 3 accepts only ASCII addresses"
    if found := _REFUSED.search(address):
        return f"Mailman 3 does not accept the character {found[0]}"
    if not _DOMAIN.fullmatch(address.partition("@")[2]):
        return "Mailman 3 accepts only domains of letters, digits and dashes, with at least one dot"
    return ""


def _is_transient(answer: Answer) -> bool:
    """Return True if an add may succeed when it is sent again."""
    return answer.status >= 500 or (answer.status == 400 and bool(_TRANSIENT.search(described(answer))))


def _page(answer: Answer) -> tuple[int, list[Any]]:
    """Return the total number of entries, and those of this page; Mailman leaves both out if there are none."""
    found = _table(answer, 200)
    total, entries = found.get("total_size"), found.get("entries", [])
    if not isinstance(total, int) or not isinstance(entries, list):
        raise _unusable(answer)
    return total, entries


def _table(answer: Answer, status: int) -> dict[str, Any]:
    if answer.status != status or not isinstance(answer.data, dict):
        raise _unusable(answer)
    return answer.data


def _text(entry: Any, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise ListManagerUnavailableError(f"Mailman answered without {key}: {one_line(str(entry))}")
    return value


def _unusable(answer: Answer) -> ListManagerUnavailableError:
    return unusable(answer, f"answered with status {answer.status} and unexpected content")
