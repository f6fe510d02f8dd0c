"""The logger of the journal. Who only reads logs nothing, and need not wait for its import."""

from __future__ import annotations

import logging

log = logging.getLogger("journal")
log.addHandler(logging.NullHandler())  # a program that sets up no logging hears nothing
