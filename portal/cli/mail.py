"""`flask mail`: send what waits, try the mail server, and look at letters."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from flask import current_app

from portal import translation
from portal.cli.output import CommandGroup, print_message
from portal.domain.address import canonical, outgoing
from portal.errors import MailUnavailableError
from portal.extensions import db, portal

if TYPE_CHECKING:
    from portal.services.mail.sending import Mailer, Pass

# Services are imported where they are used: the minute's command pays for none that it does not call.


@click.group("mail", cls=CommandGroup)
def mail() -> None:
    """Send mail, try the mail server, and look at letters."""


def mailer() -> "Mailer":
    """Return what letters are made and sent with."""
    from portal.services.mail.sending import Mailer

    return Mailer(portal().settings, Path(current_app.instance_path), portal().clock)


@mail.command()
@click.option("-v", "--verbose", is_flag=True, help="Print what was done, even if all is well.")
def send(*, verbose: bool) -> None:
    """Send what waits, as `flask minutely` does each minute.

    What people wait for goes first, then invitations, at most `mails_per_minute` of them.

    \b
    Example: flask mail send -v
    """
    from portal.services.mail.sending import send_due

    found = send_due(db.session(), mailer(), sends_bulk=True)
    if verbose:
        click.echo(in_words(found))
    if found.trouble:
        raise MailUnavailableError(found.trouble)


def in_words(found: "Pass") -> str:
    """Return what a pass over the outbox did."""
    return (
        f"{found.sent} sent, {found.refused} refused, {found.put_off} put off, {found.dropped} that nobody was to get"
    )


@mail.command()
@click.argument("address")
def test(*, address: str) -> None:
    """Send a test letter, and say each step.

    \b
    Example: flask mail test alice@example.org
    """
    from portal.services.mail.sending import send_test

    canonical(address)
    send_test(mailer(), to=outgoing(address), report=print_message)
    click.echo("sent")


@mail.command()
@click.option("--language", help="The language of the letter. By default, the first of the setting `languages`.")
@click.argument("name", metavar="LETTER")
def preview(*, name: str, language: str | None) -> None:
    """Print a letter, as it is or as you replaced it in `instance/mail/`, with values that are examples.

    \b
    Example: flask mail preview invite
    """
    from portal.services.mail import letters

    if name not in letters.LETTERS:
        raise click.UsageError(f"there is no letter of that name; there are: {', '.join(letters.LETTERS)}")
    languages = portal().settings.languages
    if language not in {None, *languages}:
        raise click.UsageError(f"`languages` has no {language}; there are: {', '.join(languages)}")
    with translation.using(language or languages[0]):
        letter = letters.preview(name, settings=portal().settings, folder=Path(current_app.instance_path))
    click.echo(f"Subject: {letter.subject}\n\n{letter.body}", nl=False)
