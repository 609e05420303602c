"""Globals and filters of all templates: the member, the site's name, assets, and times in words."""

from collections.abc import Sequence
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from flask import Flask, g, request
from jinja2 import StrictUndefined, Template
from jinja2.environment import TemplateModule
from jinja2.runtime import Context

from portal.config import Settings
from portal.domain.address import printable
from portal.errors import PortalError
from portal.extensions import portal
from portal.services.accounts.log import MERGED_INTO, MERGED_WITH
from portal.services.history import author_text
from portal.services.membership.runs import MESSAGES
from portal.translation import gettext, gettext_stored, ngettext
from portal.translation import lazy_gettext as _

# In the language of the page, not in the locale of the process.
MONTHS = (
    _("Jan"),
    _("Feb"),
    _("Mar"),
    _("Apr"),
    _("May"),
    _("Jun"),
    _("Jul"),
    _("Aug"),
    _("Sep"),
    _("Oct"),
    _("Nov"),
    _("Dec"),
)
ON_EVERY_PAGE = ("site_name", "help_contact", "imprint_url", "privacy_url")  # of the settings
YEAR = 365 * 24 * 3600  # seconds


class _Template(Template):
    """A template that imports others without a context: they see only the globals of the environment."""

    def _get_default_module(self, ctx: Context | None = None) -> TemplateModule:  # noqa: ARG002
        # At each import Jinja would compare all globals, to find any that only this template has: 4 % of a page.
        return super()._get_default_module()


def prepare(app: Flask, settings: Settings) -> None:
    """Configure Jinja and add globals and filters."""
    _set_up_jinja(app)
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = YEAR  # an asset's URL changes with its content
    files = Path(app.static_folder or "").iterdir()
    urls = {path.name: f"{app.static_url_path}/{path.name}?v={_version(path)}" for path in files}
    zone = ZoneInfo(settings.timezone)

    def asset(name: str) -> str:
        return request.script_root + urls[name]

    def local(at: datetime) -> tuple[datetime, datetime]:
        return at.astimezone(zone), portal().clock().astimezone(zone)

    def moment(at: datetime) -> str:
        there, now = local(at)
        return f"{day_text(there, now)}, {there:%H:%M}"

    app.jinja_env.globals.update(
        _=gettext,
        **{name: getattr(settings, name) for name in ON_EVERY_PAGE},
        asset=asset,
        page_numbers=page_numbers,
        are_lists_known=lambda: portal().readable_catalogue() is not None,
    )
    app.jinja_env.filters.update(
        day=lambda at: day_text(*local(at)),
        moment=moment,
        iso=lambda at: at.astimezone(zone).isoformat(timespec="seconds"),
        number=number,
        sentence=sentence,
        printable=lambda text: printable(text, limit=400),
        listed=listed,
        change=lambda text: gettext_stored(gettext(text), (MERGED_INTO, MERGED_WITH)),
        message=lambda text: printable(gettext_stored(text, MESSAGES), limit=400),
        author=lambda name: printable(author_text(name), limit=400),
    )
    app.context_processor(_common)


def _set_up_jinja(app: Flask) -> None:
    app.jinja_options = {
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
        "extensions": ["jinja2.ext.i18n"],
    }
    app.jinja_env.template_class = _Template
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    app.jinja_env.install_gettext_callables(gettext, ngettext)  # type: ignore[attr-defined]


def _common() -> dict[str, Any]:
    # Only what the guard has set: the error page for a broken database must not query it.
    return {"member": g.get("member")}


def _version(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:8]


def day_text(at: date, now: date) -> str:
    """Return a day as ``22 Nov``, with the year if it is not the current one. Both are in one time zone."""
    month = MONTHS[at.month - 1]
    if at.year == now.year:
        return gettext("%(day)s %(month)s", day=at.day, month=month)
    return gettext("%(day)s %(month)s %(year)s", day=at.day, month=month, year=at.year)


def number(value: int) -> str:
    """Return a number with separated thousands."""
    return f"{value:,}".replace(",", gettext("1,000")[1:-3])


def listed(names: Sequence[str]) -> str:
    """Return names as ``A``, ``A and B`` or ``A, B and C``."""
    *first, last = names
    return gettext("%(names)s and %(last)s", names=", ".join(first), last=last) if first else last


def page_numbers(number: int, last: int) -> list[int | None]:
    """Return the page numbers to link: the first, the neighbours and the last, with None for gaps."""
    shown = sorted({each for each in (1, number - 1, number, number + 1, last) if 1 <= each <= last})
    found: list[int | None] = []
    before = 0
    for each in shown:
        if each - before > 1:
            found.append(each - 1 if each - before == 2 else None)  # one page number takes no more room than dots
        found.append(each)
        before = each
    return found


def sentence(said: str | PortalError) -> str:
    """Return an error as a translated sentence. Services raise errors in English."""
    text = gettext(said.words, **said.values) if isinstance(said, PortalError) else gettext(said)
    ended = text if text.endswith((".", "!", "?")) or not text else f"{text}."
    return ended[:1].upper() + ended[1:]
