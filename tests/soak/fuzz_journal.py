"""A coverage-guided fuzzer of forged journals, to be run by hand for hours. It needs atheris.

    python -m tests.soak.fuzz_journal CORPUS [-max_total_time=S]

The fuzzer's bytes are the choices of a forger, so that coverage leads to journals whose checksums
hold. CORPUS is a directory that collects inputs which reached new code. An input that fails is
written to a file `crash-...`. To run it again, give that file instead of CORPUS.
"""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["journal", "manager"]):
    import manager  # noqa: F401 - the import instruments it
    from tests.crash.hostile_forge import Tape, forge
    from tests.crash.hostile_support import (
        check_manager,
        check_readers,
        check_repair,
        check_state,
    )

ENTRY_POINTS = (check_readers, check_repair, check_state, check_manager)


def open_in_each_way(tape: bytes) -> None:
    """Open the forged files in each way. Any error other than a JournalError ends the run."""
    files = forge(Tape(tape))
    for open_files in ENTRY_POINTS:
        open_files(dict(files))


if __name__ == "__main__":
    logging.disable()
    atheris.Setup(sys.argv, open_in_each_way)
    atheris.Fuzz()
