#!/bin/sh
# {{ name }}
#
# Changes the mailing lists as members chose in the portal, and reports to the portal who left or joined at the list.
# {% block summary required %}{% endblock %}
#
# Printed by: flask mailinglist sync-script{{ option }}. Print it again after each change of mailinglists.toml.
#
# Let cron run it once an hour. It prints nothing if everything works:
#     MAILTO=postmaster@example.org
#     17 * * * * {% block cron required %}{% endblock %}
#
# A large change needs approval. The message names the plan. This approves exactly that plan, once:
#     {{ name }} --accept ID
#
# If a line of a roster is not an address, nothing is changed (exit code 65). After you have checked the lines that are
# reported, --skip-invalid skips them.
#
# Variables: PORTAL_TIMEOUT, the timeout in seconds for one command or one answer (900);
# PORTAL_PATH, the folders in which commands without a path are looked for.
# {% block variables required %}{% endblock %}
#
# Exit codes: 0 done, 1 unexpected error, 2 wrong usage, 65 bad input, 69 list manager or portal unavailable, 75 another
# run holds the list, or the list is paused, 77 not allowed, or needs approval, 78 configuration. For several lists: 1 if
# any list ended with 1, otherwise the highest.
#
# This script runs in every POSIX shell. Names may contain a literal dollar sign, and traps call functions:
# shellcheck disable=SC2016,SC2317,SC2329

set -u
umask 077
LC_ALL=C
PATH=${PORTAL_PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
export LC_ALL PATH

# --- the command line

shown() { # copy the input without control characters
    tr -c '\012\040-\176' '?'
}
complain() { # WORDS
    printf '%s: %s\n' '{{ name }}' "$1" | shown >&2
}

usage() {
    complain 'usage: {{ name }} [--skip-invalid] [--accept ID], where ID is 16 digits and letters from a to f'
    exit 2
}

accept=
skip_invalid=
while [ $# -gt 0 ]; do
    case $1 in
        --skip-invalid) skip_invalid=1 ;;
        --accept)
            accept=${2:-}
            case $accept in '' | *[!0-9a-f]*) usage ;; esac
            shift
            ;;
        *) usage ;;
    esac
    shift
done
seconds=${PORTAL_TIMEOUT:-900}
case $seconds in
    '' | *[!0-9]*)
        complain "PORTAL_TIMEOUT must be a number of seconds, and is: $seconds"
        exit 78
        ;;
esac
{% block settings required %}{% endblock %}

# --- the exit code, and signals

worst=0
failed() { # CODE: keep it if it is worse than the previous ones
    case $1 in
        65 | 69 | 75 | 77 | 78) ;;
        *) worst=1 ;;
    esac
    [ "$worst" -eq 1 ] || [ "$worst" -ge "$1" ] || worst=$1
}

private=$(mktemp -d "${TMPDIR:-/tmp}/mailing-list-sync.XXXXXX") || {
    complain 'could not create a private folder for the rosters'
    exit 1
}
open= # the list whose planned run is open
finish() {
    trap '' HUP INT TERM
    [ -z "$open" ] || ! abandon || forget_run
    rm -rf "$private"
}
heed_signals() {
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
note_signals() {
    stopped=
    trap 'stopped=129' HUP
    trap 'stopped=130' INT
    trap 'stopped=143' TERM
}
trap finish EXIT
heed_signals

# --- the list manager's commands

# A command that exceeds its timeout is interrupted first, and killed only if it does not end: a Mailman command that is
# killed leaves its list locked for hours.
if timeout -s INT -k 1 5 true </dev/null >/dev/null 2>&1; then
    limited() { timeout -s INT -k 60 "$seconds" "$@"; }
else
    limited() { "$@"; }
fi

show_said() {
    head -n 20 "$private/said" | shown >&2
}

unavailable() { # WHAT EXIT-CODE
    complain "$list: $1 ended with exit code $2, saying:"
    show_said
    return 69
}

# Use a roster only if the command that prints it succeeds.
read_roster() { # FILE
    roster </dev/null >"$1" 2>"$private/said" || unavailable 'the command that lists its members' $?
}

tell() { # add or remove, FILE: call nothing if there is no address to send
    [ -s "$2" ] || return 0
    push "$1" <"$2" && return
    tell_code=$?
    # A single address may make the command fail. The others must not have to wait for it.
    tell_one_by_one "$1" "$2" && return
    mv "$private/said_of_pushing" "$private/said"
    unavailable "the command to $1 members" "$tell_code"
}
push() { # add or remove
    case $1 in
        add) add >>"$private/said_of_pushing" 2>&1 ;;
        remove) remove >>"$private/said_of_pushing" 2>&1 ;;
    esac
}
tell_one_by_one() { # add or remove, FILE: fail if the list manager fails, and not just at some addresses
    : >"$private/failing"
    worked=
    while IFS= read -r address; do
        if printf '%s\n' "$address" | push "$1"; then
            worked=1
        else
            printf '%s\n' "$address" >>"$private/failing"
            [ -n "$worked" ] || [ "$(($(wc -l <"$private/failing")))" -lt 10 ] || return
        fi
    done <"$2"
    [ -n "$worked" ] || [ "$(($(wc -l <"$2")))" -eq 1 ] || return
    read_roster "$private/after" || return
    while IFS= read -r address; do
        complain "$list: could not $1 $address: the command fails for this address"
    done <"$private/failing"
}

