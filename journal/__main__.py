"""The entry point of `python -m journal`, which is the command `journal-inspect`."""

from __future__ import annotations

import sys

from journal_inspect.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
