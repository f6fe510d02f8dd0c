"""An event log that keeps the newest events, and readers that continue where they stopped.

    seq 1000 | python events.py write events.d
    python events.py read events.d mail

`write` appends each line of standard input as an event, and prints its LSN once no crash can lose
it. Events that are older than a day are removed. `read` runs in another process, even while `write`
runs. It prints each event and waits for more. Kill it at any moment and start it again: it
continues after the last event whose position it saved. Each reader has a name and a position of its
own.
"""

from __future__ import annotations

import signal
import sys

from journal import CompactedError, DurableDict, Journal, JournalError, JournalReader, Options

OPTIONS = Options(segment_bytes=1 << 20, retain_s=24 * 3600, application="example-events/1")
WAIT_S = 10  # the longest time that the end waits for a full disk


def write(path: str, options: Options = OPTIONS) -> None:
    journal = Journal.open(path, options=options)
    try:
        for line in sys.stdin or ():
            lsn = journal.append(line.rstrip("\n"))
            journal.wait_durable(lsn)
            print(lsn, flush=True)
    finally:
        journal.close(timeout_s=WAIT_S)  # without a limit, it waits for a full disk


def read(path: str, name: str) -> None:
    with JournalReader.open(path) as reader, DurableDict.open(f"{path}.{name}") as saved:
        log = str(reader.journal_id)  # a new log at this path begins at its own first event
        while True:
            try:
                # The engine commits the position within 10 ms, so after a crash, the last events
                # are read again.
                for entry in reader.entries(saved.get(log, 0), follow=True):
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
