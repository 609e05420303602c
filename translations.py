"""Bring the catalogues of texts up to date: ``make translations``. What is new is left empty, for a translator.

Texts come from templates, and from the sources by the functions that translate or mark them.
"""

import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from hatch_build import compile_catalogues
from portal import errors
from portal.domain.membership import TOO_FEW_NAMED, TOO_MANY_LEAVERS, TOO_MANY_MOVED, Why
from portal.domain.run import COUNT_WORDS

ROOT = Path(__file__).resolve().parent
# How each function is called: which of its arguments are texts.
_FUNCTIONS: Mapping[str, tuple[int, ...] | None] = {
    "_": None,
    "gettext": None,
    "lazy_gettext": None,
    "marked": None,
    "ngettext": (1, 2),
    "Fault": (3,),
}
# Errors that a page shows; those of operators are in English, as the commands and the configuration are.
_SHOWN = {
    name: None for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.PortalError)
}
_SOURCES = ("rule", "import")  # of a preference, as histories show them
_METHODS = [
    ("web/api/**.py", "ignore"),
    ("templates/**.html", "jinja2"),
    ("web/**.py", "python"),
    ("services/history.py", "python"),
    ("services/accounts/**.py", "python"),
    ("services/mail/**.py", "python"),
    ("services/membership/**.py", "python"),
    ("services/preferences/preferences.py", "python"),
    ("services/reports/operator_notices.py", "python"),
    ("services/reports/why.py", "python"),
    ("services/sync/settlement.py", "python"),
    ("services/preferences/on_behalf.py", "python"),
    ("domain/address.py", "python"),
    ("domain/usernames.py", "python"),
    ("domain/membership_file.py", "python"),
    ("faults.py", "python"),
    ("translation.py", "python"),
]
_OPTIONS = {
    "templates/**.html": {
        "trimmed": "true",
        "newstyle_gettext": "false",
        "silent": "false",
        "extensions": "jinja2.ext.i18n",
    }
}
# Of the header of a catalogue: what changes with each run, or says nothing.
_OF_BABEL = (
    rb'^"(POT-Creation-Date|PO-Revision-Date|Report-Msgid-Bugs-To|Last-Translator|Language-Team|Generated-By): .*\n'
)


def extract() -> Catalog:
    """Return every text that is translated, with where it is."""
    catalogue = Catalog(project="member-portal", fuzzy=False)
    found = extract_from_dir(
        ROOT / "portal", _METHODS, _OPTIONS, keywords={**_FUNCTIONS, **_SHOWN}, comment_tags=("translators:",)
    )
    for name, _line, message, comments, context in found:
        if message and message != ("", ""):
            catalogue.add(message, locations=[(f"portal/{name}", None)], auto_comments=comments, context=context)
    for words in (*Why, *_SOURCES, TOO_MANY_LEAVERS, TOO_MANY_MOVED, TOO_FEW_NAMED):
        catalogue.add(str(words), locations=[("portal/domain/membership.py", None)])
    for words in COUNT_WORDS.values():
        catalogue.add(words, locations=[("portal/domain/run.py", None)])
    return catalogue


def sources() -> list[Path]:
    """Return the catalogues of all languages."""
    return sorted(ROOT.glob("portal/locale/*/LC_MESSAGES/portal.po"))


def read(path: Path) -> Catalog:
    """Return a catalogue. Raise PoFileError."""
    with path.open("rb") as file:
        return read_po(file, locale=path.parts[-3], abort_invalid=True)


def updated(path: Path, texts: Catalog) -> bytes:
    """Return a catalogue with the texts that there are now, in their order; what is gone is gone."""
    catalogue = read(path)
    catalogue.update(texts, no_fuzzy_matching=True, update_header_comment=False, keep_user_comments=True)
    catalogue.obsolete.clear()
    written = io.BytesIO()
    write_po(written, catalogue, width=120, ignore_obsolete=True, include_lineno=False, sort_by_file=True)
    return re.sub(_OF_BABEL, b"", written.getvalue(), flags=re.MULTILINE)


def main() -> None:
    """Write the catalogues anew, and say what has no translation yet."""
    texts = extract()
    for path in sources():
        path.write_bytes(updated(path, texts))
        empty = [
            each.id
            for each in read(path)
            if each.id and not all([each.string] if isinstance(each.string, str) else each.string)
        ]
        sys.stdout.write(f"{path.parts[-3]}: texts: {len(texts)}, not translated: {len(empty)}\n")
    compile_catalogues(ROOT)


if __name__ == "__main__":
    main()
