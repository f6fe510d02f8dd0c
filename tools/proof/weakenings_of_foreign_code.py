"""Weakenings of the guards against foreign code: state machines, observers, signal handlers."""

from __future__ import annotations

from proof.weakenings import Weakening

CONTRACT = ("tests/engine/test_state_contract.py",)
FOREIGN = ("tests/engine/test_foreign_code.py",)
OWN_THREADS = ("tests/engine/test_own_threads.py",)
HANDLERS = ("tests/kernel/test_signal_handlers.py",)
INTERRUPTS = ("tests/kernel/test_interrupt.py", "tests/kernel/test_processes_interrupts.py")

STATE = (
    Weakening(
        "append_before_apply",
        "journal/_state/durable_state.py",
        "            apply(lsn, value)\n            is_applied = True\n"
        "            self._buffer.append_admitted(packed)\n",
        "            self._buffer.append_admitted(packed)\n"
        "            apply(lsn, value)\n            is_applied = True\n",
        CONTRACT,
    ),
    Weakening(
        "apply_gets_the_callers_object",
        "journal/_state/durable_state.py",
        "self._apply_and_append((self._machine.apply, value, packed, urgent))",
        "self._apply_and_append((self._machine.apply, "
        "value if type(record) is PackedRecord else record, packed, urgent))",
        CONTRACT,
    ),
    Weakening(
        "applied_and_not_appended_after_an_interrupt",
        "journal/_state/durable_state.py",
        "                if self._buffer.last_lsn < lsn:\n                    append()\n",
        "",
        ("tests/engine/test_state_stops.py",),
    ),
    Weakening(
        "state_ahead_of_the_log_continues",
        "journal/_state/durable_state.py",
        "                self._progress.broken = error\n"
        "            self._finish_change(lsn, is_applied, partial("
        "self._buffer.append_admitted, packed))\n",
        "                pass\n"
        "            self._finish_change(lsn, is_applied, partial("
        "self._buffer.append_admitted, packed))\n",
        CONTRACT,
    ),
    Weakening(
        "waits_ignore_records_being_applied",
        "journal/_state/owned_journal.py",
        "        return is_held and lsn <= self._progress.lsn\n",
        "        return False\n",
        CONTRACT,
    ),
    Weakening(
        "wait_for_a_change_that_waits_for_it",
        "journal/_state/owned_journal.py",
        "        if self._buffer.is_locked_here():  # the change needs that lock to be appended\n"
        "            raise InterruptedCallError\n",
        "",
        CONTRACT,
    ),
    Weakening(
        "state_lets_others_append",
        "journal/_state/owned_journal.py",
        "    def append(self, record: Record, *, urgent: bool = False) -> int:\n"
        '        """Raise JournalError: only the state appends to its journal."""\n'
        "        raise _append_error()\n",
        "",
        FOREIGN,
    ),
)

