"""Public errors as values: copies and pickles of them, as process pools and test runners make."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

import journal
import manager

PLACE = ("/j/00000000000000000001-0000000001.seg", 24, 3, "what")
ERRORS: list[Exception] = [
    journal.BufferFullError("full"),
    journal.CheckpointItemError(3, "['rows'][3]", "a tuple"),
    journal.ClosedError("closed"),
    journal.CompactedError("gone", 7, lsn=3),
    journal.ConflictError("users", ("de", 7), "was changed"),
    journal.CorruptionError(*PLACE, reason=journal.DamageReason.MISNAMED, header_of="b.seg"),
    journal.CutError(4, 9, reason=journal.CutReason.NO_BATCH_END, at_most=3, at_least=5),
    journal.FailedError("failed"),
    journal.FencedError("s3://b", host="h", pid=1, epoch=2, since=3.0, mirrored_lsn=4, last_lsn=5),
    journal.FormatVersionError("new", path="/j", reason=journal.FormatReason.NEWER_VERSION),
    journal.InterruptedCallError(),
    journal.JournalError("two", "arguments"),
    journal.LockedError("/j", 17),
    journal.MirrorError("s3://b", "is damaged", reason=journal.MirrorReason.DAMAGED, number=7),
    journal.NotAJournalError("/j", is_incomplete_copy=True),
    journal.RecordError("a set"),
    journal.SavePlaceError("/srv/j", "/srv"),
    journal.TransactionTooLargeError("more than 3 keys"),
    journal.UnsafePathError("a symlink", path="/j"),
    manager.AlreadyTakenError("agent_1", "a name", "agent_2", 3),
    manager.AmbiguousNameError("a name"),
    manager.BudgetError("a1", "lead", 10, 12),
    manager.CapacityError("max_active", 2, {"running": 2, "queued": 0}, "no room"),
    manager.DispatchError("nats://h: can't connect"),
    manager.LegacyError("/f.json", "no list"),
    manager.ManagerError("base"),
    manager.NameInUseError("lead", "a1", "running"),
    manager.TransitionError("a1", "lead", "done", "running", "start", ["archived"]),
    manager.UnknownAgentError("no agent"),
]


def public_errors() -> set[type[Exception]]:
    """Return the exceptions among the public names of the packages."""
    exported = [getattr(module, name) for module in (journal, manager) for name in module.__all__]
    return {value for value in exported if inspect.isclass(value) and issubclass(value, Exception)}


def test_every_public_error_is_in_the_table() -> None:
    """P4: The table of this module contains every public error."""
    assert {type(error) for error in ERRORS} == public_errors()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled_and_copied(error: Exception) -> None:
    """P4: A pickle and a copy keep the class, message, arguments, fields and notes of an error, and
    do not call its `__init__`."""
    error.add_note("seen by worker 3")
    pickles = [pickle.dumps(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for restored in (*map(pickle.loads, pickles), copy.copy(error), copy.deepcopy(error)):
        assert type(restored) is type(error)
        assert (str(restored), restored.args) == (str(error), error.args)
        assert vars(restored) == vars(error)
