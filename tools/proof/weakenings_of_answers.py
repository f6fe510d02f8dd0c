"""Weakenings of what a mirror's store makes of the answers of its server."""

from __future__ import annotations

from proof.weakenings import Weakening

OBJECTS = ("tests/mirror/test_object_store_answers.py",)
LOST = ("tests/mirror/test_lost_answers.py",)
JETSTREAM = ("tests/mirror/test_jetstream_losses.py",)

ALL_OF = (
    Weakening(
        "login_of_a_mirror_is_sent_unencrypted",
        "journal/_mirror/jetstream_client.py",
        'if server.uri.scheme == "tls" and',
        "if False and",
        ("tests/mirror/test_jetstream_rights.py",),
    ),
    Weakening(
        "login_is_that_of_one_server",
        "journal/_mirror/jetstream_client.py",
        "        self._set_login(server)\n",
        "",
        ("tests/mirror/test_jetstream_rights.py",),
    ),
    Weakening(
        "protocol_knows_no_tls",
        "journal/_mirror/jetstream_client.py",
        "        self._finish_handshake()\n",
        "",
        ("tests/mirror/test_jetstream_tls.py",),
    ),
    Weakening(
        "protocol_of_a_link_knows_no_tls",
        "manager/_remote/client.py",
        "            self._finish_handshake()\n",
        "            pass\n",
        ("tests/remote/test_bad_servers.py",),
    ),
    Weakening(
        "cut_login_is_shown",
        "journal/_mirror/urls.py",
        "    if _has_cut_login(parts):\n        return",
        "    if False:\n        return",
        ("tests/mirror/test_jetstream_rights.py",),
    ),
    *(
        Weakening(name, f"journal/_mirror/{module}.py", old, new, LOST)
        for name, module, old, new in (
            (
                "lost_answer_of_a_read_is_waited_for",
                "jetstream_client",
                "if subject.startswith(_READS) else",
                "if False else",
            ),
            (
                "slow_answer_is_asked_for_twice",
                "jetstream_client",
                "                    await self.flush(ceil(left_s))\n",
                "                    pass\n",
            ),
            (
                "pong_of_a_lost_connection_is_waited_for",
                "jetstream_client",
                "pong.set_result(False)",
                "pass",
            ),
            (
                "late_pong_ends_the_connection",
                "jetstream_client",
                "if self._pongs and self._pongs[0].done():",
                "if False:",
            ),
            (
                "lost_consumer_of_a_list_is_waited_for",
                "jetstream_store",
                "self._client.answered(",
                "(lambda ask, limit_s: ask(limit_s))(",
            ),
            (
                "list_waits_for_the_end_of_its_consumer",
                "jetstream_store",
                "asyncio.timeout(_ANSWER_S)",
                "asyncio.timeout(None)",
            ),
            (
                "silent_connection_is_closed_only_once_all_is_sent",
                "jetstream_client",
                "            writer.transport.abort()\n",
                "            pass\n",
            ),
            (
                "connection_lost_at_its_beginning_stays_open",
                "jetstream_client",
                "        except BaseException as error:\n            self._abort()\n",
                "        except BaseException as error:\n",
            ),
            (
                "handshake_of_tls_is_waited_for",
                "jetstream_client",
                "            self._transport = None",
                "            pass",
            ),
            (
                "close_waits_until_all_is_sent",
                "jetstream_client",
                "        self._abort()\n        await super().close()",
                "        await super().close()",
            ),
            (
                "lost_cancel_is_not_repeated",
                "jetstream_connection",
                "            _, requests = await asyncio.wait(requests, timeout=_CANCEL_S)",
                "            await asyncio.wait(requests, timeout=self._timeout_s)",
            ),
            (
                "strange_greeting_ends_the_attempts",
                "jetstream_client",
                "            raise nats.errors.Error(str(error) or",
                "            raise type(error)(str(error) or",
            ),
            (
                "silent_server_is_not_pinged",
                "jetstream_connection",
                "                ping_interval=_PING_S,\n",
                "",
            ),
            (
                "list_of_a_late_replica_is_whole",
                "jetstream_store",
                "if not listed or listed[-1].metadata.sequence.stream < last.seq:",
                "if False:",
            ),
        )
    ),
    *(
        Weakening(name, "journal/_mirror/object_store.py", old, new, OBJECTS)
        for name, old, new in (
            (
                "any_conflict_is_a_number_that_is_taken",
                "if is_new and isinstance(error, taken):",
                "if isinstance(error, taken):",
            ),
            (
                "forgotten_part_of_a_blob_is_an_absent_blob",
                'if call != "put":  # a put',
                "if True:  # a put",
            ),
            (
                "page_is_an_empty_bucket",
                "            self._check_absence()",
                "            pass",
            ),
            (
                "page_is_an_entry",
                '.startswith("text/html")',
                '.startswith("text/never")',
            ),
            (
                "page_of_a_gateway_is_an_absent_object",
                "if _FOREIGN.search(str(error).partition(_DUMP)[0]):",
                "if False:",
            ),
            (
                "page_of_a_proxy_is_a_missing_right",
                "(?i:<!doctype html|<html)",
                "(?i:<!doctype never|<never)",
            ),
            (
                "panic_of_obstore_escapes",
                'if type(error).__module__ != "pyo3_runtime":',
                "if True:",
            ),
            (
                "wrong_setting_of_a_bucket_escapes",
                '            if not is_raised_by_call(error, "journal", "obstore"):\n'
                "                raise\n"
                "            raise RefusedError(",
                '            if not is_raised_by_call(error, "obstore"):\n'
                "                raise\n"
                "            raise RefusedError(",
            ),
            (
                "session_token_is_shown",
                'return text + unescape(": ".join(_SAID.findall(f"<{answer}")))',
                'return f"{text}<{answer}"',
            ),
            (
                "session_token_is_in_the_traceback",
                "raise found from (error if is_whole else None)",
                "raise found from error",
            ),
            (
                "objects_of_others_are_entries",
                'return [path for path in paths if "/" not in path]',
                'return [path.rpartition("/")[2] for path in paths]',
            ),
        )
    ),
    *(
        Weakening(name, "journal/_mirror/jetstream_store.py", old, new, JETSTREAM)
        for name, old, new in (
            (
                "hollow_blob_of_a_stream_is_waited_for",
                "if info.size and self._call(what,",
                "if False and self._call(what,",
            ),
            (
                "damaged_blob_of_a_stream_is_unreachable",
                "if not isinstance(error.__cause__, self._nats.js.errors.DigestMismatchError):",
                "if True:",
            ),
            (
                "deleted_bucket_of_a_stream_is_an_absent_blob",
                'raise LostError(f"{self.url}: {problem}; mirror to a new stream") from error',
                "raise",
            ),
        )
    ),
    Weakening(
        "stream_runs_a_loop_of_the_program",
        "journal/_mirror/jetstream_connection.py",
        "asyncio.SelectorEventLoop()",
        "asyncio.new_event_loop()",
        ("tests/mirror/test_jetstream_thread.py",),
    ),
    Weakening(
        "deleted_stream_has_no_entry",
        "journal/_mirror/jetstream_connection.py",
        "if what in (OPEN, ASK_LAST):",
        "if what == OPEN:",
        JETSTREAM,
    ),
    Weakening(
        "refused_connection_is_given_up",
        "journal/_mirror/jetstream_connection.py",
        "if what != CONNECT and self._client.is_closed:",
        "if False:",
        ("tests/mirror/test_jetstream_rights.py",),
    ),
    Weakening(
        "missing_jetstream_has_no_advice",
        "journal/_mirror/jetstream_connection.py",
        "error.err_code in (None, *_NO_JETSTREAM)",
        "False",
        ("tests/mirror/test_jetstream_rights.py",),
    ),
    Weakening(
        "refusal_of_jetstream_is_an_outage",
        "journal/_mirror/jetstream_connection.py",
        "self._noted[bool(_REFUSAL.search(str(error)))]",
        "self._noted[False]",
        ("tests/mirror/test_jetstream_rights.py",),
    ),
    Weakening(
        "removal_by_a_writer_is_damage",
        "journal/_mirror/verifying.py",
        "if attempts > 1 and _oldest_start(store)[0] != begin:",
        "if False:",
        ("tests/mirror/test_verifying.py",),
    ),
    Weakening(
        "lost_end_of_a_mirror_is_not_verified",
        "journal/_mirror/verifying.py",
        "_damaged_entries(store, progress), _end(store)",
        "_damaged_entries(store, progress)",
        ("tests/mirror/test_verifying.py",),
    ),
    Weakening(
        "only_the_first_hole_of_a_mirror_is_found",
        "journal/_mirror/verifying.py",
        "chain(_breaks(store), _holes(store))",
        "_breaks(store)",
        ("tests/mirror/test_verifying.py",),
    ),
)
