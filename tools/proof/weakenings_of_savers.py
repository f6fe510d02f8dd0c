"""Weakenings of a saver's histories, of the rows that come late, and of what callers give it. Their
tests need the dependency group `adapters`."""

from __future__ import annotations

from proof.weakenings import Weakening

_SAVER = ("tests/adapters/test_langgraph_saver.py",)
_DELTAS = ("tests/adapters/test_langgraph_deltas.py",)
_THREADS = ("tests/adapters/test_langgraph_threads.py",)
_STRAYS = ("tests/adapters/test_langgraph_strays.py",)
_GRAPHS = ("tests/adapters/test_langgraph_graphs.py",)
_CACHE = ("tests/adapters/test_langgraph_cache.py",)
_CALLERS = ("tests/adapters/test_langgraph_callers.py",)
_OPENING = ("tests/adapters/test_langgraph_opening.py",)
_COMMITS = ("tests/adapters/test_commits.py",)
_FOLDER = "journal/adapters/langgraph"

ALL_OF = (
    Weakening(
        "adapters_do_not_wait_for_room",
        "journal/adapters/_commits.py",
        "        await tables.room()\n        with",
        "        with",
        _COMMITS,
    ),
    Weakening(
        "adapters_do_not_wait_for_room_after_conflicts",
        "journal/adapters/_commits.py",
        "    await tables.room()\n    return",
        "    return",
        _COMMITS,
    ),
    Weakening(
        "a_shorter_ttl_never_applies",
        f"{_FOLDER}/_retention.py",
        "abs(now + ttl_s - deadline)",
        "(now + ttl_s - deadline)",
        _THREADS,
    ),
    Weakening(
        "a_put_without_ttl_keeps_the_deadline",
        f"{_FOLDER}/_put.py",
        "elif len(saved.deadlines):",
        "elif False:",
        _THREADS,
    ),
    Weakening(
        "a_wrong_retention_is_refused_late",
        f"{_FOLDER}/_saver.py",
        "check_retention(keep, ttl_s)\n        make",
        "make",
        _OPENING,
    ),
    Weakening(
        "delta_ancestors_are_removed",
        f"{_FOLDER}/_retention.py",
        "                kept.add(parent)\n",
        "",
        _DELTAS,
    ),
    Weakening(
        "deltas_without_their_parent_are_stored",
        f"{_FOLDER}/_put.py",
        "if rootless and self.parent is not None",
        "if False",
        _DELTAS,
    ),
    Weakening(
        "checkpoints_without_their_early_writes_are_stored",
        f"{_FOLDER}/_put.py",
        "saved.is_removed_early(self.place, self.checkpoint_id):",
        "False:",
        _DELTAS,
    ),
    Weakening(
        "an_interrupted_removal_counts",
        f"{_FOLDER}/_rows.py",
        "return not all(",
        "return bool(notes) or not all(",
        _STRAYS,
    ),
    Weakening(
        "an_interrupted_removal_clears_those_before",
        f"{_FOLDER}/_recent.py",
        "newer.setdefault(key, set()).update(notes)",
        "newer[key] = set(notes)",
        _STRAYS,
    ),
    Weakening(
        "a_removed_thread_forgets_early_writes",
        f"{_FOLDER}/_retention.py",
        '            saved.removed_early.add(key, ("checkpoints", key))\n',
        "            pass\n",
        _STRAYS,
    ),
    Weakening(
        "a_removed_thread_forgets_early_subgraphs",
        f"{_FOLDER}/_retention.py",
        "        used |= {",
        "        _ = {",
        _STRAYS,
    ),
    Weakening(
        "removed_early_subgraphs_are_forgotten",
        f"{_FOLDER}/_retention.py",
        '            saved.removed_early.add(parent, ("children", child), *found)\n',
        "            pass\n",
        _STRAYS,
    ),
    Weakening(
        "a_removed_checkpoint_is_taken_for_a_late_one",
        f"{_FOLDER}/_retention.py",
        "for key in used if key not in saved.checkpoints]",
        "for key in used]",
        _STRAYS,
    ),
    Weakening(
        "a_joined_removal_takes_removed_checkpoints_for_late_ones",
        f"{_FOLDER}/_retention.py",
        "    if (prefix, mark) not in saved.removals:\n",
        "    if True:\n",
        _STRAYS,
    ),
    Weakening(
        "each_saver_forgets_what_others_removed",
        f"{_FOLDER}/_rows.py",
        "_shared.setdefault(tables, (RecentKeys(), RecentKeys()))",
        "(RecentKeys(), RecentKeys())",
        _STRAYS,
    ),
    Weakening(
        "recent_keys_are_forgotten",
        f"{_FOLDER}/_recent.py",
        " or key in self._older",
        "",
        _STRAYS,
    ),
    Weakening(
        "copies_miss_the_roots_of_new_namespaces",
        f"{_FOLDER}/_threads.py",
        "        roots |= self._roots(source)",
        "        pass",
        _THREADS,
    ),
    Weakening(
        "half_a_history_is_returned",
        f"{_FOLDER}/_reads.py",
        "    return None if is_doomed or saved.row(place, checkpoint_id) is None else found\n",
        "    return found\n",
        _DELTAS,
    ),
    Weakening(
        "half_a_history_of_a_doomed_thread_is_returned",
        f"{_FOLDER}/_reads.py",
        "    is_doomed = place in saved.doomed or place[:1] in saved.doomed\n",
        "    is_doomed = False\n",
        _DELTAS,
    ),
    Weakening(
        "an_expired_history_is_returned",
        f"{_FOLDER}/_reads.py",
        "        if is_expired(place[0]) or found is None:\n",
        "        if found is None:\n",
        _DELTAS,
    ),
    Weakening(
        "a_late_put_removes_its_own_ancestors",
        f"{_FOLDER}/_put.py",
        "kept = kept_rows(rows, keep, self.checkpoint_id)",
        "kept = kept_rows(rows, keep) | {self.checkpoint_id}",
        _DELTAS,
    ),
    Weakening(
        "ancestors_are_removed_before_their_descendants",
        f"{_FOLDER}/_retention.py",
        "_writes_of(t, saved, place, victims, strays_before):",
        "_writes_of(t, saved, place, victims[:40], strays_before):",
        _DELTAS,
    ),
    Weakening(
        "strays_stay_after_puts",
        f"{_FOLDER}/_put.py",
        'strays_before = "" if oldest in kept else oldest',
        'strays_before = ""',
        _STRAYS,
    ),
    Weakening(
        "strays_stay_after_a_prune",
        f"{_FOLDER}/_threads.py",
        " or has_strays(self._saved, place)",
        "",
        _STRAYS,
    ),
    Weakening(
        "early_writes_are_removed",
        f"{_FOLDER}/_put.py",
        'strays_before = "" if oldest in kept else oldest',
        "strays_before = self.checkpoint_id",
        _STRAYS,
    ),
    Weakening(
        "early_writes_go_with_a_removal",
        f"{_FOLDER}/_saver.py",
        "        check_stays(t, self._saved, place, now, has_ttl=self._ttl_s > 0)\n",
        "",
        _STRAYS,
    ),
    Weakening(
        "early_writes_do_not_expire",
        f"{_FOLDER}/_saver.py",
        "            touch(t, self._saved, place[0], now, self._ttl_s)",
        "            pass",
        _STRAYS,
    ),
    Weakening(
        "values_of_a_replaced_checkpoint_stay",
        f"{_FOLDER}/_put.py",
        "            remove_unused(t, saved, self.place, rows, set(replaced.refs.items()))\n",
        "            pass\n",
        _SAVER,
    ),
    Weakening(
        "a_cancelled_put_leaves_subgraphs",
        f"{_FOLDER}/_saver.py",
        "await asyncio.shield(tidied)",
        "await tidied",
        _SAVER,
    ),
    Weakening(
        "an_unreadable_entry_of_a_cache_raises",
        f"{_FOLDER}/_cache.py",
        "except Exception:",
        "except ZeroDivisionError:",
        _CACHE,
    ),
    Weakening(
        "an_unreadable_entry_of_a_cache_is_not_logged",
        f"{_FOLDER}/_cache.py",
        "_log.warning(_UNREADABLE, key, namespace, exc_info=True)",
        "pass",
        _CACHE,
    ),
    Weakening(
        "a_log_handler_fails_a_cache",
        f"{_FOLDER}/_cache.py",
        "with suppress(Exception):",
        "with suppress(ZeroDivisionError):",
        _CACHE,
    ),
    Weakening(
        "writes_are_not_in_the_order_of_their_tasks",
        f"{_FOLDER}/_reads.py",
        "    return sorted(found)\n",
        "    return found\n",
        _GRAPHS,
    ),
    Weakening(
        "the_size_of_a_value_may_raise",
        "journal/adapters/_size.py",
        "    except Exception:",
        "    except TypeError:",
        _CALLERS,
    ),
    Weakening(
        "names_of_subclasses_are_refused",
        "journal/adapters/_strings.py",
        "    if type(value) is not str and isinstance(value, str):",
        "    if False:",
        _CALLERS,
    ),
)
