"""Weakenings of backups and restores: the lock and the mark of the directory that they fill."""

from __future__ import annotations

from proof.weakenings import Weakening

DIRECTORIES = ("tests/mirror/test_restoring.py", "tests/crash/test_new_directory.py")
COPIES = ("tests/crash/test_incomplete_copies.py",)

ALL_OF = (
    Weakening(
        "copy_without_lock",
        "journal/_offline/new_directory.py",
        "            directory.lock()\n",
        "            pass\n",
        DIRECTORIES,
    ),
    Weakening(
        "copy_removes_all_files",
        "journal/_offline/new_directory.py",
        "filter(_is_copied, self.names())",
        "self.names()",
        DIRECTORIES,
    ),
    Weakening(
        "incomplete_copy_is_a_journal",
        "journal/_names.py",
        "return COPYING in names and ASIDE not in names",
        "return False",
        COPIES,
    ),
    Weakening(
        "incomplete_copy_is_opened",
        "journal/_engine/opening.py",
        "    if is_incomplete_copy(names):\n",
        "    if False:\n",
        COPIES,
    ),
    Weakening(
        "copy_is_marked_without_sync",
        "journal/_offline/new_directory.py",
        "            target.sync()\n            target.clear()\n",
        "            target.clear()\n",
        COPIES,
    ),
    Weakening(
        "copy_is_completed_without_sync",
        "journal/_offline/new_directory.py",
        "        self._directory.remove(COPYING)\n        self._directory.sync()\n",
        "        self._directory.remove(COPYING)\n",
        COPIES,
    ),
    Weakening(
        "copy_is_discarded_without_sync",
        "journal/_offline/new_directory.py",
        "        self.sync()  # or a crash",
        "        # or a crash",
        COPIES,
    ),
    Weakening(
        "complete_copy_is_discarded_without_mark",
        "journal/_offline/new_directory.py",
        "        if COPYING not in self._directory.names():",
        "        if False:",
        COPIES,
    ),
    Weakening(
        "copy_clears_other_files",
        "journal/_offline/new_directory.py",
        "and all(map(_is_copied, names))",
        "and True",
        COPIES,
    ),
    Weakening(
        "copy_clears_without_lock",
        "journal/_offline/new_directory.py",
        "            if names:\n                raise",
        "            if False:\n                raise",
        COPIES,
    ),
    Weakening(
        "copy_discards_another",
        "journal/_offline/new_directory.py",
        "            if is_own:\n",
        "            if True:\n",
        COPIES,
    ),
    Weakening(
        "interrupted_copy_stays",
        "journal/_offline/new_directory.py",
        "        except BaseException:\n            if is_own",
        "        except Exception:\n            if is_own",
        ("tests/kernel/test_interrupt_copies.py",),
    ),
    Weakening(
        "failed_follow_leaves_a_directory",
        "journal/_engine/follower.py",
        "if _is_missing(disk, path):",
        "if False:",
        ("tests/mirror/test_follower.py",),
    ),
    Weakening(
        "failed_restore_leaves_a_directory",
        "journal/_mirror/restoring.py",
        "    mirrored_lsn = _mirrored_lsn(store, target)  # before the directory is made\n",
        "    disk_or_default(disk).open_directory(path, write=True).close(unlock=False)\n"
        "    mirrored_lsn = _mirrored_lsn(store, target)\n",
        ("tests/mirror/test_follower.py",),
    ),
)
