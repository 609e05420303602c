"""Files that root's commands create in an instance folder belong to the folder's owner, as the pages need."""

import os
import stat
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from portal import create_app, ownership
from portal.extensions import db
from portal.extensions import portal as of_app
from portal.services import security_log

# Root can give the folder to somebody else; other users make files for themselves, in folders of their own.
OWNER = 65534 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "instance"
    found.mkdir(mode=0o700)
    os.chown(found, OWNER, -1)
    return found


def test_keys_database_and_security_log_are_the_folders_owners(folder: Path) -> None:
    app = create_app(environ={"PORTAL_INSTANCE": str(folder), "PORTAL_SECURITY_LOG": str(folder.parent / "log")})
    with app.app_context():
        assert app.test_cli_runner().invoke(args=["db", "upgrade"]).exit_code == 0
        of_app().list_password_key()
        security_log.log("key made", api_key=1)
        security_log.log("key used", api_key=1)
        with Session(db.engine) as session:
            session.connection()
            made = {each.name: each.stat() for each in (*folder.iterdir(), folder.parent / "log")}
        db.engine.dispose()
    assert made.keys() >= {"secret_key", "list_password_key", "portal.db", "log"}
    assert {name: each.st_uid for name, each in made.items()} == dict.fromkeys(made, OWNER)
    assert {stat.S_IMODE(each.st_mode) for each in made.values()} == {0o600}
    assert len((folder.parent / "log").read_text().splitlines()) == 2


def test_a_file_that_is_there_is_never_handed_over(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (folder / "link").symlink_to(target)
    with pytest.raises(FileExistsError):
        ownership.create(folder / "link")
    assert target.stat().st_uid == os.geteuid()
