"""journal-inspect follow and mirror: on mirrors in a directory."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from journal_inspect.exits import explain

from journal import (
    DurableDict,
    Journal,
    JournalReader,
    Mirror,
    MirrorError,
    MirrorReason,
    Options,
)
from tests.inspect.inspect_support import COMMAND, TIMEOUT_S, ask, check_refused, environment
from tests.inspect.test_inspect_schemas import validate


def mirror_at(place: Path) -> Mirror:
    return Mirror(f"file://{place}/mirror", interval_s=0.01)


def write(place: Path, application: str = "") -> Path:
    """Write a mirrored journal, and return its directory."""
    options = Options(application=application)
    with Journal.open(place / "j", options=options, mirror=mirror_at(place)) as journal:
        for number in range(3):
            journal.append(number)
    return place / "j"


def forked(place: Path, application: str = "") -> Path:
    """Make a fork and put it aside. Return the directory that was put aside."""
    path = write(place, application=application)
    shutil.copytree(path, place / "old")
    write(place, application=application)
    shutil.rmtree(path)
    (place / "old").rename(path)
    options = Options(application=application)
    with Journal.open(path, options=options, mirror=False) as journal:
        journal.append("own")
        journal.append("mine")
    Journal.open(path, options=options, mirror=mirror_at(place)).close()
    (aside,) = place.glob("j.aside-*")
    return aside


# --- follow ---


def test_a_directory_follows_a_mirror(tmp_path: Path) -> None:
    """The directory gets every record, in each format, and the next call goes on from there."""
    write(tmp_path)
    url = mirror_at(tmp_path).url
    text = ask("follow", url, tmp_path / "b", "--until-lsn", "3")
    assert (text.code, text.out.split(",")[0]) == (0, "LSN 3")
    assert f"follows {url}" in text.err
    write(tmp_path)
    for form in ("json", "jsonl"):
        answer = ask("follow", url, tmp_path / "b", "--until-lsn", "6", "-o", form)
        validate("follow", answer)
        (line,) = answer.jsonl
        assert (line["lsn"], line["path"], line["url"]) == (6, str(tmp_path / "b"), url)
    assert JournalReader.open(tmp_path / "b").last_lsn == 6


def test_following_ends_at_its_time_limit(tmp_path: Path) -> None:
    """A record that does not come in time is exit code 124."""
    write(tmp_path)
    answer = ask(
        "follow", mirror_at(tmp_path).url, tmp_path / "b", "--until-lsn", "9", "--timeout-s", "0.1"
    )
    assert answer.code == 124
    assert "timed out at LSN 3" in answer.err


def test_a_signal_ends_following(tmp_path: Path) -> None:
    """SIGTERM ends it with 143, and the directory can be opened at once."""
    write(tmp_path)
    command = [*COMMAND, "follow", mirror_at(tmp_path).url, str(tmp_path / "b")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("LSN 3,")
        assert ask("info", tmp_path / "b").code == 0
        child.send_signal(signal.SIGTERM)
        assert child.wait(TIMEOUT_S) == 143
    with Journal.open(tmp_path / "b", mirror=mirror_at(tmp_path)) as journal:
        assert journal.last_lsn == 3


def test_a_mirror_that_cant_be_followed_is_refused(tmp_path: Path) -> None:
    """A bad address is wrong usage. A damaged mirror is corruption, and a directory in use is
    locked."""
    path = write(tmp_path)
    url = mirror_at(tmp_path).url
    assert ask("follow", "ftp://x/y", tmp_path / "b").code == 2
    check_refused(ask("follow", f"file://{tmp_path}/no", tmp_path / "b"), 4, "check the address")
    with Journal.open(path, mirror=mirror_at(tmp_path)):
        check_refused(ask("follow", url, path), 5, "locked by")
    entries = sorted((tmp_path / "mirror").glob("entry-*"))
    entries[-1].write_bytes(b"hello")
    check_refused(ask("follow", url, tmp_path / "b"), 3, "something else wrote it")


def test_what_the_mirror_lacks_is_put_aside_on_request(tmp_path: Path) -> None:
    """A former writer's directory follows only with --put-aside, if it has records of its own."""
    path = write(tmp_path)
    with Journal.open(path, mirror=False) as journal:
        journal.append("own")
    command = ("follow", mirror_at(tmp_path).url, path, "--until-lsn", "3")
    check_refused(ask(*command), 4, "has records that the mirror lacks")
    answer = ask(*command, "--put-aside")
    assert (answer.code, f"{path}.aside-2" in answer.err) == (0, True)
    assert ask("mirror", "reappend", f"{path}.aside-2", "-o", "json").json["records"] == 1


