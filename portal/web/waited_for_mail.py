"""Mail that somebody is waiting for is sent by the web process within seconds; cron sends the rest.

The thread exists only while there is something to send, so processes that are forked later do not inherit it.
"""

import logging
import threading
import time
from pathlib import Path

from flask import Flask, Response, current_app

from portal.extensions import db
from portal.running import Portal

_LOOKS_EVERY = 600  # seconds


class Sender:
    """Sends waiting mail in at most one thread, until nothing is left."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._is_running = self._is_asked_again = self._is_to_look = False
        self._looked_at: float | None = None

    @property
    def is_idle(self) -> bool:
        """Return whether everything requested has been sent or postponed."""
        with self._lock:
            return not self._is_running

    def look_at_lists(self) -> None:
        """Every ten minutes of use, send operators the notices that cron would send, in case cron has stopped."""
        portal: Portal = self._app.extensions["portal"]
        if portal.settings.mail is None or not portal.settings.mail.operators:
            return
        with self._lock:
            now = time.monotonic()
            if self._looked_at is not None and now - self._looked_at < _LOOKS_EVERY:
                return
            self._looked_at, self._is_to_look = now, True
        self.wake()

    def wake(self) -> None:
        """Start sending what was just requested, and return immediately."""
        portal: Portal = self._app.extensions["portal"]
        if portal.settings.mail is None:
            return
        with self._lock:
            self._is_asked_again = True
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="mail", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._is_asked_again:
                    self._is_running = False
                    return
                self._is_asked_again = False
            try:
                self._send()
            except Exception:
                logging.getLogger("portal").exception("unforeseen")

    def _send(self) -> None:
        from portal.services.mail.sending import Mailer, send_due

        with self._app.app_context():
            portal: Portal = self._app.extensions["portal"]
            with self._lock:
                is_to_look, self._is_to_look = self._is_to_look, False
            if is_to_look:
                self._notice(portal)
            mailer = Mailer(portal.settings, Path(self._app.instance_path), portal.clock)
            send_due(db.session(), mailer, sends_bulk=False)

    def _notice(self, portal: Portal) -> None:
        from portal.services.reports import operator_notices

        catalogue = portal.readable_catalogue()
        if portal.settings.mail is not None and catalogue is not None:
            operators = portal.settings.mail.operators
            operator_notices.ask_for(db.session(), operators=operators, catalogue=catalogue, now=portal.clock())


def prepare(app: Flask) -> None:
    """Add the sender to an application."""
    app.extensions["sender"] = sender = Sender(app)

    def look(response: Response) -> Response:
        sender.look_at_lists()
        return response

    app.after_request(look)


def wake() -> None:
    """Start sending what was just requested, and return immediately."""
    sender: Sender = current_app.extensions["sender"]
    sender.wake()
