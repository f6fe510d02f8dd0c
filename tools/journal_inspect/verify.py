"""verify: every segment and checkpoint looked at, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from journal import Finding, JournalReader
from journal_inspect.exits import CORRUPT, FINE, NEGATIVE
from journal_inspect.objects import JSON, Format, as_object, dumps, put_objects, versioned
from journal_inspect.text import escaped, painted, put_lines, say, size

_EXITS = {"corruption": CORRUPT, "torn_tail": NEGATIVE, "bad_checkpoint": NEGATIVE, "stray": FINE}
_ADVICE = {
    "corruption": "what was durable is damaged; nothing was changed: copy the directory before "
    "anything else; what the next open makes of it: journal-inspect info {path}",
    "torn_tail": "a crash left a torn tail, nothing acknowledged was in it; the next open leaves "
    "it behind",
    "bad_checkpoint": "a checkpoint does not verify; an open takes an older one, or the log",
    "stray": "files that an open does not read",
}


def show_findings(reader: JournalReader, form: Format) -> int:
    kinds: Counter[str] = Counter()
    lost_lsns: list[int] = []

    def findings() -> Iterator[Finding]:
        for finding in reader.verify():
            kinds[finding.kind] += 1
            if finding.kind == "corruption" and finding.lsn:
                lost_lsns.append(finding.lsn)
            yield finding

    found: list[JSON] = []
    if form == "text":
        put_lines(map(_line, findings()))
    elif form == "jsonl":
        put_objects(map(as_object, findings()), form)
    else:
        found = list(map(as_object, findings()))
    last_good_lsn = min(lost_lsns) - 1 if lost_lsns else reader.last_lsn
    if form == "text":
        what = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no findings"
        print(f"last good LSN {last_good_lsn}; {what}")
    else:
        summary = versioned(kind="summary", path=reader.path, last_good_lsn=last_good_lsn)
        summary["counts"] = {kind: kinds[kind] for kind in _EXITS}
        print(dumps(summary | {"findings": found} if form == "json" else summary))
    for kind in kinds:
        say(f"{reader.path}: {_ADVICE[kind].format(path=reader.path)}")
    return max((_EXITS[kind] for kind in kinds), default=FINE)


def _line(finding: Finding) -> str:
    kind = painted(finding.kind, f"{finding.kind:<14}")
    place = (
        f"{finding.path}: offset {finding.offset}, LSN {finding.lsn}, {size(finding.size_bytes)}"
    )
    return f"{kind}  {escaped(f'{place}: {finding.message}')}"
