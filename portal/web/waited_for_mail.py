"""Mail that a person waits for is sent by the process that asked for it, within seconds; cron sends the rest.

The thread lives only while there is something to send, so a process that is forked later takes none along.
"""

import logging
import threading
from pathlib import Path

from flask import Flask, current_app

from portal.extensions import db
from portal.running import Portal


class Sender:
    """One thread at most, which sends what is waited for until nothing is left."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._is_running = self._is_asked_again = False

    @property
    def is_idle(self) -> bool:
        """Tell whether all that was asked for has been sent or put off."""
        with self._lock:
            return not self._is_running

    def wake(self) -> None:
        """Have sent what was just asked for, and return at once."""
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
            send_due(
                db.session(), Mailer(portal.settings, Path(self._app.instance_path), portal.clock), sends_bulk=False
            )


def prepare(app: Flask) -> None:
    """Give an application its sender."""
    app.extensions["sender"] = Sender(app)


def wake() -> None:
    """Have sent what was just asked for, and return at once."""
    sender: Sender = current_app.extensions["sender"]
    sender.wake()
