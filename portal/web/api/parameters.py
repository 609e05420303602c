"""Query parameters of the API, for validation and for the OpenAPI document."""

from typing import Annotated, Literal, TypeVar

import msgspec
from flask import abort, request
from msgspec import Meta, Struct

from portal.domain.address import printable
from portal.domain.mailinglist import HANDLE

MAX_ID = 2**31 - 1  # the largest id that every database accepts
_YES = {"1", "true"}
_HANDLE = f"^{HANDLE.pattern}$"

Flag = Literal["0", "1", "false", "true"]
Form = Literal["json", "text"]
_form = Meta(description="The form of the answer. It takes precedence over the header `Accept`.")


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameter at all."""

    def is_set(self, name: str) -> bool:
        """Return whether a flag is set."""
        return getattr(self, name) in _YES


class InitQuery(Query, frozen=True):
    """The parameters of init, like the options of ``list-init``."""

    plan: Annotated[Flag, Meta(description="1: begin a planned run, and change nothing on the list.")] = "0"
    confirm: Annotated[Flag, Meta(description="1: end the planned run; the body is the roster after the changes.")] = (
        "0"
    )
    abandon: Annotated[Flag, Meta(description="1: abandon the planned run; the body is not read.")] = "0"
    allow_empty: Annotated[Flag, Meta(description="1: accept a roster without any address.")] = "0"
    skip_invalid: Annotated[Flag, Meta(description="1: skip the lines that cannot be read.")] = "0"
    accept: (
        Annotated[str, Meta(pattern="^[0-9a-f]{16}$", description="With plan: approve exactly this plan.")] | None
    ) = None
    token: (
        Annotated[
            str,
            Meta(pattern="^[0-9a-f]{32}$", description="With confirm or abandon: end only the run with this token."),
        ]
        | None
    ) = None
    format: Annotated[Form, _form] | None = None


class ExportQuery(Query, frozen=True):
    """The addresses to return, and the format."""

    planned: Annotated[Flag, Meta(description="1: return only the addresses of the open planned run.")] = "0"
    format: Annotated[Form, _form] | None = None


class PasswordsQuery(Query, frozen=True):
    """The passwords to return."""

    all: Annotated[Flag, Meta(description="1: also return those that are marked as set.")] = "0"


class FormatQuery(Query, frozen=True):
    """The format of the answer."""

    format: Annotated[Form, _form] | None = None


class RunsQuery(Query, frozen=True):
    """The runs to return."""

    list: Annotated[str, Meta(max_length=64, pattern=_HANDLE, description="Only runs of this list.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="The maximum number of runs.")] = 50
    before: (
        Annotated[int, Meta(ge=1, le=MAX_ID, description="Only runs older than the run with this number.")] | None
    ) = None


class MembersQuery(Query, frozen=True):
    """The parameters of an import of members, like the options of ``user import``."""

    dry_run: Annotated[Flag, Meta(description="1: return the plan and change nothing.")] = "0"
    accept: (
        Annotated[str, Meta(pattern="^[0-9a-f]{16}$", description="Approve exactly the plan with this id.")] | None
    ) = None
    leavers: (
        Annotated[
            Literal["deactivate", "keep"],
            Meta(
                description="What happens to linked accounts that are no longer in the file; without it, they are kept."
            ),
        ]
        | None
    ) = None
    key: Annotated[str, Meta(min_length=1, max_length=120, description="The column with the member keys.")] | None = (
        None
    )


_Kind = TypeVar("_Kind", bound=Query)


def asked(kind: type[_Kind]) -> _Kind:
    """Return the validated query of the request, or abort with 400 for unknown and repeated parameters.

    A misspelled ``plan`` must not run a list-init.
    """
    names = kind.__struct_fields__
    for name, values in request.args.lists():
        if name not in names:
            known = ", ".join(names) or "none"
            abort(400, f"there is no parameter {printable(name, limit=40)} here (there are: {known})")
        if len(values) > 1:
            abort(400, f"the parameter {name} is given more than once")
    try:
        return msgspec.convert(request.args.to_dict(), kind, strict=False)
    except msgspec.ValidationError as error:
        return abort(400, f"a parameter is not as it should be: {error}".replace("`$.", "`"))
