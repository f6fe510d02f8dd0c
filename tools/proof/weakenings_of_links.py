"""Weakenings of the connections to NATS: what bad servers, wrong logins and lost servers do."""

from __future__ import annotations

from proof.weakenings import Weakening

CLIENT = "manager/_remote/client.py"
LINK = "manager/_remote/link.py"
RIVALS = "manager/_remote/rivals.py"
RIVALS_TESTS = ("tests/remote/test_rivals.py",)
PERMISSIONS = ("tests/remote/test_permissions.py",)
BAD_SERVERS = ("tests/remote/test_bad_servers.py",)

ALL_OF = (
    Weakening(
        "login_is_sent_to_an_open_server",
        CLIENT,
        "        if self.is_strict and not is_encrypted:\n",
        "        if False:\n",
        BAD_SERVERS,
    ),
    Weakening(
        "open_server_is_tried_again_and_again",
        LINK,
        "            if isinstance(error, OpenServerError) and not has_connected:\n",
        "            if False:\n",
        BAD_SERVERS,
    ),
    Weakening(
        "late_answer_to_a_ping_ends_the_reading",
        CLIENT,
        "        if self._pongs and self._pongs[0].done():\n",
        "        if False:\n",
        BAD_SERVERS,
    ),
    Weakening(
        "error_of_a_server_ends_the_client",
        CLIENT,
        'if "permissions violation" in err_msg:',
        "if True:",
        BAD_SERVERS,
    ),
    Weakening(
        "nonsense_ends_the_client",
        CLIENT,
        "            if isinstance(error, OSError | nats.errors.Error) or not",
        "            if True or not",
        BAD_SERVERS,
    ),
    Weakening(
        "end_after_the_login_is_a_connection",
        CLIENT,
        "            if not self.is_connected:\n",
        "            if False:\n",
        BAD_SERVERS,
    ),
    Weakening(
        "client_waits_for_the_end_of_tls",
        CLIENT,
        "            self._transport = None  #",
        "            pass  #",
        BAD_SERVERS,
    ),
    Weakening(
        "client_waits_until_all_is_sent",
        CLIENT,
        "        if self.is_connected:\n            self.abort()\n",
        "",
        BAD_SERVERS,
    ),
    Weakening(
        "link_waits_for_its_close",
        LINK,
        "await asyncio.wait((closing,), timeout=_CLOSE_S)",
        "await asyncio.wait((closing,))",
        BAD_SERVERS,
    ),
    Weakening(
        "link_waits_for_the_end_of_its_service",
        LINK,
        "                async with asyncio.timeout(_CLOSE_S):\n",
        "                if True:\n",
        BAD_SERVERS,
    ),
    Weakening(
        "request_waits_until_all_is_sent",
        LINK,
        "                    flush_timeout=_FLUSH_S,\n",
        "",
        BAD_SERVERS,
    ),
    Weakening(
        "lost_server_takes_the_time_of_the_others",
        LINK,
        "connect_timeout=connect_s / count,",
        "connect_timeout=connect_s,",
        BAD_SERVERS,
    ),
    Weakening(
        "login_is_sent_unencrypted",
        CLIENT,
        'if server.uri.scheme == "tls" and not',
        "if False and not",
        BAD_SERVERS,
    ),
    Weakening(
        "credentials_are_not_checked",
        CLIENT,
        "    if needed not in Path(path).read_bytes():\n",
        "    if False:\n",
        BAD_SERVERS,
    ),
    Weakening(
        "refused_subscription_is_no_error",
        LINK,
        '            if self._is_refused("subscription", subject):',
        "            if False:",
        PERMISSIONS,
    ),
    Weakening(
        "manager_that_can_not_look_for_others_serves",
        RIVALS,
        "            if error.is_forbidden:",
        "            if False:",
        PERMISSIONS,
    ),
    Weakening(
        "dispatcher_runs_a_loop_of_the_program",
        "manager/_remote/dispatcher.py",
        "asyncio.SelectorEventLoop()",
        "asyncio.new_event_loop()",
        ("tests/remote/test_dispatcher.py",),
    ),
    Weakening(
        "second_manager_is_not_refused",
        "manager/_remote/dispatcher.py",
        "            await rivals.check()\n",
        "",
        RIVALS_TESTS,
    ),
    Weakening(
        "two_managers_go_on",
        "manager/_remote/dispatcher.py",
        "                self._begin(rivals.watch())\n",
        "",
        RIVALS_TESTS,
    ),
    Weakening(
        "older_manager_ends",
        RIVALS,
        "return other_s < served_s",
        "return other_s > served_s",
        RIVALS_TESTS,
    ),
    Weakening(
        "claims_that_cross_end_both_managers",
        RIVALS,
        "abs(other_s - served_s) < _EQUAL_S",
        "abs(other_s - served_s) < 0",
        RIVALS_TESTS,
    ),
    Weakening(
        "manager_that_begins_ends_one_that_serves",
        RIVALS,
        "            return other_s is None\n",
        "            return other_s is not None\n",
        RIVALS_TESTS,
    ),
    Weakening(
        "manager_takes_itself_for_another",
        RIVALS,
        'if claim.get("manager") == self._own:',
        "if False:",
        RIVALS_TESTS,
    ),
    Weakening(
        "manager_that_was_cut_off_goes_on",
        RIVALS,
        "or not self._link.is_connected:",
        "or False:",
        RIVALS_TESTS,
    ),
    Weakening(
        "older_epoch_of_the_journal_goes_on",
        RIVALS,
        '            if epoch < own["epoch"]:\n',
        '            if epoch > own["epoch"]:\n',
        RIVALS_TESTS,
    ),
)
