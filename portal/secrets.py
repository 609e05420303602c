"""Secrets that the portal creates at its first start."""

import errno
import os
import secrets
import tempfile
from pathlib import Path

from portal import ownership
from portal.errors import ConfigurationError

_LEAST = 32  # characters
_LEAST_VARIETY = 8  # of different characters
_EXAMPLES = ("change", "example", "secret", "password")


def read_or_make(path: Path) -> str:
    """Return the secret in a file, creating it if needed; processes that start together get the same one.

    The file appears whole or not at all, with mode 0600: it is written under a private name and then linked. Raise
    ConfigurationError for a secret that is short or looks like an example.
    """
    try:
        if not path.exists():
            _make(path)
        secret = path.read_text(encoding="ascii").strip()
    except OSError as error:
        advice = "; let the portal's user own the file and its folder" if error.errno == errno.EACCES else ""
        reason = os.strerror(error.errno or 0) + advice
        raise ConfigurationError(f"{path}: cannot be read or created: {reason}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{path}: the secret is not plain ASCII; delete the file, and the portal creates a new one"
        ) from None
    if len(secret) < _LEAST or len(set(secret)) < _LEAST_VARIETY or any(word in secret.lower() for word in _EXAMPLES):
        raise ConfigurationError(
            f"{path}: the secret is shorter than {_LEAST} characters, or is an example; delete the file, and the "
            "portal creates a new one"
        )
    return secret


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", encoding="ascii") as private:
        private.write(secrets.token_hex(32))
        private.flush()
        ownership.hand_over(private.fileno(), folder=path.parent)
        os.fsync(private.fileno())
        try:
            os.link(private.name, path)
        except FileExistsError:
            return  # another process was first, so its secret is used