FOREIGN_CODE = (
    Weakening(
        "runtime_error_in_a_wait_opens_the_gate",
        "journal/_commit/gate.py",
        "                if not is_raised_by_call(error):\n                    raise\n",
        "",
        FOREIGN,
    ),
    Weakening(
        "flusher_logs_by_itself",
        "journal/_log.py",
        "    _reporter.post(_Message(level, text, arguments, error))",
        "    report(level, text, *arguments, error=error)",
        FOREIGN,
    ),
    Weakening(
        "logged_error_is_freed_under_the_lock",
        "journal/_log.py",
        "            del message\n",
        "",
        ("tests/engine/test_logging.py",),
    ),
    Weakening(
        "log_lets_errors_through",
        "journal/_log.py",
        "    except BaseException:\n"
        "        if threading.current_thread() is threading.main_thread():",
        "    except BaseException:\n        if True:",
        FOREIGN,
    ),
    Weakening(
        "observers_system_exit_ends_the_flusher",
        "journal/_commit/observers.py",
        "            event(observer)\n        except BaseException as error:\n",
        "            event(observer)\n        except Exception as error:\n",
        FOREIGN,
    ),
    Weakening(
        "waiters_are_released_before_the_figures_count",
        "journal/_commit/committer.py",
        "        self.figures.add(batch)  # a released caller may ask for it\n",
        "        open_gates(*gates)\n        self.figures.add(batch)\n",
        ("tests/engine/test_metrics.py",),
    ),
    Weakening(
        "interrupted_commit_counts_twice",
        "journal/_commit/commit_figures.py",
        "        if batch.is_counted:\n",
        "        if False:\n",
        ("tests/kernel/test_interrupt_figures.py",),
    ),
    Weakening(
        "interrupted_commit_is_counted_after_a_call",
        "journal/_commit/commit_figures.py",
        "            self.sync_ns.pending += (sync_ns,)\n",
        "            self.sync_ns.add(sync_ns)\n",
        ("tests/kernel/test_interrupt_figures.py",),
    ),
    Weakening(
        "interrupted_commit_forgets_its_sync",
        "journal/_commit/committer.py",
        "gates = self._turn.committed(batch, batch.sync_ns / 1e9, writer.log_bytes)",
        "sync_ns, batch.sync_ns = batch.sync_ns, 0\n"
        "        gates = self._turn.committed(batch, sync_ns / 1e9, writer.log_bytes)\n"
        "        batch.sync_ns = sync_ns",
        ("tests/kernel/test_interrupt_figures.py",),
    ),
    Weakening(
        "interrupted_commit_is_reported_twice",
        "journal/_commit/committer.py",
        " and not batch.is_reported:\n",
        ":\n",
        ("tests/kernel/test_interrupt_figures.py",),
    ),
    Weakening(
        "waiters_call_observers",
        "journal/_commit/committer.py",
        "            if threading.current_thread() is self._thread:\n",
        "            if True:\n",
        FOREIGN,
    ),
    Weakening(
        "flusher_may_end_without_a_failure",
        "journal/_commit/lifecycle.py",
        "        if self.refusal is None:\n"
        '            self.fail(RuntimeError("the flusher thread ended"))\n',
        "",
        FOREIGN,
    ),
    Weakening(
        "every_exception_is_a_log_failure",
        "journal/_commit/committer.py",
        "                if not self._is_log_failure(error):\n                    raise  #",
        "                #",
        INTERRUPTS,
    ),
    Weakening(
        "handler_errors_count_as_disk_errors",
        "journal/_commit/writer.py",
        "if error is not None and is_disk_error(error, self._segment and self._segment.file):",
        "if error is not None:",
        INTERRUPTS,
    ),
    Weakening(
        "handler_errors_count_as_packing_errors",
        "journal/_format/record.py",
        '    if not is_raised_by_call(error, "msgpack"):\n        raise error\n'
        '    place = wrong_place(record, "record", parts_max)\n',
        '    place = wrong_place(record, "record", parts_max)\n',
        INTERRUPTS,
    ),
    Weakening(
        "lack_of_memory_blamed_on_the_record",
        "journal/_format/record.py",
        "CANT_PACK = TypeError, ValueError, OverflowError, RecursionError\n",
        "CANT_PACK = TypeError, ValueError, OverflowError, RecursionError, MemoryError\n",
        ("tests/kernel/test_kernel_limits.py",),
    ),
    Weakening(
        "lock_is_taken_twice",
        "journal/_mutex.py",
        "        if self._is_owned():\n            raise InterruptedCallError\n",
        "",
        HANDLERS,
    ),
    Weakening(
        "append_on_top_of_an_append",
        "journal/_commit/buffer.py",
        "        if self._is_held_here():\n            raise InterruptedCallError\n        with",
        "        with",
        HANDLERS,
    ),
    Weakening(
        "wait_on_top_of_a_commit",
        "journal/_commit/commit_turn.py",
        "        if self.is_committing_here:\n            raise InterruptedCallError\n",
        "        pass\n",
        HANDLERS,
    ),
    Weakening(
        "repeated_interrupts_keep_the_turn",
        "journal/_commit/committer.py",
        "            waiter.has_left = True\n",
        "",
        ("tests/engine/test_commit_turn.py",),
    ),
    Weakening(
        "close_on_top_of_a_compaction",
        "journal/_engine/core.py",
        " or self.is_making_room_here:",
        ":",
        HANDLERS,
    ),
    Weakening(
        "close_on_top_of_a_close",
        "journal/_engine/core.py",
        "is_closing_here = get_ident() in self._closers",
        "is_closing_here = False",
        ("tests/engine/test_close.py",),
    ),
    Weakening(
        "commits_wait_for_metrics",
        "journal/_commit/commit_figures.py",
        "                recorder.fold_if_free()\n",
        "                recorder.fold()\n",
        ("tests/engine/test_metrics.py",),
    ),
    Weakening(
        "update_waits_on_top_of_the_buffers_lock",
        "journal/_state/owner_lock.py",
        "        if self._is_inside():\n            raise InterruptedCallError\n",
        "",
        HANDLERS,
    ),
    Weakening(
        "compact_waits_on_top_of_the_buffers_lock",
        "journal/_engine/core.py",
        "        if self.buffer.is_locked_here() or self.turn.is_committing_here:",
        "        if self.turn.is_committing_here:",
        FOREIGN,
    ),
    Weakening(
        "compact_waits_on_top_of_a_commit",
        "journal/_engine/core.py",
        "        if self.buffer.is_locked_here() or self.turn.is_committing_here:",
        "        if self.buffer.is_locked_here():",
        FOREIGN,
    ),
    Weakening(
        "close_overtakes_a_record_being_applied",
        "journal/_commit/commit_turn.py",
        "                        if not self._buffer.awaits_append():\n"
        "                            return None\n",
        "                        return None\n",
        CONTRACT,
    ),
    Weakening(
        "flusher_waits_for_itself",
        "journal/_commit/commit_turn.py",
        "                self._begin_wait()\n            if lsn",
        "                self._alarm.wake()\n            if lsn",
        OWN_THREADS,
    ),
    Weakening(
        "shipper_waits_for_itself",
        "journal/_commit/mirrored_turn.py",
        "        if lsn > self.durable_lsn and self._is_mirror_here():\n",
        "        if False:\n",
        ("tests/mirror/test_own_thread.py",),
    ),
    Weakening(
        "compactor_waits_for_itself",
        "journal/_engine/compactor.py",
        "self._lock.is_held_here() or threading.current_thread() is self._thread\n",
        "self._lock.is_held_here()\n",
        OWN_THREADS,
    ),
    Weakening(
        "close_waits_for_a_change_that_has_ended",
        "journal/_commit/buffer.py",
        "        return self.is_admitted and self.is_owner_inside()\n",
        "        return self.is_admitted\n",
        CONTRACT,
    ),
)

ALL_OF = STATE + FOREIGN_CODE
