{% extends "scripts/base.sh" %}
{% block summary %}
For the host that the portal and the list managers share.
{% endblock %}
{% block cron %}
/usr/local/bin/{{ name }}
{% endblock %}
{% block variables %}
PORTAL_FLASK, another program for `flask`; and those that the portal itself reads. In the instance folder a file for
# each list names the run that is open: at its next start the script ends a run that was cut short.
{% endblock %}
{% block settings %}
FLASK_APP={{ flask_app }}
PORTAL_INSTANCE={{ instance }}
export FLASK_APP PORTAL_INSTANCE
cd {{ folder }} || exit 78
kept=$PORTAL_INSTANCE/mailing-list-sync.run
{% endblock %}
{% block portal %}

mailinglist() { # COMMAND ARGUMENT...
    if [ -n "${PORTAL_FLASK:-}" ]; then
        "$PORTAL_FLASK" mailinglist "$@"
    else
        {{ python }} -m flask mailinglist "$@"
    fi
}
# An empty roster is announced, since its command came to a good end; one that should not be empty is doubted all the same.
plan() { # ROSTER
    mailinglist list-init --plan --allow-empty ${skip_invalid:+--skip-invalid} ${accept:+--accept "$accept"} "$list" \
        <"$1" >"$private/plan" || return
    token=$(sed -n 's/^token: //p' "$private/plan")
}
planned_adds() {
    mailinglist get-subscribed --planned "$list"
}
planned_removals() {
    mailinglist get-unsubscribed --planned "$list"
}
confirm() { # ROSTER
    mailinglist list-init --confirm --token "$token" --allow-empty ${skip_invalid:+--skip-invalid} "$list" <"$1"
}
abandon() {
    mailinglist list-init --abandon --token "$token" "$list" >/dev/null
}
is_gone() { # whether it was the portal, or its database, that could not be reached
    ! mailinglist lists >/dev/null 2>&1
}
send_passwords() {
    mailinglist password-sync "$list"
}
{% endblock %}
{% block other %}
# Only the portal itself reaches {{ each.manager | printable }}.
mailinglist sync ${accept:+--accept "$accept"} {{ each.handle }} || failed $?
{% endblock %}
