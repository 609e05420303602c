{% extends "scripts/base.sh" %}
{% block summary %}
For a host that has both the portal and the list managers.
{% endblock %}
{% block cron %}
/usr/local/bin/{{ name }}
{% endblock %}
{% block variables %}
PORTAL_FLASK, another program to use instead of `flask`; and those that the portal itself reads. The script keeps a file
# in the instance folder for each open run. At its next start, it ends a run that was interrupted.
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
# An empty roster is allowed, because its command succeeded. If it should not be empty, the portal asks for approval.
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
is_gone() { # succeed if the portal or its database could not be reached
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
