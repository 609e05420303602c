"""`flask user`: create, show, change and delete accounts."""

import sys

import click

from portal.cli.output import CommandGroup, as_text_or_json, print_json, print_message, print_table
from portal.domain import usernames
from portal.errors import BadInputError, ConfigurationError
from portal.extensions import db, portal
from portal.services.accounts import addresses, password_changes, passwords, profiles, users
from portal.services.accounts.profiles import Profile
from portal.services.history import COMMAND_LINE

_LONGEST_INPUT = 8_192  # bytes of a password on standard input


@click.group("user", cls=CommandGroup)
def user() -> None:
    """Create, show, change and delete accounts.

    Write `--` before a name or an address that begins with a dash.
    """


_password_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@user.command()
@_password_stdin
@click.option("--superuser", is_flag=True, help="Let the user see reports and make changes for others.")
@click.option("--group", "groups", multiple=True, metavar="G", help="Put the user into a group. Can be repeated.")
@click.option("--name", default="", help="The person's name.")
@click.argument("username")
@click.argument("email")
def create(
    *, username: str, email: str, name: str, groups: tuple[str, ...], superuser: bool, password_stdin: bool
) -> None:
    """Create an account with an e-mail address.

    Asks for a password. If the answer is empty, or if there is no terminal, a random password is created and printed
    once, on a line of its own. If other accounts also hold the address, they are named first.

    \b
    Example: flask user create --group board alice alice@example.org
    """
    address = addresses.checked(email, special_domains=portal().settings.allowed_special_domains)
    usernames.checked(username, own=[address.canonical])  # before asking for the password twice
    if shared := addresses.holders(db.session(), address):
        print_message(f"{address.spelling} is also held by {', '.join(shared)}; these accounts share its subscriptions")
    password, is_random = _new_password(password_stdin=password_stdin)
    users.create(
        db.session(),
        username=username,
        address=address,
        password=password,
        name=name,
        is_superuser=superuser,
        groups=groups,
        now=portal().clock(),
        rounds=portal().settings.bcrypt_rounds,
        lists=portal().known_lists(),
    )
    print_message(f"created {username}")
    if is_random:
        click.echo(password)


@user.command("list")
@as_text_or_json
def list_(*, form: str) -> None:
    """Print every account, sorted by username.

    \b
    Example: flask user list --format json
    """
    found = list(profiles.list_all(db.session()))
    if form == "json":
        print_json(found)
        return
    headings = ("USERNAME", "ADDRESS", "NAME", "SUPERUSER", "ACTIVE", "GROUPS")
    print_table(
        headings,
        [(each.username, each.email, each.name, each.is_superuser, each.is_active, each.groups) for each in found],
    )


@user.command()
@as_text_or_json
@click.argument("username")
def show(*, username: str, form: str) -> None:
    """Print one account.

    \b
    Example: flask user show alice
    """
    found = profiles.by_username(db.session(), username)
    if form == "json":
        print_json(found)
    else:
        print_table(("FIELD", "VALUE"), [*found._asdict().items()])


@user.command("set-password")
@_password_stdin
@click.argument("username")
def set_password(*, username: str, password_stdin: bool) -> None:
    """Set a user's password, and end all their sessions.

    Asks for the password. If the answer is empty, or if there is no terminal, a random password is created and printed
    once, on a line of its own.

    \b
    Example: flask user set-password alice
    """
    profiles.id_of(db.session(), username)  # before asking for the password twice
    password, is_random = _new_password(password_stdin=password_stdin)
    password_changes.set_password(db.session(), username, password=password, rounds=portal().settings.bcrypt_rounds)
    print_message(f"the password of {username} is set; their sessions have ended")
    if is_random:
        click.echo(password)


@user.command()
@click.argument("username", metavar="OLD")
@click.argument("renamed", metavar="NEW")
def rename(*, username: str, renamed: str) -> None:
    """Change a user's username.

    They log in with the new one. Their password, addresses and sessions do not change. A username with an @ must be one
    of their own addresses.

    \b
    Example: flask user rename alice alice.liddell
    """
    print_message(f"{username} is now called {users.rename(db.session(), username, to=renamed)}")


@user.command("set-groups")
@click.argument("username")
@click.argument("groups", nargs=-1)
def set_groups(*, username: str, groups: tuple[str, ...]) -> None:
    """Put a user into these groups and no others. Without GROUPS, remove them from all groups.

    \b
    Example: flask user set-groups alice board tech
    """
    users.set_groups(db.session(), username, groups=groups, now=portal().clock(), lists=portal().known_lists())
    print_message(f"{username} is in {', '.join(groups) or 'no group'}")