# --- the portal
{% block portal required %}{% endblock %}

# If the portal becomes unreachable, try again for two minutes.
persist() { # COMMAND ARGUMENT...
    persist_until=$(($(date +%s) + 120))
    while :; do
        "$@" 2>"$private/complaint"
        persist_code=$?
        if [ "$persist_code" -ne 69 ] || ! is_gone || [ "$(date +%s)" -ge "$persist_until" ]; then break; fi
        sleep 5
    done
    cat "$private/complaint" >&2
    return "$persist_code"
}

# The token of an open run is kept in a file, so that the next start can end a run that was interrupted.
keep_run() {
    { printf '%s %s\n' "$token" "$$" >"$kept.$list"; } 2>/dev/null || :
}
forget_run() {
    open=
    rm -f "$kept.$list"
}
give_back() {
    persist abandon && forget_run
}
end_cut_short_run() {
    { read -r token run_pid <"$kept.$list"; } 2>/dev/null || return 0
    case $run_pid in '' | *[!0-9]*) run_pid=$$ ;; esac
    # If the other script is still running, it ends its run itself.
    [ "$run_pid" = "$$" ] || ! kill -0 "$run_pid" 2>/dev/null || return 0
    case $token in
        '' | *[!0-9a-f]*) ;;
        *)
            abandon 2>"$private/complaint"
            case $? in
                0) complain "$list: an earlier run of this script was interrupted; this run does the rest" ;;
                69)
                    cat "$private/complaint" >&2
                    return 69
                    ;;
            esac
            ;;
    esac
    forget_run
}
number_of() { # NAME FILE
    sed -n "s/^$1: \([0-9][0-9]*\)\$/\1/p" "$2"
}

# --- one list

# The same as `flask mailinglist sync` in one process, with the same safety limits and rules.
planned_run() { # LIST
    list=$1
    : >"$private/said_of_pushing"
    end_cut_short_run || return
    # Read who is on the list now.
    read_roster "$private/before" || return
    # The portal makes the plan, and locks the list for other runs until this run ends.
    note_signals
    plan "$private/before"
    run_code=$?
    [ "$run_code" -ne 0 ] || {
        open=$list
        keep_run
    }
    heed_signals
    [ -z "$stopped" ] || exit "$stopped"
    [ "$run_code" -eq 0 ] || return "$run_code"
    push_and_confirm && return
    run_code=$?
    # The next run finds out which changes were made.
    give_back
    open=
    return "$run_code"
}

push_and_confirm() {
    # Get only the differences: the addresses to add and to remove.
    planned_adds >"$private/adds" || return
    planned_removals >"$private/removals" || return
    # Removals come first, so that an add that fails does not delay them.
    tell remove "$private/removals" || return
    tell add "$private/adds" || return
    # Set new list passwords. A failure is reported, but does not stop the run.
    push_passwords || failed $?
    # Read the roster again. From it, the portal sees which changes took effect, and ends the run.
    read_roster "$private/after" || return
    persist confirm "$private/after" >"$private/counts" || return
    forget_run
    undone=0
    for each in refused waiting no_effect; do
        count=$(number_of "$each" "$private/counts")
        undone=$((undone + ${count:-0}))
    done
    [ "$undone" -eq 0 ] || {
        complain "$list: the list manager did not carry out the changes of $undone addresses;"
        complain "the portal's report of this run names them; the list manager's commands printed:"
        mv "$private/said_of_pushing" "$private/said"
        show_said
    }
}
{% for each in lists %}

# --- {{ each.handle }}

{% if each.steps %}
roster() {
{{ each.steps.roster }}
}
add() {
{{ each.steps.add }}
}
remove() {
{{ each.steps.remove }}
}
{% if each.takes_passwords and (each.steps.passwords or not option) %}
push_passwords() {
    send_passwords
}
{% if option %}
set_passwords() {
{{ each.steps.passwords }}
}
{% endif %}
{% else %}
push_passwords() { :; } # none
{% endif %}
planned_run {{ each.handle }} || failed $?
{% else %}
{% block other scoped required %}{% endblock %}
{% endif %}
{% endfor %}

exit "$worst"
