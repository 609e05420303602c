#!/bin/sh
# {{ name }}
#
# Keeps the mailing lists up to date with what members chose in the portal, and tells the portal who left or joined at
# the list. {% block summary required %}{% endblock %}
#
# Printed by: flask mailinglist sync-script{{ option }}. Print it again after every change of mailinglists.toml.
#
# For cron, once an hour, at a minute of your own. It prints nothing where all is well:
#     MAILTO=postmaster@example.org
#     17 * * * * {% block cron required %}{% endblock %}
#
# Larger changes need approval. The line that says so names the plan, and it is let through, once, by:
#     {{ name }} --accept ID
#
# A roster with a line that is not an address changes nothing (65). Where you have checked the lines that are reported,
# --skip-invalid passes over them.
#
# Variables: PORTAL_TIMEOUT, the seconds that one command or one answer may take (900);
# PORTAL_PATH, where commands without a path are looked for.
# {% block variables required %}{% endblock %}
#
# Exit codes, of several lists 1 if there is any, else the largest: 0 done, 1 unforeseen, 2 usage, 65 bad input,
# 69 list manager or portal unavailable, 75 another run holds the list, or it is paused, 77 not allowed, or needs approval,
# 78 configuration.
#
# It runs under every POSIX shell. A dollar in a name is meant as one, and functions are called by traps, too:
# shellcheck disable=SC2016,SC2317,SC2329

set -u
umask 077
LC_ALL=C
PATH=${PORTAL_PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
export LC_ALL PATH

# --- what is asked for

shown() { # what is read, without what a terminal would obey
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
        complain "PORTAL_TIMEOUT is a number of seconds, not: $seconds"
        exit 78
        ;;
esac
{% block settings required %}{% endblock %}

# --- how it ends

worst=0
failed() { # CODE: keep the worst of them
    case $1 in
        65 | 69 | 75 | 77 | 78) ;;
        *) worst=1 ;;
    esac
    [ "$worst" -eq 1 ] || [ "$worst" -ge "$1" ] || worst=$1
}

private=$(mktemp -d "${TMPDIR:-/tmp}/mailing-list-sync.XXXXXX") || {
    complain 'no private folder could be made for the rosters'
    exit 1
}
open= # the list whose planned run waits for its end
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

# A command that hangs is interrupted, and only killed when that does not help: a Mailman that is killed leaves its list
# locked for hours.
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

# A roster counts only when the command that prints it has come to a good end.
read_roster() { # FILE
    roster </dev/null >"$1" 2>"$private/said" || unavailable 'the command that lists its members' $?
}

tell() { # add or remove, FILE: nothing is called without an address to send
    [ -s "$2" ] || return 0
    push "$1" <"$2" && return
    tell_code=$?
    # One address may be what makes the command fail, and must not keep the others waiting.
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
tell_one_by_one() { # add or remove, FILE: fails where it is the list manager that fails, and not an address
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
        complain "$list: could not $1 $address: the command fails at this address"
    done <"$private/failing"
}

# --- the portal
{% block portal required %}{% endblock %}

# A portal that has gone away is waited for, two minutes.
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

# The token of an open run is kept in a file, so that the next start can end a run that was cut short.
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
    # A script that is still running ends its run itself.
    [ "$run_pid" = "$$" ] || ! kill -0 "$run_pid" 2>/dev/null || return 0
    case $token in
        '' | *[!0-9a-f]*) ;;
        *)
            abandon 2>"$private/complaint"
            case $? in
                0) complain "$list: a run of this script was cut short; what was left of it is done now" ;;
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

# The same run as `flask mailinglist sync` does in one process, with the same safety limits and by the same rules.
planned_run() { # LIST
    list=$1
    : >"$private/said_of_pushing"
    end_cut_short_run || return
    # Who is on the list now.
    read_roster "$private/before" || return
    # The portal plans, and holds the list until the run ends. No other run touches it meanwhile.
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
    # What was pushed and what was not is found out by the next run.
    give_back
    open=
    return "$run_code"
}

push_and_confirm() {
    # Who has to be added, and who has to be removed: the difference, and nobody else.
    planned_adds >"$private/adds" || return
    planned_removals >"$private/removals" || return
    # Leaving never waits behind an add that fails.
    tell remove "$private/removals" || return
    tell add "$private/adds" || return
    # The list passwords that are new. A failure is reported, and does not stop the rest.
    push_passwords || failed $?
    # Who is on the list afterwards: by that the portal judges what took, and ends the run.
    read_roster "$private/after" || return
    persist confirm "$private/after" >"$private/counts" || return
    forget_run
    undone=0
    for each in refused waiting no_effect; do
        count=$(number_of "$each" "$private/counts")
        undone=$((undone + ${count:-0}))
    done
    [ "$undone" -eq 0 ] || {
        complain "$list: the list manager did not carry out the changes of $undone addresses, which"
        complain "the portal's report of it names; its commands said:"
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
