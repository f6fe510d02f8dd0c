"""An event log that keeps the newest events, and readers that continue where they stopped.

    seq 1000 | python events.py write events.d
    python events.py read events.d mail

`write` appends each line of standard input as an event, and prints its LSN once no crash can lose
it. Events that are older than a day are removed. `read` runs in another process, even while `write`
runs. It prints each event and waits for more. Kill it at any moment and start it again: it
continues after the last event whose position it saved. Each reader has a name and a position of its
own. If the log is removed or moved, it waits for a new one at the same path.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

from journal import (
    CompactedError,
    DurableDict,
    Journal,
    JournalError,
    JournalReader,
    NotAJournalError,
    Options,
)

OPTIONS = Options(segment_bytes=1 << 20, retain_s=24 * 3600, application="example-events/1")
WAIT_S = 10  # the longest time that the end waits for a full disk
POLL_S = 0.02  # the time between two looks for new events


def write(path: str, options: Options = OPTIONS) -> None:
    journal = Journal.open(path, options=options)
    try:
        for line in sys.stdin or ():
            lsn = journal.append(line.rstrip("\n"))
            journal.wait_durable(lsn)
            print(lsn, flush=True)
    finally:
        journal.close(timeout_s=WAIT_S)  # without a limit, it waits for a full disk


class ReplacedError(Exception):
    """Another log has taken the place of the one that a reader follows."""


def read(path: str, name: str) -> None:
    JournalReader.open(path).close()  # without a log, make no file of positions
    with DurableDict.open(f"{path}.{name}") as saved:
        while True:
            with suppress(ReplacedError):
                follow(path, saved)


def follow(path: str, saved: DurableDict) -> None:
    """Print the events of a log, until another one replaces it."""
    place = os.stat(path)
    is_replaced = False

    def wait() -> None:
        nonlocal is_replaced
        if is_replaced:  # by now, the last events of the old log have been read, too
            raise ReplacedError
        time.sleep(POLL_S)
        with suppress(FileNotFoundError, NotAJournalError):  # there is no new one yet
            if not os.path.samestat(os.stat(path), place):
                JournalReader.open(path).close()
                is_replaced = True

    with JournalReader.open(path) as reader:
        while (log := reader.journal_id) is None:  # its first file is not there yet
            wait()
        while True:
            try:
                # A new log at this path has another id, and begins at its own first event. The
                # engine commits the position within 10 ms, so after a crash, the last events are
                # read again.
                for entry in reader.entries(saved.get(log, 0), follow=True, wait=wait):
                    print(entry.lsn, entry.record, flush=True)  # do the work here
                    saved[log] = entry.lsn
            except CompactedError as error:  # this reader was away for too long
                print(f"events before {error.first_lsn} are gone", file=sys.stderr, flush=True)
                saved[log] = error.first_lsn - 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end if nobody reads the output
    try:
        match sys.argv[1:]:
            case ["write", path]:
                write(path)
            case ["read", path, name]:
                read(path, name)
            case _:
                sys.exit(__doc__)
    except KeyboardInterrupt:
        sys.exit(130)
    except (JournalError, OSError, UnicodeError) as error:
        sys.exit(f"stopped: {error}")
