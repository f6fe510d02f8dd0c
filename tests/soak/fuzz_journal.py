"""Files that nobody wrote, for hours.

    python -m tests.soak.fuzz_journal CORPUS [-max_total_time=S]

By hand: needs atheris. Its bytes are the choices of a forger, so that what its coverage leads it to
are journals whose checksums hold; CORPUS is a directory for those that reached something new.
What fails is written to a file, `crash-...`, to give instead of CORPUS.
"""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["journal", "manager"]):
    import manager  # noqa: F401 - instrumented as it is imported
    from tests.crash.hostile_forge import Tape, forge
    from tests.crash.hostile_support import (
        knock_at_manager,
        knock_at_readers,
        knock_at_repair,
        knock_at_state,
    )

DOORS = (knock_at_readers, knock_at_repair, knock_at_state, knock_at_manager)


def knock_at_all(tape: bytes) -> None:
    """Each door gives what is there, or a JournalError; anything else ends the run."""
    files = forge(Tape(tape))
    for door in DOORS:
        door(dict(files))


if __name__ == "__main__":
    logging.disable()
    atheris.Setup(sys.argv, knock_at_all)
    atheris.Fuzz()