def test_a_mirror_that_does_not_answer_is_explained() -> None:
    """The message says that the command may be repeated."""
    error = MirrorError("nats://h/S", "connect: no answer", reason=MirrorReason.UNREACHABLE)
    step = "fix that, then try again"
    assert explain(error) == (4, f"nats://h/S: connect: no answer; {step}")


# --- mirror reappend ---


def test_a_fork_is_appended_again(tmp_path: Path) -> None:
    """The records that no mirror has are shown first, and appended only on request, once."""
    aside = forked(tmp_path)
    for form in ("json", "jsonl"):
        answer = ask("mirror", "reappend", aside, "-o", form)
        validate("mirror-reappend", answer)
        assert answer.json["records"] == 2
        assert answer.json["appended_last_lsn"] is None
    assert (
        f"journal-inspect mirror reappend {aside} --apply" in ask("mirror", "reappend", aside).err
    )
    assert JournalReader.open(tmp_path / "j").last_lsn == 6
    for _ in range(2):
        answer = ask("mirror", "reappend", aside, "--apply")
        assert answer.code == 0
        assert "yes, as LSN 7 to 8" in answer.out.replace("  ", " ")
    with JournalReader.open(tmp_path / "j") as reader:
        assert [each.record for each in reader.entries(6) if not each.is_filler] == ["own", "mine"]
    validate("mirror-reappend", ask("mirror", "reappend", aside, "-o", "json"))
    assert ask("mirror", "reappend", tmp_path / "j").code == 4


def test_an_application_must_be_named(tmp_path: Path) -> None:
    """Records of a state machine are appended only if its application is named, because its state
    may refuse them. Tables take them."""
    aside = forked(tmp_path, application="mine/1")
    refused = ask("mirror", "reappend", aside, "--apply")
    check_refused(refused, 4, "application 'mine/1'", "--application mine/1")
    other = ask("mirror", "reappend", aside, "--apply", "--application", "other")
    check_refused(other, 4, "application 'mine/1'")
    assert ask("mirror", "reappend", aside, "--apply", "--application", "mine/1").code == 0


def test_a_fork_of_tables_is_appended_again(tmp_path: Path) -> None:
    """The changes of a fork of a dict are in it again."""
    mirror = mirror_at(tmp_path)
    with DurableDict.open(tmp_path / "j", mirror=mirror) as table:
        table["a"] = 1
    shutil.copytree(tmp_path / "j", tmp_path / "old")
    with DurableDict.open(tmp_path / "j", mirror=mirror) as table:
        table["b"] = 2
    shutil.rmtree(tmp_path / "j")
    (tmp_path / "old").rename(tmp_path / "j")
    with DurableDict.open(tmp_path / "j", mirror=False) as table:
        table["c"] = 3
    DurableDict.open(tmp_path / "j", mirror=mirror).close()
    (aside,) = tmp_path.glob("j.aside-*")
    answer = ask("mirror", "reappend", aside, "--apply", "--mirror", mirror.url)
    assert answer.code == 0, answer.err
    with DurableDict.open(tmp_path / "j", mirror=mirror) as table:
        assert dict(table) == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("is_of_tables", [False, True])
