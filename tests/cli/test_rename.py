"""`flask mailinglist rename`: what it prints, and how it ends."""

from pathlib import Path

from tests.conftest import CATALOGUE, Rosters


def test_rename_says_what_it_carried_over(make_app, instance: Path, rosters: Rosters):
    runner = make_app(for_a_command=True).test_cli_runner()
    assert runner.invoke(args=["user", "create", "alice", "alice@example.org"]).exit_code == 0
    runner.invoke(args=["mailinglist", "sync", "members"])
    (instance / "mailinglists.toml").write_text(
        CATALOGUE.replace("[lists.members]", '[lists.everybody]\nlist = "members"')
    )
    runner = make_app(for_a_command=True).test_cli_runner()
    renamed = runner.invoke(args=["mailinglist", "rename", "members", "everybody"])
    assert (renamed.exit_code, renamed.stdout) == (0, ""), renamed.stderr
    assert renamed.stderr == (
        "members is now everybody; moved: preferences: 1, history: 1, runs: 1, lines of runs: 0\n"
    )
    again = runner.invoke(args=["mailinglist", "rename", "members", "everybody"])
    assert (again.exit_code, again.stderr.startswith("error: everybody ")) == (65, True)
