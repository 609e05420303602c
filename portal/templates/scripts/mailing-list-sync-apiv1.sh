{% extends "scripts/base.sh" %}
{% block summary %}
For a host that has the list managers, curl (7.55 or newer) and nothing of the portal.
{% endblock %}
{% block cron %}
PORTAL_KEY_FILE=/etc/portal-key /usr/local/bin/{{ name }}
{% endblock %}
{% block variables %}
PORTAL_KEY_FILE, the file that holds the API key alone, readable by nobody else; PORTAL_URL, where the portal is if it
# is not at {{ base_url }}. Beside the key, if the folder can be written, a file for each list names the run that is
# open: at its next start the script ends a run that was cut short.
{% endblock %}
{% block settings %}
kept=${PORTAL_KEY_FILE:-}.run
url=${PORTAL_URL:-{{ base_url }}}
url=${url%/}
case $url in
    http://?* | https://?*) ;;
    *)
        complain "PORTAL_URL begins with https:// or http://, and does not: $url"
        exit 78
        ;;
esac
key=
[ -z "${PORTAL_KEY_FILE:-}" ] || IFS= read -r key 2>/dev/null <"$PORTAL_KEY_FILE"
case $key in
    '' | *[!0-9A-Za-z._-]*)
        complain "PORTAL_KEY_FILE must name a file that holds an API key alone, and does not: ${PORTAL_KEY_FILE:-it is not set}"
        exit 78
        ;;
esac
{% endblock %}
{% block portal %}

# The key goes to curl in a file: what stands on a command line can be read by everybody on this host.
printf 'Authorization: Bearer %s\n' "$key" >"$private/key"
key=

# Nothing that is answered is ever run. Only a whole answer of the portal counts: not that of a proxy, nor a redirect.
call() { # PATH CURL-OPTION...: the answer is in $private/answer
    path=$1
    gone=
    shift
    : >"$private/answer"
    status=$(curl -q --silent --show-error --globoff --proto '=http,https' --connect-timeout 30 --max-time "$seconds" \
        --max-filesize 67108864 --header @"$private/key" --header 'Accept: text/plain, application/problem+json' --header 'Expect:' \
        --output "$private/answer" --write-out '%{http_code} %{content_type}' "$@" "$url/api/v1/lists/$path") || {
        complain "${path%%\?*}: no answer from $url, curl ended with exit code $?"
        gone=1
        return 69
    }
    case $status in
        '200 text/plain'*) ;;
        *) refused "${path%%\?*}" "$status" ;;
    esac
}

refused() { # PATH STATUS: tell why, and return the portal's own exit code for it
    answer=$(dd bs=4000 count=1 <"$private/answer" 2>/dev/null | shown)
    fault=
    case $2 in 5*) gone=1 ;; esac
    case $2:$answer in
        ???\ application/problem+json*:*'"exit_code":'*)
            fault=${answer##*'"exit_code":'}
            fault=${fault%%[!0-9]*}
            answer=${answer##*'"detail":"'}
            answer=${answer%%'","'*}
            ;;
        *) answer="status $2, which is not what the portal would say: is PORTAL_URL right?" ;;
    esac
    complain "$1: $answer"
    case $fault:$2 in
        *:413*) return 65 ;;
        65:* | 69:* | 75:* | 77:* | 78:*) return "$fault" ;;
        [0-9]*) return 1 ;;
        :401* | :403*) return 77 ;;
        :429*) return 75 ;;
        *) return 69 ;;
    esac
}

is_gone() { # whether it was the portal that could not be reached
    [ -n "$gone" ]
}
send() { # FILE QUERY: the roster is the body
    call "$list/init?$2${skip_invalid:+&skip_invalid=1}&format=text" --header 'Content-Type: text/plain; charset=utf-8' --data-binary @"$1"
}
count_of() { # NAME
    sed -n "s/^$1: //p" "$private/answer"
}
understood() { # COUNT
    case $1 in
        '' | *[!0-9]*)
            complain "$list/init: status 200, but not what the portal would say: is PORTAL_URL right?"
            return 69
            ;;
    esac
}

# An empty roster is announced, since its command came to a good end; one that should not be empty is doubted all the same.
plan() { # ROSTER
    send "$1" "plan=1&allow_empty=1${accept:+&accept=$accept}" || return
    adds=$(count_of adds)
    removals=$(count_of removals)
    token=$(sed -n 's/^token: \([0-9a-f]*\)$/\1/p' "$private/answer")
    understood "$adds" && understood "$removals"
}
planned() { # ADDRESSES COUNT: what is not as many as the plan has is not the plan
    call "$1?planned=1" || return
    [ "$(($(wc -l <"$private/answer")))" = "$2" ] || {
        complain "$1: the portal answered with another number of addresses than it had planned"
        return 69
    }
    cat "$private/answer"
}
planned_adds() {
    planned "$list/subscribed" "$adds"
}
planned_removals() {
    planned "$list/unsubscribed" "$removals"
}
confirm() { # ROSTER
    send "$1" "confirm=1&allow_empty=1&token=$token" || return
    understood "$(count_of refused)" || return
    cat "$private/answer"
}
abandon() {
    call "$list/init?abandon=1&token=$token&format=text" --data-binary ''
}
send_passwords() {
    call "$list/passwords" || return
    [ -s "$private/answer" ] || return 0
    mv "$private/answer" "$private/passwords"
    set_passwords <"$private/passwords" >"$private/said" 2>&1 || {
        # What it said may name a password, so it is not shown.
        complain "$list: the command that sets list passwords ended with exit code $?"
        return 69
    }
    sed -n 's/^No such member: //p' "$private/said" >"$private/unknown"
    if [ -s "$private/unknown" ]; then
        complain "$list: no list password could be set for these, who are no members:"
        shown <"$private/unknown" >&2
        grep -v -F -f "$private/unknown" "$private/passwords" >"$private/set"
    else
        mv "$private/passwords" "$private/set"
    fi
    # The portal notes what it need not send again.
    [ ! -s "$private/set" ] ||
        call "$list/passwords?format=text" --header 'Content-Type: text/plain; charset=utf-8' --data-binary @"$private/set"
}
{% endblock %}
{% block other %}
# Only the portal itself reaches {{ each.manager | printable }}. On its host run: flask mailinglist sync {{ each.handle }}
{% endblock %}