def test_records_behind_damage_are_appended_again(is_of_tables: bool, tmp_path: Path) -> None:
    """If a record of a fork is damaged, none is appended. The command that the message names keeps
    those that can be read, also behind the damage."""
    opens = DurableDict.open if is_of_tables else Journal.open
    opens(tmp_path / "j", mirror=mirror_at(tmp_path)).close()
    with opens(tmp_path / "j", mirror=False) as own:
        for key in ("one", "damaged", "two"):
            if isinstance(own, DurableDict):
                own[key] = key
                own.sync()
            else:
                own.append_and_wait(key)
    with opens(tmp_path / "other", mirror=mirror_at(tmp_path)) as other:
        if isinstance(other, DurableDict):
            other["other"] = "other"
        else:
            other.append("other")
    opens(tmp_path / "j", mirror=mirror_at(tmp_path)).close()
    (aside,) = tmp_path.glob("j.aside-*")
    segment = max(aside.glob("*.seg"))
    segment.write_bytes(segment.read_bytes().replace(b"damaged", b"DAMAGED"))
    refused = ask("mirror", "reappend", aside, "--apply")
    check_refused(refused, 3, f"{segment}: offset ")
    (step,) = re.findall(r"journal-inspect (repair .*), and repeat", refused.err)
    assert ask(*step.split()).code == 0
    assert ask("mirror", "reappend", aside, "--apply").code == 0
    with JournalReader.open(tmp_path / "j") as reader:
        found = str([entry.record for entry in reader.entries(1)])
    assert [key in found for key in ("one", "two")] == [True, True]


@pytest.mark.parametrize("options", [("--takeover",), ()])
def test_a_held_mirror_needs_a_takeover(options: tuple[str, ...], tmp_path: Path) -> None:
    """While another writer holds the mirror, nothing is appended, unless it is taken over."""
    aside = forked(tmp_path)
    with Journal.open(tmp_path / "k", mirror=mirror_at(tmp_path)) as journal:
        journal.wait_mirrored()
        answer = ask("mirror", "reappend", aside, "--apply", *options)
        if options:
            assert answer.code == 0
        else:
            check_refused(answer, 5, "holds its mirror")
        held = not options
        try:
            journal.close()
        except Exception:
            assert not held


# --- repair ---


@pytest.mark.parametrize("apply", [(), ("--apply",)])
def test_a_mirrored_journal_is_not_cut(apply: tuple[str, ...], tmp_path: Path) -> None:
    """--cut-at is refused while the journal has a mirror, and the message names a restore."""
    path = write(tmp_path)
    answer = ask("repair", path, "--cut-at", "1", *apply)
    check_refused(answer, 4, "nothing was changed", "journal-inspect restore URL DIR --lsn 1, or")
    assert ask("repair", path, *apply).code == 0


# --- restore, mirror list, mirror verify ---


def test_a_mirror_is_restored(tmp_path: Path) -> None:
    """A directory is made as of the end of the mirror, an LSN or a time, and verified."""
    write(tmp_path)
    with Journal.open(tmp_path / "j", mirror=mirror_at(tmp_path)) as journal:
        for number in range(3):
            journal.wait_durable(journal.append(number))
    url = mirror_at(tmp_path).url
    text = ask("restore", url, tmp_path / "text")
    assert (text.code, "up to LSN    6" in text.out) == (0, True)
    for form, *options in (("json",), ("jsonl", "--lsn", "5"), ("json", "--at", "now", "--utc")):
        answer = ask("restore", url, tmp_path / "-".join((form, *options)), "-o", form, *options)
        validate("restore", answer)
        assert answer.json["lsn"] == (5 if "5" in options else 6)
    empty = ask("restore", url, tmp_path / "empty", "--lsn", "0", "-o", "json")
    assert (empty.code, empty.json["lsn"]) == (0, 0)
    assert "needs a new mirror" in ask("restore", url, tmp_path / "x", "--lsn", "5").err
    check_refused(ask("restore", url, tmp_path / "x"), 4, "already exists")
    assert ask("restore", url, tmp_path / "y", "--lsn", "1", "--at", "now").code == 2
    assert ask("restore", "ftp://x/y", tmp_path / "y").code == 2
    check_refused(ask("restore", url, tmp_path / "y", "--lsn", "99"), 1, "99")
    assert not (tmp_path / "y").exists()


