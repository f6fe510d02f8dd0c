"""The list of weakenings that the suite must notice matches the code."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import pytest
from proof import mutants
from proof.mutants import ROOT, TESTS_OF_TEXT, WEAKENINGS, first_failure, main, weakened
from proof.weakenings import Weakening

from tests.support import TIMEOUT_S, until


@lru_cache(4)  # several weakenings in turn are of the same file
def dump(source: str) -> str:
    return ast.dump(ast.parse(source))


def misfit(weakening: Weakening) -> str | None:
    """Return why a weakening can't be applied, or None if it can."""
    source = (ROOT / weakening.path).read_text()
    try:
        weak = dump(weakened(source, weakening))
    except (SyntaxError, ValueError) as error:
        return f"{weakening.name}: {error}"
    return f"{weakening.name} changes nothing" if weak == dump(source) else None


@pytest.mark.usefixtures("few_to_collect")
def test_weakenings_match_the_code() -> None:
    """The code of each weakening is in its file exactly once, and the weakened file is valid
    Python."""
    assert [reason for weakening in WEAKENINGS if (reason := misfit(weakening))] == []


def test_tests_that_read_source_text_are_ignored(tmp_path: Path) -> None:
    """Tests that read source text are ignored, since they fail for any change of the code."""
    (tmp_path / "tests" / "project").mkdir(parents=True)
    for name in TESTS_OF_TEXT:
        assert (ROOT / "tests" / "project" / name).exists()
        (tmp_path / "tests" / "project" / name).write_text(
            "def test_text():\n    raise AssertionError\n"
        )
    (tmp_path / "tests" / "test_sound.py").write_text("def test_sound():\n    pass\n")
    assert first_failure(tmp_path, ["tests"]) is None
    (tmp_path / "tests" / "test_sound.py").write_text("def test_sound():\n    raise OSError\n")
    assert first_failure(tmp_path, ["tests"]) == "tests/test_sound.py::test_sound"


def test_a_test_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that hangs counts as failed, well before the time limit of the whole suite."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_hanging.py").write_text(
        "import pathlib, time\n\ndef test_sound():\n    pass\n\n"
        "def test_hanging():\n    pathlib.Path('begun').touch()\n    time.sleep(1000)\n"
    )
    with ThreadPoolExecutor(1) as pool:
        failure = pool.submit(first_failure, tmp_path, ["tests"])
        until((tmp_path / "begun").exists, "the test begins", TIMEOUT_S * 4)
        monkeypatch.setattr(mutants, "SILENCE_S", 0)
        assert failure.result(TIMEOUT_S) == "tests/test_hanging.py::test_hanging hangs"


def test_a_failed_test_may_hold_up_the_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure counts as soon as pytest names it, even if a thread that the test left never
    ends."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_broken.py").write_text(
        "import threading, time\n\ndef test_broken():\n"
        "    threading.Thread(target=time.sleep, args=(1000,)).start()\n    raise OSError\n"
    )
    monkeypatch.setattr(mutants, "EXIT_S", 0.1)
    assert first_failure(tmp_path, ["tests"]) == "tests/test_broken.py::test_broken"


def test_a_run_without_tests_notices_nothing(tmp_path: Path) -> None:
    """If pytest can't run the tests, that is an error: otherwise each weakening seems noticed."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text("import missing_module\n")
    with pytest.raises(ChildProcessError, match="missing_module"):
        first_failure(tmp_path, ["tests"])


def test_weakenings_have_unique_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Each weakening can be selected by its name, and an unknown name is refused."""
    assert len({weakening.name for weakening in WEAKENINGS}) == len(WEAKENINGS)
    assert main(["--list", "no_page_drop"]) == 0
    assert capsys.readouterr().out.split() == ["no_page_drop", "journal/_recovery/recovery.py"]
    with pytest.raises(SystemExit):
        main(["no_such_weakening"])
