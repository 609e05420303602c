"""Shell text for generated scripts: quoted commands, and the common forms of steps.

All of it runs under bash, dash and busybox. An address reaches a command on stdin or as one quoted word; no input is
ever evaluated.
"""

import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise


def words(texts: Iterable[str]) -> str:
    """Return words, each quoted."""
    return " ".join(map(shlex.quote, texts))


def command(argv: Sequence[str]) -> str:
    """Return a quoted command that is ended if it takes too long."""
    return f"    limited {words(argv)}"


def tolerating(step: str, *, ok_exit_codes: Sequence[int]) -> str:
    """Return a step whose last command may exit with any of some codes."""
    if tuple(ok_exit_codes) == (0,):
        return step
    known = " | ".join(map(str, ok_exit_codes))
    return f"{step}\n    case $? in {known}) return 0 ;; *) return 1 ;; esac"


def without_first_lines(step: str, *, count: int) -> str:
    """Return a step that prints the output of another without its first lines, and fails if there are too few."""
    if count == 0:
        return step
    few = f"NR > {count} {{ print }} END {{ exit NR < {count} }}"
    return f"""{step} >"$private/step_printed" || return
    awk '{few}' <"$private/step_printed" """.rstrip()


def line_by_line(words: Sequence[str], *, ok_exit_codes: Sequence[int] = (0,), passed_over: str = "") -> str:
    """Return a step that runs a command for each address, which replaces ``{address}`` in its words.

    An address that fails does not stop the others; the step fails if several fail and none succeeds. ``passed_over``
    are lines that ``continue`` if there is nothing to do for ``"$step_address"``.
    """
    call = " ".join(_word(each) for each in words)
    known = " | ".join(map(str, ok_exit_codes))
    if any(each == "{address}" and not before.startswith("-") for before, each in pairwise(words)):
        passed_over += "        case $step_address in -*) continue ;; esac # it would be taken for an option\n"
    return f"""    step_done=0
    step_failed=0
    while IFS= read -r step_address; do
{passed_over}        step_code=0
        limited {call} </dev/null || step_code=$?
        case $step_code in
            {known}) step_done=$((step_done + 1)) ;;
            *) step_failed=$((step_failed + 1)) ;;
        esac
    done
    [ "$step_failed" -le 1 ] || [ "$step_done" -gt 0 ]"""


def _word(word: str) -> str:
    option, found, _ = word.partition("{address}")
    if not found:
        return shlex.quote(word)
    return (shlex.quote(option) if option else "") + '"$step_address"'
