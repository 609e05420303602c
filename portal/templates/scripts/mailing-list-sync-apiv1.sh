{% extends "scripts/base.sh" %}
{% block summary %}
For a host that has the list managers and curl (7.55 or newer), but not the portal.
{% endblock %}
{% block cron %}
PORTAL_KEY_FILE=/etc/portal-key /usr/local/bin/{{ name }}
{% endblock %}
{% block variables %}
PORTAL_KEY_FILE, a file that contains only the API key, and that only its owner can read; PORTAL_URL, the URL of the
# portal if it is not {{ base_url }}. If the script may write to the folder of the key, it keeps a file there for each
# open run. At its next start, it ends a run that was interrupted.
{% endblock %}
{% block settings %}
kept=${PORTAL_KEY_FILE:-}.run
url=${PORTAL_URL:-{{ base_url }}}
url=${url%/}
case $url in
    http://?* | https://?*) ;;
    *)
        complain "PORTAL_URL must begin with https:// or http://, and is: $url"
        exit 78
        ;;
esac
key=
[ -z "${PORTAL_KEY_FILE:-}" ] || IFS= read -r key 2>/dev/null <"$PORTAL_KEY_FILE"
case $key in
    '' | *[!0-9A-Za-z._-]*)
        complain "PORTAL_KEY_FILE must name a file that contains only an API key: ${PORTAL_KEY_FILE:-it is not set}"
        exit 78
        ;;
esac
{% endblock %}
{% block portal %}

# curl gets the key in a file, because all users of this host can read its command line.
printf 'Authorization: Bearer %s\n' "$key" >"$private/key"
key=

# The script never runs any part of an answer. It accepts only a complete answer of the portal, no redirect and no page
# of a proxy.
call() { # PATH CURL-OPTION...: put the answer into $private/answer
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

refused() { # PATH STATUS: report the reason, and return the portal's exit code for it
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
        *) answer="status $2, which is not an answer of the portal; check PORTAL_URL" ;;
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

is_gone() { # succeed if the portal could not be reached
    [ -n "$gone" ]
}
send() { # FILE QUERY: send the roster as the body
    call "$list/init?$2${skip_invalid:+&skip_invalid=1}&format=text" --header 'Content-Type: text/plain; charset=utf-8' --data-binary @"$1"
}
count_of() { # NAME
    sed -n "s/^$1: //p" "$private/answer"
}
understood() { # COUNT
    case $1 in
        '' | *[!0-9]*)
            complain "$list/init: status 200, but not an answer of the portal; check PORTAL_URL"
            return 69
            ;;
    esac
}

# An empty roster is allowed, because its command succeeded. If it should not be empty, the portal asks for approval.
plan() { # ROSTER
    send "$1" "plan=1&allow_empty=1${accept:+&accept=$accept}" || return
    adds=$(count_of adds)
    removals=$(count_of removals)
    token=$(sed -n 's/^token: \([0-9a-f]*\)$/\1/p' "$private/answer")
    understood "$adds" && understood "$removals"
}
planned() { # ADDRESSES COUNT: print them if they are as many as the plan has
    call "$1?planned=1" || return
    [ "$(($(wc -l <"$private/answer")))" = "$2" ] || {
        complain "$1: the portal returned another number of addresses than it had planned"
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
        # Its output may contain a password, so it is not shown.
        complain "$list: the command that sets list passwords ended with exit code $?"
        return 69
    }
    sed -n 's/^No such member: //p' "$private/said" >"$private/unknown"
    if [ -s "$private/unknown" ]; then
        complain "$list: could not set the list passwords of these addresses, which are not subscribed:"
        shown <"$private/unknown" >&2
        grep -v -F -f "$private/unknown" "$private/passwords" >"$private/set"
    else
        mv "$private/passwords" "$private/set"
    fi
    # The portal marks these passwords as set, and does not send them again.
    [ ! -s "$private/set" ] ||
        call "$list/passwords?format=text" --header 'Content-Type: text/plain; charset=utf-8' --data-binary @"$private/set"
}
{% endblock %}
{% block other %}
# Only the portal itself reaches {{ each.manager | printable }}. On its host run: flask mailinglist sync {{ each.handle }}
{% endblock %}
