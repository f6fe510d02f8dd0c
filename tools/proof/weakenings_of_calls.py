"""Weakenings of what a call does before and beside its work: checks of its arguments, waits for the
directory's lock, and threads that open and close for an event loop."""

from __future__ import annotations

from proof.weakenings import Weakening

WAITS = ("tests/engine/test_waits.py",)
THREADLESS = ("tests/engine/test_async_without_threads.py",)
LOCKS = ("tests/engine/test_lock_wait.py",)
ASYNC = ("tests/engine/test_async_handle.py", "tests/engine/test_async_loop_ends.py")
PLACES = ("tests/engine/test_wrong_place.py",)
MISTAKEN = ("tests/engine/test_wrong_calls.py",)
KIT = ("tests/crash/test_testing_arguments.py",)
LATE = ("tests/engine/test_late_callbacks.py",)
KINDS = ("tests/manager/test_worker_kinds.py",)
RESULTS = ("tests/engine/test_update_with_result.py",)

ARGUMENTS = (
    Weakening(
        "wait_takes_true_for_an_lsn",
        "journal/_engine/journal.py",
        "elif type(lsn) is not int or lsn < 0:",
        "elif lsn < 0:",
        WAITS,
    ),
    Weakening(
        "wait_takes_a_negative_lsn",
        "journal/_engine/journal.py",
        "elif type(lsn) is not int or lsn < 0:",
        "elif type(lsn) is not int:",
        WAITS,
    ),
    Weakening(
        "wait_takes_nan_for_a_limit",
        "journal/_waits.py",
        "is_valid = float(timeout_s) >= 0  # False for NaN",
        "is_valid = not float(timeout_s) < 0",
        WAITS,
    ),
    Weakening(
        "wait_fails_while_asyncio_is_imported",
        "journal/_waits.py",
        'getattr(sys.modules.get("asyncio"), "_get_running_loop", None)',
        '"asyncio" in sys.modules and sys.modules["asyncio"]._get_running_loop or None',
        WAITS,
    ),
    Weakening(
        "open_fails_while_multiprocessing_is_imported",
        "journal/_disk/process.py",
        'getattr(processes, "_current_process", None)',
        'processes and getattr(processes, "_current_process")',
        ("tests/kernel/test_exit.py",),
    ),
    Weakening(
        "wait_in_a_loop_warns_at_each_call",
        "journal/_waits.py",
        "    _has_warned = True\n",
        "",
        WAITS,
    ),
    Weakening(
        "infinite_limit_of_a_close_overflows",
        "journal/_engine/core.py",
        "return None if remaining_s is not None and remaining_s > TIMEOUT_MAX else remaining_s",
        "return remaining_s",
        WAITS,
    ),
    Weakening(
        "record_without_a_result_is_applied",
        "journal/_state/durable_state.py",
        "if not isinstance(chosen, tuple) or len(chosen) != 2:",
        "if chosen is None:",
        RESULTS,
    ),
    Weakening(
        "search_under_a_lock_is_unbounded",
        "journal/_format/record.py",
        'wrong_place(record, "record", parts_max)',
        'wrong_place(record, "record")',
        PLACES,
    ),
)

LOCK = (
    Weakening(
        "wait_for_the_lock_has_no_end",
        "journal/_disk/lock_wait.py",
        "            if remaining_s <= 0:",
        "            if timeout_s == 0:",
        LOCKS,
    ),
    Weakening(
        "cancelled_wait_for_the_lock_goes_on",
        "journal/_disk/lock_wait.py",
        "elif given_up.sleep(delay_s):",
        "elif given_up.sleep(delay_s) and remaining_s <= 0:",
        ASYNC,
    ),
    Weakening(
        "own_lock_counts_as_another_process",
        "journal/_disk/posix.py",
        "is_this_process=pid == os.getpid()",
        "is_this_process=False",
        LOCKS,
    ),
)

THREADS = (
    Weakening(
        "cancelled_open_stays_open",
        "journal/_engine/async_handle.py",
        "if call.is_cancelled and call.results:",
        "if False:",
        ASYNC,
    ),
    Weakening(
        "cancelled_open_stays_open_without_threads",
        "journal/_engine/async_handle.py",
        "call.results.pop())).end(may_block=True)",
        "call.results.pop())).end()",
        THREADLESS,
    ),
    Weakening(
        "close_needs_a_thread",
        "journal/_engine/async_handle.py",
        "    await call.end(may_block=True)\n",
        "    await call.end()\n",
        THREADLESS,
    ),
    Weakening(
        "cancelled_call_is_not_waited_for",
        "journal/_engine/async_handle.py",
        "while not self._gate.opened:",
        "if not self._gate.opened:",
        ASYNC,
    ),
    Weakening(
        "cancellation_of_a_close_is_lost",
        "journal/_engine/async_handle.py",
        "    result = call.result()\n    call.raise_cancellation()\n",
        "    result = call.result()\n",
        ASYNC,
    ),
    Weakening(
        "abandoned_open_stays_open",
        "journal/_engine/async_handle.py",
        "if is_abandoned and self._discard and self.results:",
        "if False:",
        ASYNC,
    ),
    Weakening(
        "call_without_a_loop_starts_a_thread",
        "journal/_engine/async_handle.py",
        "self._loop = asyncio.get_running_loop()  # raises RuntimeError if there is none",
        "",
        ASYNC,
    ),
    Weakening(
        "open_of_a_closed_loop_stays_open",
        "journal/_engine/async_handle.py",
        "self._is_abandoned or (self._loop is not None and self._loop.is_closed())",
        "self._is_abandoned",
        ASYNC,
    ),
)

