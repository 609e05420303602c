"""Sympa's member.dump: lines about each subscriber, followed by an empty line. Source: Sympa::List of 6.2.70."""

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, urlencode

from portal.domain.subscriber_options import SubscriberOptions

_USUAL = {"reception": "mail", "suspend": "0", "startdate": "0", "enddate": "0"}


def emails(content: bytes) -> bytes:
    """Return the subscribers of a dump, one a line."""
    return b"\n".join(line[6:] for line in content.split(b"\n") if line.startswith(b"email "))


def addresses(content: bytes) -> set[str]:
    """Return the subscribers of a dump in lower case."""
    return set(emails(content).decode("utf-8", "replace").lower().split("\n"))


def options(content: bytes, *, now: float) -> dict[str, SubscriberOptions]:
    """Return the options of subscribers who do not get every message one by one, by lower-case address.

    ``now`` is in seconds since 1970; a suspension that has ended is left out.
    """
    found = {}
    for record in content.decode("utf-8", "replace").split("\n\n"):
        fields = dict(line.partition(" ")[::2] for line in record.split("\n"))
        chosen = _chosen(fields, now=now)
        if chosen:
            is_mail_off = chosen.get("reception") == "nomail" or "suspend" in chosen
            found[fields.get("email", "").lower()] = SubscriberOptions(urlencode(chosen), is_mail_off)
    return found


def _chosen(fields: Mapping[str, str], *, now: float) -> dict[str, str]:
    chosen = {name: fields[name] for name, usual in _USUAL.items() if fields.get(name, usual) != usual}
    end = chosen.get("enddate", "")
    is_over = end.isdecimal() and int(end) <= now
    if "suspend" not in chosen or is_over:
        return {name: value for name, value in chosen.items() if name == "reception"}
    return chosen


def records(subscribers: Iterable[tuple[str, SubscriberOptions]]) -> bytes:
    """Return the input from which `sympa restore` adds subscribers, with options from ``options``."""
    return "".join(
        "".join(f"{name} {value}\n" for name, value in [("email", address), *parse_qsl(found.words)]) + "\n"
        for address, found in subscribers
    ).encode()