def test_a_mirror_is_listed(tmp_path: Path) -> None:
    """The list has the LSNs that can be restored, and the writer, also while that holds it."""
    write(tmp_path)
    url = mirror_at(tmp_path).url
    for form in ("json", "jsonl"):
        answer = ask("mirror", "list", url, "-o", form)
        validate("mirror-list", answer)
        found = answer.json
        assert (found["first_lsn"], found["last_lsn"], found["held"]) == (1, 3, False)
    with Journal.open(tmp_path / "j", mirror=mirror_at(tmp_path)):
        text = ask("mirror", "list", url, "--utc")
    assert (text.code, "yes: another writer has to take over" in text.out) == (0, True)
    for verb in ("list", "verify"):
        missing = ask("mirror", verb, f"file://{tmp_path}/none")
        check_refused(missing, 4, "no mirror of a journal here; check the address")
    assert ask("mirror", "list", "ftp://x/y").code == 2


def test_a_mirror_is_verified(tmp_path: Path) -> None:
    """A whole mirror has no findings. Damage is exit code 3, in each format."""
    write(tmp_path)
    url = mirror_at(tmp_path).url
    assert ask("mirror", "verify", url).out == "no findings\n"
    assert ask("mirror", "verify", url, "--no-probe", "-o", "json").json["findings"] == []
    entries = sorted((tmp_path / "mirror").glob("entry-*"))
    entries[1].write_bytes(b"hello")
    answer = ask("mirror", "verify", url, "-o", "json")
    assert answer.code == 3
    validate("mirror-verify", replace(answer, code=0))
    *lines, last = ask("mirror", "verify", url, "-o", "jsonl").jsonl
    assert (lines, last["findings_count"]) == (answer.json["findings"], len(lines))
    text = ask("mirror", "verify", url)
    assert "something else wrote it" in text.out
    assert "the mirror is damaged" in text.err
    command = f"to see all damage, run: journal-inspect mirror verify {url}"
    check_refused(ask("restore", url, tmp_path / "r"), 3, "something else wrote it", command)
    assert not (tmp_path / "r").exists()
    check_refused(ask("follow", url, tmp_path / "f"), 3, "something else wrote it", command)
    assert ask("mirror", "verify", "ftp://x/y").code == 2


def test_a_time_before_the_first_record_is_refused(tmp_path: Path) -> None:
    """The message states the time that was asked for, and that of the first record."""
    write(tmp_path)
    answer = ask("restore", mirror_at(tmp_path).url, tmp_path / "r", "--at", "2001-02-03T04:05:06Z")
    text = "2001-02-03 04:05:06 UTC can't be restored: the first record was written later, at 2"
    check_refused(answer, 1, text)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("verb", [("mirror", "list"), ("mirror", "verify"), ("restore",)])
def test_verbs_that_read_a_mirror_make_no_directory(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """At an address without a mirror, a verb says so, and leaves nothing behind. Nor does it change
    the mode of a directory."""
    dest = [str(tmp_path / "dest")] * (verb == ("restore",))
    missing = tmp_path / "missing"
    check_refused(
        ask(*verb, f"file://{missing}", *dest), 4, f"file://{missing}: there is no mirror"
    )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir(mode=0o755)
    check_refused(ask(*verb, f"file://{tmp_path}/empty", *dest), 4, "there is no mirror")
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o755
