"""Mask the tokens of mailed links in the access logs of servers."""

import logging
import re

_TOKEN = re.compile(r"(/link/)[\w-]{20,}")
_LOGS = ("werkzeug", "gunicorn.access")


class _Mask(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "/link/" in message:
            record.msg, record.args = _TOKEN.sub(r"\1…", message), None
        return True


_MASK = _Mask()


def prepare() -> None:
    """Add the mask to the logs of the supported servers."""
    for name in _LOGS:
        logging.getLogger(name).addFilter(_MASK)