MISTAKES = (
    Weakening(
        "constructor_accepts_a_path",
        "journal/_handle.py",
        '    if isinstance(first, str | bytes) or hasattr(first, "__fspath__"):',
        "    if False:",
        MISTAKEN,
    ),
    Weakening(
        "constructor_of_a_subclass_refuses_a_path",
        "journal/_handle.py",
        '    if kind.__init__.__module__.partition(".")[0] not in PACKAGES:  # type: ignore[misc]',
        "    if False:",
        MISTAKEN,
    ),
    Weakening(
        "open_accepts_options_of_another_type",
        "journal/options.py",
        "    if not isinstance(options, Options):",
        "    if False:",
        MISTAKEN,
    ),
    Weakening(
        "record_is_accepted_as_a_batch",
        "journal/_format/record.py",
        "    if kind is not list and kind is not tuple and isinstance(records, _NO_BATCHES):",
        "    if False:",
        MISTAKEN,
    ),
    Weakening(
        "coroutine_is_accepted_as_a_transaction",
        "journal/_tables/transaction.py",
        "    if type(result) in RUN_LATER and (fault := late_fault(function, result)):",
        "    if fault := '':",
        MISTAKEN,
    ),
    Weakening(
        "generator_function_is_accepted_as_a_worker",
        "manager/worker_checks.py",
        "if code.co_flags & _GENERATOR else None",
        "if False else None",
        KINDS,
    ),
    Weakening(
        "agents_started_with_that_of_a_mistake_run",
        "manager/worker.py",
        "            if self._is_ending:\n                raise",
        "            if False:\n                raise",
        KINDS,
    ),
    Weakening(
        "loop_starts_agents_after_a_mistake",
        "manager/worker.py",
        "        if self._is_ending:\n            return True",
        "        if False:\n            return True",
        KINDS,
    ),
    Weakening(
        "workload_that_never_ran_passes",
        "journal/testing/explorer.py",
        "            check_has_run(work(owner))",
        "            work(owner)",
        KIT,
    ),
    Weakening(
        "crash_point_that_is_not_there_passes",
        "journal/testing/explorer.py",
        "            if only is not None and only >= count:",
        "            if False:",
        KIT,
    ),
    Weakening(
        "fault_that_never_occurs_is_set",
        "journal/testing/disk.py",
        "        check_fault(Operation, operation, code, path, after, times)\n",
        "",
        KIT,
    ),
    Weakening(
        "name_that_breaks_exports_is_watched",
        "journal/_exporting.py",
        "        _check_name(name)\n",
        "",
        ("tests/engine/test_exporting.py",),
    ),
    Weakening(
        "coroutine_is_accepted_as_a_query",
        "journal/_state/durable_state.py",
        "        if type(result) in RUN_LATER and (fault := late_fault(query, result)):",
        "        if fault := '':",
        LATE,
    ),
    Weakening(
        "record_passes_as_a_function",
        "journal/_waits.py",
        "    if not callable(function):\n",
        "    if False:\n",
        ("tests/engine/test_wrong_calls.py",),
    ),
    Weakening(
        "generator_that_has_begun_is_refused",
        "journal/_callbacks.py",
        "inspect.getgeneratorstate(result) != inspect.GEN_CREATED",
        "False",
        LATE,
    ),
    Weakening(
        "generator_of_another_function_is_refused",
        "journal/_callbacks.py",
        "isinstance(result, GeneratorType) and result.gi_code in codes_of([function]):",
        "isinstance(result, GeneratorType):",
        LATE,
    ),
    Weakening(
        "closed_reader_answers",
        "journal/_offline/reader.py",
        "        if self._is_closed:\n",
        "        if False:\n",
        MISTAKEN,
    ),
    Weakening(
        "explorer_accepts_a_machine",
        "journal/testing/history.py",
        "        if not callable(given):",
        "        if False:",
        MISTAKEN,
    ),
    Weakening(
        "tables_of_a_manager_close_without_a_limit",
        "manager/tables.py",
        "        self._owner().close(timeout_s=timeout_s)",
        "        self._owner().close()",
        ("tests/manager/test_manager_tables.py",),
    ),
)

ALL_OF = ARGUMENTS + LOCK + THREADS + MISTAKES
