"""Faults, each a single edit of a rule, guard, limit or adapter, with the nearest tests, one of which must fail."""

from typing import NamedTuple


class Fault(NamedTuple):
    """One edit: ``old``, which is in a file exactly once, becomes ``new``; ``tests`` are files or node ids."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _of(file: str, *names: str) -> str:
    """Return the node ids of tests in one file, for ``_in``."""
    return " ".join(f"{file}::test_{name}" for name in names)


def _in(file: str, tests: str, *edits: tuple[str, str, str]) -> tuple[Fault, ...]:
    """Return faults of one file that the same tests must notice, each given as name, ``old`` and ``new``."""
    return tuple(Fault(name, f"portal/{file}", old, new, tuple(tests.split())) for name, old, new in edits)


_DOMAIN = (
    *_in(
        "domain/address.py",
        "tests/domain/test_address.py",
        ("address: any length", "if len(text) > MAX_LENGTH", "if len(text) > 9 * MAX_LENGTH"),
        ("address: characters counted for bytes", "len(result.encode()) > MAX_LENGTH", "len(result) > MAX_LENGTH"),
        ("address: case matters", "return text.lower()", "return text"),
        ("address: lower case not composed", "unicodedata.normalize('NFC', local.lower())", "local.lower()"),
        ("address: unseen characters", " or any(map(_is_unseen, normal))", ""),
        (
            "address: sent with its domain as typed",
            "return text if domain.isascii()",
            "return text if domain",
        ),
        ("address: control characters printed", "if letter.isprintable() else", "if letter else"),
    ),
    *_in(
        "domain/csv_text.py",
        "tests/domain/test_csv_text.py",
        ("csv: cells not quoted", "csv.QUOTE_ALL", "csv.QUOTE_MINIMAL"),
        ("csv: look-alikes of a formula", r"\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b", ""),
        ("csv: formula behind a separator", r"""_SEPARATOR_BEFORE_FORMULA.sub(r"\1'", cell)""", "cell"),
    ),
    *_in(
        "domain/outlook.py",
        "tests/domain/test_outlook.py",
        ("outlook: a removal waits", "    if not known.subscribed:\n        kind", "    if not known:\n        kind"),
        ("outlook: never overdue", '"by" if now <= due else "overdue"', '"by"'),
        (
            "outlook: never seen is not off",
            "known.subscribed == (known.seen is True)",
            "known.subscribed == known.seen",
        ),
    ),
    *_in(
        "domain/roster_text.py",
        "tests/domain/test_roster_text.py",
        ("roster: last line cut off", "if self._ends_with_newline and not text", "if self._lines is None and not text"),
        ("roster: one unreadable line", "if self.invalid and not", "if self.invalid > 1 and not"),
        ("roster: another address in a name", r"|[^@>]*)\s*<", r"|[^>]*)\s*<"),
        ("roster: another address behind", r"\([^@]*\)", r"\(.*\)"),
    ),
    *_in(
        "domain/search_text.py",
        "tests/services/accounts/test_directory.py",
        ("search: accents matter", " if not unicodedata.combining(letter)", ""),
        ("search: case of ß matters", "plain.casefold()", "plain.lower()"),
    ),
    *_in(
        "domain/usernames.py",
        "tests/domain/test_usernames.py tests/services/accounts/test_names.py",
        ("username: somebody else's address", "_canonical(username) not in own", "_canonical(username) is None"),
        (
            "username: full-width letters",
            'normalize("NFKC", own_part) != own_part',
            'normalize("NFC", own_part) != own_part',
        ),
        ("username: mixed scripts", "return len(scripts) <= 1 or", "return bool(text) or"),
        ("username: case matters", 'unicodedata.normalize("NFC", username).lower()', "username"),
        ("username: control characters", "or not username.isprintable()", ""),
    ),
    *_in(
        "domain/user_agent.py",
        "tests/domain/test_user_agent.py",
        ("agent: Edge is Chrome", '    ("Edge", ("Edg/", "EdgA/", "EdgiOS/", "Edge/")),\n', ""),
        ("agent: iOS is macOS", '    ("iOS", ("iPhone", "iPad", "iPod")),\n', ""),
    ),
    *_in(
        "domain/merge.py",
        "tests/domain/test_merge.py",
        ("merge: our late add is a join", "state.touched or state.waiting", "state.touched"),
        ("merge: a refused removal is dealt with", "awaits_removal = action is", "awaits_removal = action is not"),
    ),
    *_in(
        "domain/safety.py",
        "tests/domain/test_safety.py",
        ("safety: leaves are no removals", "count(Action.REMOVE, Action.LEFT)", "count(Action.REMOVE)"),
    ),
    *_in(
        "domain/moves.py",
        "tests/domain/test_moves.py tests/domain/test_move_space.py",
        (
            "moves: from X to Y to Z",
            "            if _has_left_for(preference, each.account, each.old):\n",
            "            if each.old == each.new:\n",
        ),
        ("moves: two together and the yes wins", "brought is None or brought.subscribed or", "brought is None or"),
        (
            "moves: a leaver leaves with the others",
            "elif preference is not None and not holders:",
            "elif preference is not None:",
        ),
    ),
    *_in(
        "domain/plan.py",
        "tests/domain/test_plan.py",
        (
            "plan: refused removals sent again",
            "if action in {Action.ADD, Action.REMOVE} and row.is_recent_refusal",
            "if action is Action.ADD and row.is_recent_refusal",
        ),
    ),
)

_GUARDS = (
    *_in(
        "web/guards.py",
        _of("tests/web/test_sign_in.py", "what_another_site_posts_without_the_cookie_is_answered_with_none"),
        ("guard: another site ends a log-in", '_out" and _is_from_here()', '_out"'),
        ("guard: another site ends one over plain HTTP", "return origin is None or", "return origin is not None or"),
    ),
    *_in(
        "web/guards.py",
        "tests/test_routes.py",
        (
            "guard: members reach the export of a list",
            '"sign_in.log_out", "sub',
            '"admin.one_list.export", "sign_in.log_out", "sub',
        ),
        ("guard: members are superusers", "else {Role.MEMBER}", "else set(Role)"),
        ("guard: a page is public", '        "health.ready",', '        "health.ready", "subscriptions.leave",'),
        (
            "guard: what is not named is open",
            "if any(names & REACH[role]",
            "if '.' not in request.endpoint or any(names & REACH[role]",
        ),
        (
            "guard: an unnamed call leads to a log-in",
            "    if _is_api():\n        raise",
            "    if not request.path:\n        raise",
        ),
        (
            "guard: HEAD needs no key",
            "if KEYS in request.blueprints:",
            'if KEYS in request.blueprints and request.method != "HEAD":',
        ),
    ),
    *_in(
        "web/guards.py",
        _of(
            "tests/web/test_security.py",
            "what_browsers_may_take_for_another_host_is_not_local",
            "whatever_is_local_is_a_path",
        ),
        ("guard: another host behind //", '        and not target.startswith("//")\n', ""),
        ("guard: another host behind a backslash", '        and "\\\\" not in target\n', ""),
        (
            "guard: another host behind a tab",
            "        and all(letter.isprintable() and not letter.isspace() for letter in target)\n",
            "",
        ),
    ),
    *_in(
        "web/guards.py",
        _of(
            "tests/web/test_sign_in.py",
            "a_post_after_the_log_in_has_ended_does_nothing_and_leads_to_no_page_that_takes_only_a_post",
        ),
        ("guard: a POST is asked for again after the log-in", 'adapter.test(path, "GET")', "adapter.test(path)"),
    ),
    *_in(
        "web/guards.py",
        "tests/web/api/test_calls.py::test_a_key_in_the_url_or_in_a_cookie_is_no_key",
        ("guard: a key in the URL", "    if not key:", '    key = key or request.args.get("key", "")\n    if not key:'),
    ),
    *_in(
        "web/recent_password.py",
        "tests/web/test_recent_password.py",
        ("guard: no recent password", 'if request.method == "POST" else None', 'if request.method == "PUT" else None'),
        ("guard: the password is sent back", 'own = {form.own_password.name, "csrf', 'own = {"csrf'),
    ),
    *_in(
        "web/admin/users.py",
        "tests/web/test_recent_password.py",
        ("guard: a new account without a password", "@recent_password.needed\ndef new(", "def new("),
        ("guard: a role without a password", "@recent_password.needed\ndef change(", "def change("),
        ("guard: a reset without a password", "@recent_password.needed\ndef reset_password(", "def reset_password("),
        ("guard: a deletion without a password", "@recent_password.needed\ndef delete(", "def delete("),
    ),
    *_in(
        "web/admin/imports.py",
        "tests/web/test_recent_password.py",
        ("guard: an import without a password", "@recent_password.needed\ndef apply(", "def apply("),
    ),
    *_in(
        "web/admin/imports.py",
        "tests/web/admin/test_imports.py",
        ("imports: a plan that was not shown", 'shown.read(f"import {import_id}", form.shown.data)', "pass"),
    ),
    *_in(
        "web/admin/people.py",
        "tests/web/admin/test_people.py",
        ("guard: many people without a password", "@recent_password.needed\ndef change(", "def change("),
    ),
    *_in(
        "services/accounts/bulk.py",
        "tests/services/accounts/test_bulk.py",
        ("bulk: another preview", "if _id(asked, found) != preview_id:", "if False:"),
        ("bulk: superusers too", "        (User.is_superuser, literal(Eligibility.HAS_ROLE.value)),\n", ""),
        ("bulk: log-ins go on", "        sessions.end_of_all(session, ids)\n", "        pass\n"),
    ),
    *_in(
        "web/admin/api_keys.py",
        "tests/web/test_recent_password.py",
        ("guard: a key without a password", "@recent_password.needed\ndef create(", "def create("),
        ("guard: a revocation without a password", "@recent_password.needed\ndef revoke(", "def revoke("),
    ),
    *_in(
        "web/headers.py",
        _of(
            "tests/web/test_security.py",
            "the_headers_are_on_every_answer",
            "the_stylesheet_may_be_kept_and_is_protected_too",
        ),
        ("guard: framed by others", "frame-ancestors 'none'", "frame-ancestors *"),
        ("guard: pages are kept", 'request.endpoint != "static" or', 'request.endpoint == "static" and'),
    ),
    *_in(
        "web/cookies_and_proxies.py",
        _of(
            "tests/web/test_security.py",
            "cookies_are_bound_to_the_host_behind_https",
            "cookies_are_httponly_and_lax_without_https_too",
            "behind_https_no_other_host_is_answered",
            "a_form_is_good_for_as_long_as_the_log_in",
            "a_form_that_does_not_say_how_long_it_is_is_not_read",
            "a_body_over_the_limit_is_a_413",
            "an_origin_is_believed_from_as_many_proxies_as_are_trusted",
        ),
        ("guard: a cookie for scripts", "SESSION_COOKIE_HTTPONLY=True", "SESSION_COOKIE_HTTPONLY=False"),
        ("guard: a cookie for other sites", 'SESSION_COOKIE_SAMESITE="Lax"', 'SESSION_COOKIE_SAMESITE="None"'),
        ("guard: a cookie of any host", "{'__Host-' if settings.is_https else ''}portal", "portal"),
        ("guard: a cookie without HTTPS", "SESSION_COOKIE_SECURE=settings.is_https", "SESSION_COOKIE_SECURE=False"),
        ("guard: one proxy too many is believed", "x_for=count,", "x_for=count + 1,"),
        ("guard: a proxy names the host", "x_host=0", "x_host=count"),
        ("guard: a form of no length is read in part", "    app.before_request(_require_length)\n", ""),
        ("guard: any host is answered", 'app.config["TRUSTED_HOSTS"]', 'app.config["HOSTS"]'),
        ("guard: bodies of any size", "MAX_CONTENT_LENGTH=settings.max_body", "MAX_CONTENT_LENGTH=None"),
        ("form: a token ends before the log-in", "WTF_CSRF_TIME_LIMIT=None", "WTF_CSRF_TIME_LIMIT=3600"),
    ),
)

_FORMS = (
    *_in(
        "web/sign_in.py",
        _of("tests/web/test_security.py", "a_log_in_never_leads_elsewhere") + " tests/web/test_sign_in.py",
        (
            "form: a log-in leads anywhere",
            "is_ours = guards.is_local(asked",
            "is_ours = asked or guards.is_local(asked",
        ),
        ("session: the cookie keeps what it held", "    unsaved.carry_over()\n", ""),
        ("session: logging out keeps the row", "    sessions.log_out(db.session(), token)\n", ""),
        ("session: superusers stay for 30 days", "remember and not found.is_superuser", "remember"),
    ),
    *_in(
        "web/shown.py",
        "tests/web/test_subscriptions.py",
        ("form: somebody else's page", "if found != (g.member.id if owner is None else owner)", "if not found"),
        ("form: an altered page", '_signer(page).loads(signed or "")', '_signer(page).loads_unsafe(signed or "")[1]'),
    ),
    *_in(
        "web/__init__.py",
        _of("tests/web/test_security.py", "no_post_of_any_route_does_anything_without_its_token"),
        ("form: no token", "    guards.csrf.init_app(app)", "    # guards.csrf.init_app(app)"),
    ),
    *_in(
        "web/forms.py",
        _of(
            "tests/web/test_security.py",
            "json_in_the_place_of_a_form_is_never_a_500",
            "a_file_in_the_place_of_a_text_is_never_a_500",
            "a_hostile_word_in_any_field_is_never_a_500",
        )
        + " tests/web/test_sign_in.py::test_a_name_that_cannot_be_typed_is_refused_and_not_repeated",
        (
            "form: files and JSON are fields",
            "else request.form or None",
            "else request.form or request.get_json(silent=True)",
        ),
        (
            "form: control characters",
            'if not (field.data or "").isprintable()',
            'if not isinstance(field.data or "", str)',
        ),
    ),
    *_in(
        "services/preferences/preferences.py",
        "tests/services/preferences/test_preferences.py",
        ("form: boxes that did not change are choices", "self.is_ticked != bool(self.sent_to) or self.is_move", "True"),
        (
            "form: somebody else's address",
            "if not holder.addresses.keys() >= {each.address_id for each in changes.values()} - {None}",
            "if not changes",
        ),
        ("form: lists of other audiences", " is not None and holder.is_offered(each)]", " is not None]"),
    ),
    *_in(
        "services/preferences/preferences.py",
        "tests/web/test_kinds_of_lists.py",
        ("kinds: a list that is not listed is offered", "return mailing_list.is_listed or any(", "return True or any("),
        ("kinds: a locked list is left", "return not (self.is_ticked or mailing_list.can_leave)", "return False"),
    ),
    *_in(
        "domain/new_members.py",
        "tests/domain/test_new_members.py",
        ("kinds: new members who are on the roster", "address in known or address in roster", "address in known"),
        ("kinds: new members whom history knows", "address in known or address in roster", "address in roster"),
    ),
    *_in(
        "services/sync/new_members.py",
        "tests/services/sync/test_new_members.py",
        ("kinds: everybody is new", "User.created_at > first, ", ""),
        (
            "kinds: addresses that were given up",
            "            found[user_id] |= _compared(spelling)\n",
            "            pass\n",
        ),
        ("kinds: further addresses on the list", "may_see(mailing_list), not_(stored))", "may_see(mailing_list))"),
    ),
    *_in(
        "services/sync/run_steps.py",
        "tests/services/sync/test_new_members.py",
        (
            "kinds: new members who chose meanwhile",
            "each.row.address_id for each in new} - made",
            "0 for each in new} - {0}",
        ),
    ),
    *_in(
        "services/sync/runs.py",
        "tests/services/preferences/test_at_once.py",
        (
            "kinds: a paused list is run at once",
            "each.is_applied_at_once and not each.is_paused",
            "each.is_applied_at_once",
        ),
        (
            "kinds: a run that is forgotten is not renewed",
            "_requested_again(now), where=_is_forgotten(now)",
            "{}, where=_is_forgotten(now)",
        ),
    ),
    *_in(
        "domain/promptness.py",
        "tests/domain/test_promptness.py",
        ("kinds: half of the runs are enough", "late * 10 <= len(waits)", "late * 2 <= len(waits)"),
    ),
    *_in(
        "domain/several_addresses.py",
        "tests/domain/test_several_addresses.py",
        ("form: a shared mailbox goes with the others", "if not (each.is_shared and subscribed) or", "if each or"),
        ("addresses: a shared mailbox is ended by a tick", " or not each.is_shared)\n", " or each.address_id)\n"),
        ("addresses: what was found is a choice", "if preference is None or own.is_found:", "if preference is None:"),
    ),
    *_in(
        "web/api/bodies.py",
        _of(
            "tests/web/api/test_calls.py",
            "a_line_end_that_a_block_cuts_ends_a_line_that_is_too_long",
            "another_type_is_a_415",
            "a_body_that_cannot_be_read_is_a_422_that_names_the_lines_and_changes_nothing",
            "a_body_without_an_address_is_a_422_and_changes_nothing",
            "a_form_without_the_field_is_no_empty_roster",
            "a_body_over_the_limit_is_a_413_of_which_nothing_is_read",
            "a_body_that_does_not_say_how_long_it_is_ends_at_the_limit",
        ),
        ("form: a line end cut by a block", "rest[:_LONGEST] + rest[-2:]", "rest[:_LONGEST]"),
        ("form: a roster without the field", "    if not has_field:", "    if has_field is None:"),
        (
            "roster: the end of a body is not looked at",
            "RosterText(stream, ends_with_newline=True,",
            "RosterText(stream,",
        ),
        (
            "limit: rosters of any size",
            "request.max_content_length = portal().settings.max_roster",
            "request.max_content_length = 2**40",
        ),
    ),
    *_in(
        "web/api/parameters.py",
        "tests/web/api/test_calls.py::test_a_query_that_is_not_understood_is_a_400_and_no_list_init",
        ("form: a misspelt parameter", "        if name not in names:", "        if not names:"),
        ("form: a parameter twice", "        if len(values) > 1:", "        if not values:"),
    ),
)

_ACCOUNTS = (
    *_in(
        "services/accounts/rate_limits.py",
        "tests/services/accounts/test_rate_limits.py",
        (
            "limit: an account has no hourly one",
            '"account and ip": (Limit(5, 60), Limit(20, 3600))',
            '"account and ip": (Limit(5, 60),)',
        ),
        ("limit: a place may try ten times as often", '"ip": (Limit(60, 3600),)', '"ip": (Limit(600, 3600),)'),
        ("limit: future rows count", ", Attempt.at <= now + _AHEAD)", ")"),
        ("limit: future rows stay", ", Attempt.at > now + _AHEAD)", ")"),
        (
            "limit: two are let through on one count",
            "        _take_turn(session)\n        _refuse(session, keys, now)\n",
            "        _take_turn(session)\n",
        ),
        ("limit: good log-ins count against the place", "Attempt.id.in_(counted.rows) | ", ""),
        ("limit: each address of IPv6 is a place", "(int(address), 64)", "(int(address), 128)"),
        ("limit: each port is a place", "ip_address(_without_port(ip))", "ip_address(ip)"),
        ("limit: IPv4 in IPv6 is another place", "if address.ipv4_mapped is not None", "if address.is_global is None"),
        ("limit: no line about refusals", "        _log_refusal(session, keys[-1], now)\n", ""),
        (
            "limit: a line for each refusal",
            "    except RateLimitedError:\n        return\n",
            "    except RateLimitedError:\n        pass\n",
        ),
    ),
    *_in(
        "services/accounts/sessions.py",
        "tests/services/accounts/test_sessions.py",
        ("session: a clock that was ahead confirms for long", "abs(now - confirmed_at)", "now - confirmed_at"),
        ("session: never idle", "return not is_remembered and abs(now - login.seen_at) >= IDLE", "return False"),
        ("session: no longest life", ">= (REMEMBERED if is_remembered else ABSOLUTE)", ">= REMEMBERED"),
        (
            "session: remembered for ever",
            "abs(now - login.created_at) >= (REMEMBERED if is_remembered else ABSOLUTE)",
            "not is_remembered and abs(now - login.created_at) >= ABSOLUTE",
        ),
        ("session: superusers are remembered", "= login.remembered and not is_superuser", "= login.remembered"),
        ("session: a clock years ahead opens one for years", "abs(now - login.created_at)", "now - login.created_at"),
        ("session: a clock years ahead has seen it", "abs(now - login.seen_at) >= IDLE", "now - login.seen_at >= IDLE"),
        ("session: superusers may ask to be remembered", "remember and not account.is_superuser", "remember"),
        (
            "session: the token is stored",
            'hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()',
            "token[:64]",
        ),
        (
            "session: ending the others ends all",
            "LoginSession.token_hash != hashed(keep_token)",
            "LoginSession.id > 0",
        ),
        (
            "session: anybody's is ended",
            "LoginSession.id == log_in_id, LoginSession.user_id == user_id",
            "LoginSession.id == log_in_id",
        ),
        ("session: inactive users stay", 'bindparam("token_hash"), User.is_active)', 'bindparam("token_hash"))'),
        ("session: use is not written down", "if abs(now - login.seen_at) >= _SEEN_EVERY", "if now < login.seen_at"),
        (
            "session: a new password keeps the token",
            "values(token_hash=hashed(renewed), confirmed_at=now, by_link_at=None)",
            "values(token_hash=hashed(token), confirmed_at=now, by_link_at=None)",
        ),
        (
            "session: a password changed meanwhile",
            "User.is_active, User.password_hash == account.password_hash)",
            "User.is_active)",
        ),
        ("session: the first holder of a shared mailbox", "if len(rows) == 1 else None", "if rows else None"),
    ),
    *_in(
        "services/accounts/sessions.py",
        "tests/services/accounts/test_sessions.py tests/services/accounts/test_names.py",
        ("limit: a log-in frees its place", "cleared=[account_and_ip])", "cleared=[account_and_ip, by_ip])"),
        ("limit: each name of an account has its own", "account.id if account else _compared(name)", "_compared(name)"),
    ),
    *_in(
        "services/accounts/sessions.py",
        "tests/web/test_recent_password.py",
        (
            "session: a password is recent for hours",
            "CONFIRMED = timedelta(minutes=15)",
            "CONFIRMED = timedelta(hours=15)",
        ),
    ),
    *_in(
        "services/accounts/password_changes.py",
        "tests/services/mail/test_links.py",
        (
            "session: a password chosen after a link leaves the others open",
            "        session.flush()\n        sessions.end(session, user_id, keep_token=token)\n",
            "        session.flush()\n",
        ),
    ),
    *_in(
        "web/language.py",
        "tests/web/test_language.py",
        ("languages: what a browser does not want", "request.accept_languages if quality", "request.accept_languages"),
        ("languages: the account's choice is not used", "        translation.use(chosen)", "        return"),
        ("languages: one outlives its request", "translation.use(translation.ENGLISH))", "None)"),
    ),
    *_in(
        "services/mail/drafts.py",
        "tests/web/test_language.py",
        (
            "languages: the page's before the receiver's",
            'wishes = (chosen, claimed.details.get("language"))',
            'wishes = (claimed.details.get("language"), chosen)',
        ),
    ),
    *_in(
        "services/mail/letters.py",
        "tests/web/test_language.py",
        ("languages: the first one's letter for all", "if language == first:", "if language:"),
    ),
    *_in(
        "web/own_addresses.py",
        _of("tests/web/admin/test_users.py", "another_address_of_ones_own_gives_the_own_log_in_another_token"),
        (
            "session: an own address keeps the token",
            "user_id) if user_id == guards.member().id else",
            "user_id) if not user_id else",
        ),
    ),
    *_in(
        "services/mail/own_addresses.py",
        _of("tests/web/test_links.py", "superusers_who_change_their_own_address_on_the_page_of_a_person_can_undo_it"),
        ("mail: an own address changes without a word", "        if sends_mail:\n", "        if not sends_mail:\n"),
    ),
    *_in(
        "services/transaction.py",
        _of("tests/web/test_security.py", "what_a_database_that_can_only_be_read_holds_is_shown"),
        (
            "session: no page where nothing can be written",
            "with suppress(DBAPIError), transaction(",
            "with transaction(",
        ),
    ),
    *_in(
        "services/accounts/moves.py",
        "tests/services/accounts/test_several_addresses.py",
        ("addresses: lists seen later are sent to both", "later[each.account, number].append(handle)", "pass"),
        ("addresses: ended at each return", "if later[each] or gift.handles is not None]", "if later[each]]"),
        ("addresses: lists of others are ended", "if not each.may_see(handle, lists):", "if not each:"),
    ),
    *_in(
        "services/accounts/password_changes.py",
        "tests/services/accounts/test_users.py",
        (
            "session: a new password leaves the others open",
            "cleared=typed.counted.keys)\n        sessions.end(session, user_id, keep_token=token)\n",
            "cleared=typed.counted.keys)\n",
        ),
        (
            "session: a password set by another leaves all open",
            "        session.flush()\n        sessions.end(session, user.id)\n",
            "        session.flush()\n",
        ),
        (
            "limit: the current password may be guessed",
            'counted = rate_limits.count(session, [rate_limits.key("current password", str(user_id))], now=now)',
            "counted = rate_limits.Counted((), ())",
        ),
    ),
    *_in(
        "services/accounts/passwords.py",
        "tests/services/accounts/test_passwords.py",
        ("password: short", "LEAST = 12", "LEAST = 8"),
        ("password: well known", "    if _is_well_known(lowered):", "    if lowered in own:"),
        ("password: the own name", "return word in lowered and", "return word == lowered and"),
        ("password: hashed as typed", "_shortened(_nfc(password)), bcrypt", "_shortened(password), bcrypt"),
        ("password: cut at a NUL", 'or b"\\0" in text:', "or text is None:"),
        (
            "password: cheap hashes take less time",
            "            _top_up(each.cost, cost)\n",
            "            _top_up(cost, cost)\n",
        ),
        ("password: dated hashes stay", "needs_rehash = is_dated and", "needs_rehash = not compared and"),
        (
            "password: no comparison for nobody",
            '        bcrypt.checkpw(_shortened(form), _NOBODYS.format(cost).encode("ascii"))\n',
            "",
        ),
    ),
    *_in(
        "services/accounts/api_keys.py",
        "tests/services/accounts/test_api_keys.py",
        ("key: revoked", "if found.revoked_at is not None", "if found.revoked_at == now"),
        ("key: expired", "now >= found.expires_at", "now == found.expires_at"),
        ("key: of a former superuser", "if not (found.is_superuser and found.is_active)", "if not found.is_active"),
        (
            "key: of an inactive superuser",
            "if not (found.is_superuser and found.is_active)",
            "if not found.is_superuser",
        ),
        ("key: made for a member", "if not (owner.is_superuser and owner.is_active)", "if not owner.is_active"),
        ("key: all end with one role", "ApiKey.user_id == user_id, ApiKey.revoked_at", "ApiKey.revoked_at"),
        ("key: the prefix is enough", "return found if is_same else None", "return found"),
        (
            "limit: keys may be guessed",
            '        rate_limits.count(session, [rate_limits.by_ip(ip, kind="api key")], now=now)\n',
            "        pass\n",
        ),
    ),
)

_SYNC = (
    *_in(
        "services/sync/leases.py",
        "tests/services/sync/test_leases.py",
        ("lease: a clock that was ahead", "now < row.expires_at <= _latest(now) and", "now < row.expires_at and"),
        ("lease: an expired one holds", "if now < row.expires_at <=", "if row.expires_at <="),
        ("lease: of a process that is gone", "_latest(now) and not is_gone(row):", "_latest(now):"),
        ("lease: a process of another boot is gone", " or row.pid_space != pid_space()", ""),
        ("lease: no boot is known", " or not row.pid_space or", " or"),
        ("lease: somebody else's process is gone", "        pass  # it runs", "        return True  # it runs"),
        (
            "lease: a lost one is renewed",
            ".where(Lease.list_handle == lease.handle, Lease.token == lease.token)\n            .values",
            ".where(Lease.list_handle == lease.handle)\n            .values",
        ),
        (
            "lease: a lost one is given back",
            "delete(Lease).where(Lease.list_handle == lease.handle, Lease.token == lease.token)",
            "delete(Lease).where(Lease.list_handle == lease.handle)",
        ),
        (
            "lease: kept where a run fails",
            "    try:\n        yield lease\n    finally:\n        release(session, lease)",
            "    yield lease\n    release(session, lease)",
        ),
        ("lease: longer than any call", "min(max(seconds, LEAST), MOST)", "max(seconds, LEAST)"),
        ("lease: any run is a planned one", "Lease.pid.is_(None), ", ""),
        ("lease: an expired planned run", "Lease.pid.is_(None), is_open(now))", "Lease.pid.is_(None))"),
    ),
    *_in(
        "services/sync/runs.py",
        "tests/services/sync/test_runs.py",
        ("run: taken twice", ".where(Run.id == asked.id, Run.state == RunState.ASKED)", ".where(Run.id == asked.id)"),
        (
            "run: two wait for the same",
            "        if session.scalar(select(Run.id).where(Run.slot == slot)):\n            return False\n",
            "",
        ),
        (
            "run: put back though it began",
            "Run.state == RunState.TAKEN)\n            .values(state=RunState.ASKED",
            "Run.id > 0)\n            .values(state=RunState.ASKED",
        ),
        (
            "run: dropped though it began",
            "Run.state == RunState.TAKEN)\n            .values(state=RunState.DROPPED",
            "Run.id > 0)\n            .values(state=RunState.DROPPED",
        ),
        ("run: old ones are begun", " and each.asked_at >= now - KEPT", ""),
        ("run: believed for ever", "(_is_gone(each) or abs(now - each.started_at) > LONGEST)", "_is_gone(each)"),
        (
            "run: forgotten while it is taken",
            "delete(Run).where(is_old, Run.state != RunState.TAKEN)",
            "delete(Run).where(is_old)",
        ),
        (
            "run: dropped though it holds the list",
            "            still.append(not_(held))\n",
            "            still.append(Run.id > 0)\n",
        ),
        (
            "run: all refused plans are kept",
            "    session.execute(delete(RunLine).where(RunLine.run_id.in_(earlier), waited))\n",
            "",
        ),
        ("run: an earlier process of this number", "return is_own or leases", "return leases"),
        (
            "run: what was never begun stays",
            "            session.execute(delete(Run).where(is_old",
            "            session.execute(select(Run).where(is_old",
        ),
    ),
    *_in(
        "services/sync/runs.py",
        "tests/services/sync/test_settlement.py tests/services/sync/test_sync.py",
        (
            "run: a lost one ends as if it were not",
            "Run.state.in_(IN_PROGRESS))\n            .values(state=state",
            "Run.id > 0)\n            .values(state=state",
        ),
        ("run: each is accepted", "accepted=is_accepted", "accepted=True"),
        ("run: none is accepted", "accepted=is_accepted", "accepted=False"),
        (
            "run: choices made meanwhile are explained",
            "RunLine.address_id.not_in(sorted(except_for))",
            "RunLine.run_id > 0",
        ),
        (
            "run: those of other lists are ended",
            "Run.list_handle == handle, Run.state.in_(IN_PROGRESS))\n                .values",
            "Run.state.in_(IN_PROGRESS))\n                .values",
        ),
    ),
    *_in(
        "services/sync/plans.py",
        "tests/services/sync/test_settlement.py tests/services/sync/test_sync.py",
        (
            "run: lines of killed runs need no approval",
            "not_(RunLine.settled), Run.accepted)",
            "not_(RunLine.settled))",
        ),
        ("run: accepted once is accepted for ever", "not_(RunLine.settled), Run.accepted)", "Run.accepted)"),
        (
            "sync: a refused address waits for days",
            "RETRY_AFTER = timedelta(days=1)",
            "RETRY_AFTER = timedelta(days=9)",
        ),
        ("sync: a clock years ahead holds a refusal", "abs(now - found.refused_at)", "now - found.refused_at"),
        ("sync: a clock years ahead holds an add", "abs(now - found.waiting_since)", "now - found.waiting_since"),
    ),
    *_in(
        "services/accounts/users.py",
        "tests/services/accounts/test_api_keys.py",
        ("key: works again with the role", "ended = api_keys.end(session, user_id, now=now)", "ended = []"),
    ),
    *_in(
        "services/sync/plans.py",
        "tests/services/sync/test_safety.py",
        (
            "safety: a clock years ahead counts for years",
            ", now + COUNTED_TOGETHER)",
            ", now + 999 * COUNTED_TOGETHER * 9)",
        ),
    ),
    *_in(
        "services/reports/lists.py",
        "tests/services/reports/test_lists.py",
        ("report: a clock years ahead hides what is late", "abs(now - good_at) > promise", "now - good_at > promise"),
    ),
    *_in(
        "services/sync/readings.py",
        "tests/services/sync/test_readings.py",
        (
            "readings: who has no account is kept for months",
            "UnknownSubscriber.read_at <= now - KEPT",
            "UnknownSubscriber.read_at <= now - 90 * KEPT",
        ),
        (
            "readings: a list that cannot be read is asked each minute",
            "due_at=clock() + _TAKES, message=str(error)",
            "due_at=clock(), message=str(error)",
        ),
        ("readings: all are asked about for one", "if not wanted.of_all:", "if False:"),
    ),
    *_in(
        "services/sync/expected_plans.py",
        "tests/services/sync/test_expected_plans.py",
        (
            "approval: another plan than was shown",
            "is_as_shown = next_run(session, mailing_list, {}, now=now).plan_id == plan_id",
            "is_as_shown = True",
        ),
        ("approval: a superuser's choice is their own", "        by_holder=False,\n", ""),
    ),
    *_in(
        "services/sync/requested.py",
        "tests/services/sync/test_runs.py",
        ("run: asked for by a former superuser", "User.is_superuser, User.is_active)", "User.is_active)"),
        ("run: asked for by a deactivated superuser", "User.is_superuser, User.is_active)", "User.is_superuser)"),
        (
            "run: one that found the list held is dropped",
            "isinstance(error, LeaseHeldError) and",
            "isinstance(error, LookupError) and",
        ),
    ),
    *_in(
        "services/sync/abandonment.py",
        "tests/services/sync/test_sync.py tests/services/sync/test_settlement.py",
        (
            "planned: taken back over a choice",
            "            Preference.version == RunLine.version + 1,",
            "            Preference.version > 0,",
        ),
        ("planned: not taken back by the next run", "    if planned is not None:", "    if planned is None:"),
    ),
    *_in(
        "services/sync/planned_runs.py",
        "tests/services/sync/test_sync.py tests/web/api/test_calls.py::test_a_planned_run_that_is_given_up_lets_the_list_go",
        (
            "planned: given up and the list is held",
            "    leases.release(session, lease)\n    return run.run_id",
            "    return run.run_id",
        ),
        (
            "planned: given up and not taken back",
            "    take_back(session, run, now=clock())\n    message",
            "    message",
        ),
    ),
    *_in(
        "services/sync/run_steps.py",
        "tests/services/sync/test_sync.py",
        ("sync: emptied by the push", "if plan.staying and not roster", "if plan.staying < 0 and not roster"),
    ),
    *_in(
        "services/sync/sync.py",
        "tests/services/sync/test_sync.py tests/services/sync/test_leases.py",
        ("sync: the old address goes first", "if each.after in taken", "if each.after not in taken"),
        (
            "lease: lost after the last call",
            "            leases.renew(session, lease)  # do not overwrite",
            "            # do not overwrite",
        ),
    ),
    *_in(
        "services/sync/list_init.py",
        "tests/services/sync/test_list_init.py",
        (
            "list-init: rule 1, what exists",
            "bare = except_(managed_ids(mailing_list), chosen)",
            "bare = except_(managed_ids(mailing_list), chosen.where(Preference.subscribed))",
        ),
        ("list-init: rule 3, seen", "Preference.subscribed == _ON_ROSTER,", "Preference.subscribed != _ON_ROSTER,"),
        (
            "list-init: rule 6, empty input",
            "    require_announced(text, allow_empty=allow_empty)\n    expected",
            "    expected",
        ),
        ("list-init: rule 6, announced and not empty", "if allow_empty and not text.invalid", "if allow_empty"),
        ("list-init: an emptied list", "    if expected:", "    if expected < 0:"),
        (
            "lease: lost while the input was read",
            "        leases.renew(session, lease)  # reading the input",
            "        # reading the input",
        ),
    ),
    *_in(
        "web/api/calls.py",
        _of(
            "tests/web/api/test_calls.py",
            "a_body_that_cannot_be_read_is_a_422_that_names_the_lines_and_changes_nothing",
        ),
        ("list-init: rule 5 over the API", 'skip_invalid=query.is_set("skip_invalid")', "skip_invalid=True"),
    ),
    *_in(
        "services/preference_rows.py",
        "tests/services/test_preference_rows.py tests/services/preferences/test_preferences.py tests/services/sync/test_list_init.py",
        (
            "preference: a second holder's same choice",
            "        where=Preference.subscribed != statement.excluded.subscribed,\n",
            "",
        ),
        (
            "preference: a first one over another",
            "database.insert(session, _TABLE).on_conflict_do_nothing()",
            "database.insert(session, _TABLE)",
        ),
        ("preference: a first one of nobody", "        if each.address_id in there\n", ""),
        (
            "preference: a choice keeps the refusal",
            '            **_ENDED,\n            "moved_from"',
            '            "moved_from"',
        ),
        (
            "preference: a choice keeps the version",
            '            "version": Preference.version + 1,\n        },\n        where',
            '            "version": Preference.version,\n        },\n        where',
        ),
        (
            "preference: list-init over a choice",
            "from_select(list(columns), first_preferences).on_conflict_do_nothing()",
            "from_select(list(columns), first_preferences)",
        ),
    ),
    *_in(
        "services/preference_rows.py",
        "tests/services/test_preference_rows.py",
        ("preference: purged while it is on the roster", "            Preference.seen.is_(False),\n", ""),
        ("preference: purged while an add waits", "            Preference.waiting_since.is_(None),\n", ""),
        (
            "preference: purged while somebody holds it",
            "            not_(exists().where(UserAddress.address_id == Preference.address_id)),\n",
            "",
        ),
        ("preference: purged at once", "Address.let_go_at <= let_go_before", "Address.let_go_at.is_not(None)"),
    ),
    *_in(
        "services/preference_rows.py",
        "tests/services/sync/test_settlement.py tests/services/sync/test_sync.py tests/services/accounts/test_addresses.py tests/services/sync/test_list_passwords.py",
        ("preference: a run over a choice", " and row.version == each.row.version\n", "\n"),
        (
            "preference: waits since the first add",
            "since = None if found.row.has_waited_long else current",
            "since = current",
        ),
        ("preference: held back forgets the refusal", "    if not found.is_held_back:", "    if found.row:"),
    ),
    *_in(
        "services/sync/settlement.py",
        "tests/services/sync/test_settlement.py tests/services/sync/test_sync.py",
        (
            "settlement: a leave is forgotten before it is followed",
            "    known.sort(key=lambda each: each.decision.row.moved_to is not None)\n",
            "",
        ),
        ("settlement: first preferences are not seen", "now=now, is_seen=True)", "now=now)"),
        (
            "settlement: a choice in the way is settled",
            "settled.stale |= {each.row.address_id for each in updates} - written.ids",
            "settled.stale |= set()",
        ),
        ("settlement: a refusal is news each time", " and not each.decision.row.has_refusal\n", "\n"),
    ),
    *_in(
        "services/sync/wanted.py",
        "tests/services/sync/test_wanted.py",
        ("wanted: the address of a list", ", Address.canonical.not_in(sorted(mailing_list.never_added))", ""),
        (
            "wanted: other audiences",
            "and_(not_(Preference.subscribed), is_managed(mailing_list))",
            "not_(Preference.subscribed)",
        ),
        ("wanted: the departed stay", ", departs(mailing_list))", ")"),
    ),
)

_REPORTS = (
    *_in(
        "services/reports/runs.py",
        "tests/services/sync/test_runs.py",
        (
            "report: interrupted runs go on",
            "and not (is_last and leases.is_held(session, run.handle))",
            "and not is_last",
        ),
        (
            "report: refused runs have no later one",
            "is_last = RunReport._make(columns), not has_newer_one",
            "is_last = RunReport._make(columns), True",
        ),
    ),
    *_in(
        "services/reports/trends.py",
        "tests/services/reports/test_trends.py",
        ("report: the first run made all join", ', History.source != "init"', ""),
        ("report: bad runs count", ", Run.state == RunState.DONE)", ")"),
    ),
    *_in(
        "services/reports/subscribers.py",
        "tests/services/reports/test_subscribers.py",
        (
            "report: addresses of no account are left out",
            "or_(Preference.list_handle.is_not(None), source.is_managed)",
            "source.is_managed",
        ),
        ("report: a page repeats the first", ".offset(self.offset)", ""),
        (
            "report: the departed are subscribed",
            "(~source.is_managed, literal(DEPARTED)), ",
            "(false(), literal(DEPARTED)), ",
        ),
    ),
    *_in(
        "services/reports/readiness.py",
        _of("tests/web/test_security.py", "ready_tells_of_a_database_without_tables_and_nothing_more"),
        ("report: ready at any version", "return found == [newest()]", "return bool(found)"),
    ),
)

_ADAPTERS = (
    *_in(
        "listmanagers/mailman2.py",
        "tests/listmanagers/test_mailman2.py",
        ("mailman2: an answer about another", " or line is None or address not in line:", " or line is None:"),
        (
            "mailman2: a removal from no list",
            'if finished.stdout.startswith(b"Error opening list")',
            'if finished.stdout.startswith(b"?")',
        ),
        ("mailman2: banned counts as done", "Result.REJECTED if said.startswith(_BANNED) else ", ""),
        ("mailman2: subscribers are welcomed", "add_members -r - -w n", "add_members -r - -w y"),
        ("mailman2: no list is no failure", "finished.exit_code == 1 and any(", "finished.exit_code == 9 and any("),
        ("mailman2: a helper repeats a password", "        if secrets:\n", "        if secrets is None:\n"),
    ),
    *_in(
        "listmanagers/mailman3.py",
        "tests/listmanagers/test_mailman3.py",
        ("mailman3: subscribers are welcomed", '    ("send_welcome_message", "false"),\n', ""),
        (
            "mailman3: unseen at the border of two pages",
            "is_still = is_still and border[2] == entries[-1:]",
            "is_still = is_still and bool(border)",
        ),
        ("mailman3: a roster that is too short", "if is_still and totals == {len(entries)}", "if is_still"),
        (
            "mailman3: a held add is a subscriber",
            'Result.PENDING if "pending" in said else Result.ALREADY',
            "Result.ALREADY",
        ),
        ("mailman3: a refused password is repeated", '"Mailman refuses this password"', "described(answer)"),
        ("mailman3: a request that is gone was withdrawn", "return answer.status == 204", "return True"),
        (
            "mailman3: a transient 400 is a refusal",
            "(answer.status == 400 and bool(",
            "(answer.status == 499 and bool(",
        ),
    ),
    *_in(
        "listmanagers/mlmmj.py",
        "tests/listmanagers/test_mlmmj.py",
        (
            "mlmmj: a digest subscriber is added",
            "if (canonical(address) in before) is adds:",
            "if (address is None) is adds:",
        ),
        ("mlmmj: subscribers are told", '"mlmmj-sub": ("-f", "-q", "-s")', '"mlmmj-sub": ("-f", "-s")'),
        ("mlmmj: a line that is cut off", 'not in {b"", b"\\n"} and', "is None and"),
        (
            "mlmmj: nothing took and no failure",
            "if 1 < len(failed) == len(pushed)",
            "if 1 > len(failed) == len(pushed)",
        ),
        ("mlmmj: a disk that fills up", "        require_room(self.folder)  # mlmmj", "        # mlmmj"),
        (
            "mlmmj: its word is believed",
            "failed = [address for address in pushed if (",
            "failed = [address for address in () if (",
        ),
    ),
    *_in(
        "listmanagers/sympa.py",
        "tests/listmanagers/test_sympa.py",
        ("sympa: a dump of yesterday", "not in {None, before.get(dump.path)}", "is not None"),
        ("sympa: half a dump", r' and content.endswith(b"\n\n"))', ")"),
        ("sympa: an empty dump is believed", "        if roster:\n", "        if roster is not None:\n"),
        ("sympa: silence is consent", "silence = Outcome(Result.REJECTED", "silence = Outcome(Result.DONE"),
    ),
    *_in(
        "listmanagers/commands.py",
        "tests/listmanagers/test_commands.py",
        (
            "commands: all are refused and no failure",
            "if 1 < refused == len(outcomes)",
            "if 1 > refused == len(outcomes)",
        ),
        ("commands: an address is an option", 'if bare and address.startswith("-") else', "if not argv else"),
        ("commands: fewer lines than are skipped", "if len(lines) <= self.settings.skip_lines", "if not lines"),
        ("commands: an address in words for a shell", 'if places and PurePath(argv[0]).name == "ssh"', "if not argv"),
        (
            "commands: a helper repeats a password",
            "process.without_secrets(finished, [password for _, password in sendable])",
            "finished",
        ),
    ),
    *_in(
        "listmanagers/file.py",
        "tests/listmanagers/test_file.py",
        (
            "file: the mode of the old one is lost",
            "                    _copy_owner_and_mode(descriptor, target.stat())\n",
            "",
        ),
        ("file: no lock", "            _wait_for_lock(descriptor, folder, self.settings.timeout)\n", ""),
        ("file: another spelling is another address", "if canonical(address) in held:", "if address in held:"),
        (
            "file: a command is an address",
            "if address and address.canonical.startswith(_NO_MAILBOX)",
            "if not part and address",
        ),
        ("file: a link is replaced", "target = Path(os.path.realpath(self.path))", "target = self.path"),
    ),
    *_in(
        "listmanagers/process.py",
        "tests/listmanagers/test_process.py",
        ("process: our environment leaks", "env=environment(),", "env={**os.environ, **environment()},"),
        (
            "process: a signal is success",
            "if finished.exit_code in ok:",
            "if finished.exit_code in ok or finished.exit_code < 0:",
        ),
        ("process: killed at once", "(signal.SIGINT, signal.SIGTERM, signal.SIGKILL)", "(signal.SIGKILL,)"),
        ("process: a list is called as an option", ' or list_name.startswith("-") or', " or"),
    ),
    *_in(
        "listmanagers/http.py",
        "tests/listmanagers/test_http.py",
        ("http: a redirect", "if 300 <= status < 400", "if 400 <= status < 400"),
        ("http: a refused log-in", "if status in {401, 403}", "if status in {499}"),
        (
            "http: what was cut off at the end of time",
            "if until.left <= 0:  # the answer may",
            "if until is None:  # the answer may",
        ),
        (
            "http: no second try",
            "if isinstance(found, ConnectionFailed) or is_transient(found):\n            time",
            "if is_transient is None:\n            time",
        ),
        (
            "http: any certificate",
            "ssl.create_default_context(cafile=self.ca_file)",
            "ssl._create_unverified_context()",
        ),
        ("http: a secret is repeated", 'said = "" if request.is_secret else f": {one', 'said = f": {one'),
    ),
    *_in(
        "listmanagers/guarded.py",
        "tests/listmanagers/test_guarded.py",
        ("guarded: words that may hold a secret", "failed with {place_of(error)}", "failed with {error}"),
        ("guarded: an exit ends all lists", "    except BaseException as error:", "    except Exception as error:"),
        ("guarded: any answer is an outcome", "all(isinstance(each, Outcome) for each in answer.values())", "answer"),
    ),
)

_SCRIPT_TESTS = "tests/cli/test_scripts.py"
_SCRIPTS = (
    *_in(
        "templates/scripts/base.sh",
        f"{_SCRIPT_TESTS}::test_a_roster_that_dies_half_way_is_not_believed",
        ("script: half a roster is believed", "|| unavailable 'the command that lists its members' $?", "|| :"),
    ),
    *_in(
        "templates/scripts/base.sh",
        f"{_SCRIPT_TESTS}::test_a_roster_that_cannot_be_read_again_gives_the_run_up",
        ("script: a run that fails is not given up", "    give_back\n    open=", "    open="),
    ),
    *_in(
        "templates/scripts/base.sh",
        f"{_SCRIPT_TESTS}::test_of_several_codes_the_largest_is_told_unless_one_is_1",
        ("script: the last exit code", '[ "$worst" -eq 1 ] || [ "$worst" -ge "$1" ] || worst=$1', "worst=$1"),
    ),
    *_in(
        "templates/scripts/base.sh",
        f"{_SCRIPT_TESTS}::test_nothing_is_called_without_an_address_to_send",
        ("script: called without an address", '    [ -s "$2" ] || return 0\n    push', "    push"),
    ),
    *_in(
        "templates/scripts/mailing-list-sync-apiv1.sh",
        f"{_SCRIPT_TESTS}::test_a_portal_that_answers_wrongly_is_told_and_the_next_run_heals",
        ("script: any page is an answer", "        '200 text/plain'*) ;;", "        '200 '*) ;;"),
    ),
    *_in(
        "templates/scripts/mailing-list-sync-apiv1.sh",
        f"{_SCRIPT_TESTS}::test_only_as_many_addresses_as_were_planned_are_pushed",
        (
            "script: more addresses than were planned",
            """[ "$(($(wc -l <"$private/answer")))" = "$2" ]""",
            '[ -n "$2" ]',
        ),
    ),
    *_in(
        "templates/scripts/changepw.py.txt",
        "tests/cli/test_passwords.py",
        ("script: a password that was cut off", ' or not line.endswith("\\n"):', ":"),
        (
            "script: the list is not saved",
            "        mlist.Save()  # withlist does not",
            "        pass  # withlist does not",
        ),
        ("script: the list stays locked", "    finally:\n        mlist.Unlock()", "    finally:\n        pass"),
    ),
    *_in(
        "templates/scripts/memberoptions.py.txt",
        "tests/cli/test_memberoptions.py",
        ("script: options that were cut off", r' or not line.endswith("\n"):', ":"),
        (
            "script: members who were added are not saved",
            "            mlist.Save()  # withlist does not",
            "            pass  # withlist does not",
        ),
        ("script: somebody is written to", "ack=0, admin_notif=0", "ack=1, admin_notif=0"),
    ),
    *_in(
        "services/sync/carried_options.py",
        "tests/services/sync/test_carried_options.py",
        ("options: whoever had no mail gets some", "if options.is_mail_off:", "if options.is_mail_off and can_carry:"),
        ("options: old knowledge counts", "KnownOptions.read_at >= now - KNOWN_FOR,", ""),
        (
            "options: a planned run asks for nothing",
            "            read = _read(manager, old)\n        except",
            "            read = {}\n        except",
        ),
    ),
)

_LINKS = "tests/services/mail/test_links.py"
_OWN = "tests/services/mail/test_own_addresses.py"
_SENDING = "tests/services/mail/test_sending.py"

_MAIL = (
    *_in(
        "services/mail/links.py",
        f"{_LINKS} {_OWN}",
        ("link: the token itself is stored", "token_hash=hashed(token)", "token_hash=token"),
        ("link: a used one works", " or row.used_at is not None:", ":"),
        ("link: one for another purpose", " or row.purpose not in purposes", ""),
        ("link: it never expires", "if not now < row.expires_at <=", "if not row.made_at < row.expires_at <="),
        ("link: one from the future", " <= now + GOOD_FOR[row.purpose] + _AHEAD:", ":"),
        ("link: it outlives the password", " or hashed(found.password_hash) != row.bound_to", ""),
        ("link: inactive accounts", "Address.canonical == mailbox, User.is_active)", "Address.canonical == mailbox)"),
        ("link: a role at a further address", "and_(UserAddress.is_main, ~is_shared)", "~is_shared"),
        ("link: a role at a shared mailbox", "and_(UserAddress.is_main, ~is_shared)", "UserAddress.is_main"),
        (
            "link: any holder of the mailbox",
            "return query if user_id is None else query.where(User.id == user_id)",
            "return query",
        ),
        (
            "link: asked for without end",
            "if rate_limits.is_within(session, keys, now=now) else rehearsal",
            "if rate_limits.is_within(session, keys, now=now) else transaction",
        ),
        (
            "link: any place bars a mailbox",
            'rate_limits.key("mail to mailbox from place", mailbox, ip)',
            'rate_limits.key("mail to mailbox from place", mailbox)',
        ),
        ("link: the others stay", "    session.execute(update(MailedLink).where(*others).values(used_at=now))\n", ""),
    ),
    *_in(
        "services/mail/own_addresses.py",
        _OWN,
        ("address: confirmed in any log-in", "if row.user_id != who.user_id:", "if row.user_id is None:"),
        ("address: confirmed without an end", "        links.use_up(session, row, now=who.now)\n", ""),
        (
            "undo: a mailbox that was handed on",
            "if user is None or _is_used_by_others(session, row.mailbox, but=user.id):",
            "if user is None:",
        ),
        ("undo: the password stays", "        user.password_hash = passwords.UNUSABLE\n", ""),
        ("undo: log-ins stay", "        sessions.end(session, user.id)\n", ""),
        (
            "undo: later links stay",
            'or_(MailedLink.purpose != "undo", MailedLink.id > row.id)',
            "MailedLink.id == row.id",
        ),
    ),
    *_in(
        "services/outbox.py",
        _SENDING,
        ("outbox: two claims", "MailRequest.claim == claimed.claim)", "MailRequest.id > 0)"),
        ("outbox: tried at once again", '"due_at": now + pause}', '"due_at": now}'),
        ("outbox: tried for ever", "if now - claimed.asked_at >= KEEPS_TRYING:", "if now < claimed.asked_at:"),
        (
            "outbox: twice and not marked",
            "may_be_twice=found.may_be_twice or was_sending",
            "may_be_twice=found.may_be_twice",
        ),
        ("outbox: a claim without an end", "due_at=now + CLAIM,", "due_at=now + 9 * CLAIM,"),
        ("outbox: invitations without a pace", " or _bulk_begun(session, now) >= bulk_per_minute)", ")"),
        (
            "outbox: put off for years",
            " or_(MailRequest.due_at <= now, MailRequest.due_at > now + _FARTHEST)",
            " MailRequest.due_at <= now",
        ),
    ),
    *_in(
        "services/mail/sending.py",
        _SENDING,
        (
            "mail: a refusal is tried again",
            "state, message = MailState.REFUSED, str(error)",
            "state, message = MailState.WAITING, str(error)",
        ),
        (
            "mail: the pass goes on without a server",
            "while not trouble and not is_time_up():",
            "while not is_time_up():",
        ),
    ),
    *_in(
        "services/mail/delivery.py",
        _SENDING,
        ("mail: any certificate", "connection.starttls(context=ssl.create_default_context())", "connection.starttls()"),
        (
            "mail: a later answer is a refusal",
            "if code >= 500 else MailDeferredError(words)",
            "if code >= 400 else MailDeferredError(words)",
        ),
        ("mail: a letter without an answer", "        self.has_given_letter = True\n", ""),
        ("mail: an address is an option", '[*self._argv, "--", to]', "[*self._argv, to]"),
        (
            "mail: the sender's refusal is the mailbox's",
            "except smtplib.SMTPDataError as error:",
            "except smtplib.SMTPResponseException as error:",
        ),
    ),
    *_in(
        "services/mail/notices.py",
        "tests/services/mail/test_notices.py",
        ("notice: told again", "        mark.number = lines[-1].id\n", ""),
        (
            "notice: told of one's own choice",
            "if holders[each.address_id] - {each.actor_id}:",
            "if holders[each.address_id]:",
        ),
        ("notice: a late transaction", "abs(now - each.at) >= _SETTLES", "abs(now - each.at) >= 0 * _SETTLES"),
        ("notice: old news", "recent = [each for each in lines if each.at > now - _OLDEST]", "recent = lines"),
    ),
    *_in(
        "services/reports/operator_notices.py",
        "tests/services/reports/test_operator_notices.py",
        ("notice: a trouble is told each minute", "if current.keys() == known.keys() and", "if not current and"),
        (
            "notice: a trouble is told once for ever",
            "if now - known[key] >= _EVERY:",
            "if now - known[key] >= 99 * _EVERY:",
        ),
    ),
    *_in(
        "services/preferences/by_link.py",
        "tests/web/test_links.py::test_who_has_no_account_goes_from_a_mail_to_being_off_a_list tests/services/mail/test_own_addresses.py",
        ("leave: lists that were not unticked", "query.where(Preference.list_handle.in_(handles))", "query"),
        ("leave: a link for something else", "purposes=_PURPOSE)", "purposes=links.GOOD_FOR)"),
    ),
    *_in(
        "services/membership/writing.py",
        "tests/services/membership/test_importing.py",
        ("invite: whoever is new, always", "        if context.invites:\n", "        if made:\n"),
    ),
    *_in(
        "services/accounts/invitations.py",
        _LINKS,
        ("invite: again while one waits", "UserAddress.is_main, ~is_waiting())", "UserAddress.is_main)"),
        (
            "invite: who is inactive",
            "User.id.in_(user_ids), User.is_active, UserAddress",
            "User.id.in_(user_ids), UserAddress",
        ),
    ),
    *_in(
        "web/masked_tokens.py",
        "tests/web/test_links.py::test_the_logs_of_servers_have_no_token",
        ("link: a token in the access log", "logging.getLogger(name).addFilter(_MASK)", "logging.getLogger(name)"),
    ),
)

FAULTS = (*_DOMAIN, *_GUARDS, *_FORMS, *_ACCOUNTS, *_SYNC, *_REPORTS, *_MAIL, *_ADAPTERS, *_SCRIPTS)
