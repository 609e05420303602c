"""`flask mail`: send waiting mails, test the mail server, and preview letters."""

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
    from portal.services.mail.sending import Mailer, SendingResult

# Services are imported where they are used, because `flask minutely` must start fast.


@click.group("mail", cls=CommandGroup)
def mail() -> None:
    """Send mail, test the mail server, and preview letters."""


def mailer() -> "Mailer":
    """Return what is needed to write and send letters."""
    from portal.services.mail.sending import Mailer

    return Mailer(portal().settings, Path(current_app.instance_path), portal().clock)


@mail.command()
@click.option("-v", "--verbose", is_flag=True, help="Print what was done, even if all is well.")
def send(*, verbose: bool) -> None:
    """Send the waiting mails, as `flask minutely` does every minute.

    Mails that people are waiting for, such as links to log in, are sent first, then the others, at most
    `mails_per_minute`.

    \b
    Example: flask mail send -v
    """
    from portal.services.mail.sending import send_due

    found = send_due(db.session(), mailer(), sends_bulk=True)
    if verbose:
        click.echo(in_words(found))
    if found.trouble:
        raise MailUnavailableError(found.trouble)


def in_words(found: "SendingResult") -> str:
    """Return the result of a pass over the outbox in words."""
    return f"{found.sent} sent, {found.refused} refused, {found.deferred} postponed, {found.dropped} no longer needed"


@mail.command()
@click.argument("address")
def test(*, address: str) -> None:
    """Send a test letter, and print each step.

    \b
    Example: flask mail test alice@example.org
    """
    from portal.services.mail.sending import send_test

    canonical(address)
    send_test(mailer(), to=outgoing(address), report=print_message)
    click.echo("sent")


@mail.command()
@click.option("--language", help="Language of the letter. By default, the first one in the setting `languages`.")
@click.argument("name", metavar="LETTER")
def preview(*, name: str, language: str | None) -> None:
    """Print a letter with example values.

    The text is the portal's own, or yours from `mail/` in the instance folder.

    \b
    Example: flask mail preview invite
    """
    from portal.services.mail import letters

    if name not in letters.LETTERS:
        raise click.UsageError(f"unknown letter: {name}; choose one of: {', '.join(letters.LETTERS)}")
    languages = portal().settings.languages
    if language not in {None, *languages}:
        raise click.UsageError(f"{language} is not in the setting `languages`; choose one of: {', '.join(languages)}")
    with translation.using(language or languages[0]):
        letter = letters.preview(name, settings=portal().settings, folder=Path(current_app.instance_path))
    click.echo(f"Subject: {letter.subject}\n\n{letter.body}", nl=False)