@user.command()
@click.argument("username")
def activate(*, username: str) -> None:
    """Let a user log in again, and manage their addresses on the lists again.

    \b
    Example: flask user activate alice
    """
    users.activate(db.session(), username, now=portal().clock(), lists=portal().known_lists())
    print_message(f"activated {username}")


@user.command()
@click.argument("username")
def deactivate(*, username: str) -> None:
    """Log a user out, and block them from logging in. The account is kept.

    \b
    Example: flask user deactivate alice
    """
    users.deactivate(db.session(), username, now=portal().clock())
    print_message(f"deactivated {username}; their sessions have ended")


@user.command()
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--erase", is_flag=True, help="Also erase the address, once it is on no list.")
@click.argument("username")
def delete(*, username: str, yes: bool, erase: bool) -> None:
    """Delete an account.

    Asks first. Without a terminal, add --yes. The choices for the address stay in the history, unless you add --erase
    and nobody else holds the address.

    \b
    Example: flask user delete --yes --erase alice
    """
    found = profiles.by_username(db.session(), username)
    if not yes:
        if not has_terminal():
            raise click.UsageError("cannot ask without a terminal; add --yes to delete the account")
        click.confirm(f"Delete {_called(found)}{' and erase the address' if erase else ''}?", abort=True, err=True)
    gone = users.delete(
        db.session(),
        username,
        erase=erase,
        now=portal().clock(),
        lists=portal().known_lists(),
        secret=portal().list_password_key(),
    )
    print_message(f"deleted {_called(gone)}")


@user.command()
@click.argument("username")
def grant(*, username: str) -> None:
    """Make a user a superuser.

    \b
    Example: flask user grant alice
    """
    users.grant(db.session(), username)
    print_message(f"{username} is now a superuser")


@user.command()
@click.argument("username")
def revoke(*, username: str) -> None:
    """Take the role of superuser from a user immediately, and revoke their API keys.

    The keys cannot be restored.

    \b
    Example: flask user revoke alice
    """
    ended = users.revoke(db.session(), username, now=portal().clock())
    print_message(f"{username} is no longer a superuser{f'; API keys revoked: {ended}' if ended else ''}")


def _new_password(*, password_stdin: bool) -> tuple[str, bool]:
    """Return a password from standard input, the terminal, or at random, and whether it is random."""
    if password_stdin:
        return _password_from_stdin(), False
    answer = _asked_password() if has_terminal() else ""
    return (answer, False) if answer else (passwords.random_password(), True)


def _asked_password() -> str:
    while True:
        answer = _ask("Password (leave empty for a random one)")
        if not answer or answer == _ask("Repeat password"):
            return answer
        print_message("the two passwords differ; try again")


def _ask(words: str) -> str:
    answer: str = click.prompt(words, default="", show_default=False, hide_input=True, err=True)
    return answer


def _password_from_stdin() -> str:
    raw = sys.stdin.buffer.read(_LONGEST_INPUT)
    try:
        lines = raw.decode("utf-8").removesuffix("\n").removesuffix("\r").split("\n")
    except UnicodeDecodeError:
        raise BadInputError("the password on standard input is not UTF-8") from None
    if len(lines) != 1 or not lines[0]:
        raise BadInputError("standard input must contain the password on a single line")
    return lines[0]


def has_terminal() -> bool:
    """Return True if a person can answer questions."""
    return sys.stdin.isatty()


def _called(found: Profile) -> str:
    return f"{found.username} ({', '.join(filter(None, (found.name, found.email)))})"


@user.command()
@click.option("--all", "everybody", is_flag=True, help="Invite all active accounts that have never logged in.")
@click.option("--group", "groups", multiple=True, metavar="G", help="Invite only those in this group. Can be repeated.")
@click.argument("usernames", metavar="[USERNAME]...", nargs=-1)
def invite(*, usernames: tuple[str, ...], everybody: bool, groups: tuple[str, ...]) -> None:
    """Invite people by e-mail, with a link to start using their account.

    Users that you name are invited even if they were invited before. `flask minutely` sends the mails, at most
    `mails_per_minute`.

    \b
    Example: flask user invite --group full
    """
    from portal.services.accounts import invitations

    if bool(usernames) == (everybody or bool(groups)):
        raise click.UsageError("name users, or use --all or --group, but not both")
    if portal().settings.mail is None:
        raise ConfigurationError("mail is not configured: add a table [mail] to portal.toml")
    ids = [profiles.id_of(db.session(), each) for each in usernames] or invitations.find_uninvited(
        db.session(), groups=users.checked_groups(groups)
    )
    count = invitations.invite(db.session(), ids, actor=COMMAND_LINE, now=portal().clock())
    click.echo(f"invitations: {count}")
