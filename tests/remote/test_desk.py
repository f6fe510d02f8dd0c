"""The manager's side of the protocol: what it answers, when, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import DispatchError
from manager._remote import messages
from manager._remote.courier import Courier
from manager._remote.desk import StaleError
from manager._remote.messages import Body
from tests.remote.fleets import FLEET, LEASE_S, World, echo, forever, queue
from tests.remote.network import run_virtually

WORKER = "gpu1.a1"


def run(body: Callable[[World], Awaitable[object]]) -> None:
    async def main() -> None:
        world = World()
        await world.open()
        try:
            await body(world)
        finally:
            await world.close()

    run_virtually(main())


def request(world: World, **fields: Any) -> Body:
    journal_id = world.manager._state.journal.journal_id
    stamp = {"worker": WORKER, "journal": journal_id, "epoch": 0}
    return {**messages.versions(), **stamp, **fields}


def next_request(world: World, number: int = 1, **fields: Any) -> Body:
    some = {"types": ["t"], "queues": ["default"], "slots": 1, "wait_s": 0, "held": []}
    return request(world, number=number, **{**some, **fields})


async def ask(world: World, verb: str, body: Body, worker: str = WORKER) -> Body:
    answer = await world.desk.answer(verb, worker, messages.pack(body))
    assert answer is not None
    return messages.unpack(answer)


async def granted(world: World) -> list[Any]:
    [grant] = (await ask(world, "next", next_request(world)))["grants"]
    return [*grant["lease"]]


def report(world: World, lease: list[Any], kind: str, **body: Any) -> Body:
    return request(world, lease=lease, sequence=1, kind=kind, body=body)


def test_answers_come_after_durability() -> None:
    """No start, no report and no stop is answered before its records can't be lost."""

    async def body(world: World) -> None:
        settled: list[int] = []
        gate = asyncio.Event()
        settle = world.desk.settle

        async def slowly(lsn: int) -> None:
            await gate.wait()
            await settle(lsn)
            settled.append(lsn)

        world.desk.settle = slowly
        ref = queue(world, "a")

        async def is_held_back(verb: str, body: Body, for_s: float = LEASE_S / 4) -> Body:
            gate.clear()
            asked = asyncio.create_task(ask(world, verb, body))
            await asyncio.sleep(for_s)
            assert not asked.done()
            gate.set()
            answer = await asked
            assert settled[-1] >= world.manager.get(ref).lsn
            return answer

        # A lease does not end before its worker could hear of it.
        answer = await is_held_back("next", next_request(world), 2 * LEASE_S)
        [grant] = answer["grants"]
        held = [grant["lease"]]
        await is_held_back("report", report(world, held[0], "checkpoint", value=1, steps_taken=1))
        world.manager.cancel(ref)
        assert (await is_held_back("beat", request(world, held=held)))["stop"] == held
        again = report(world, held[0], "checkpoint", value=1, steps_taken=1)
        assert (await is_held_back("report", again))["outcome"] == "recorded"

    run(body)


def test_a_stale_manager_is_fenced_on_both_sides() -> None:
    """A manager that hears of a higher epoch of its journal ends, and a worker that has heard a
    higher epoch ignores the answers of a lower one."""

    async def body(world: World) -> None:
        epoch = world.manager._state.journal.epoch
        newer = request(world, held=[], epoch=epoch + 1)
        with pytest.raises(StaleError, match=f"has seen epoch {epoch + 1}"):
            await ask(world, "beat", newer)
        other = request(world, held=[], epoch=epoch + 1, journal="0" * 32)
        assert (await ask(world, "beat", other))["stop"] == []
        subject = f"{FLEET}.manager.beat.{WORKER}"
        handler = world.network.service(subject)
        assert handler is not None
        handler[0](subject, messages.pack(newer), handler[1].answerer(lambda data: None))
        with pytest.raises(DispatchError, match="a newer manager has taken over"):
            await world._serving
        # It answers nobody any more.
        handler[0](subject, messages.pack(newer), handler[1].answerer(lambda data: None))
        assert world._serving.done()

    async def main() -> None:
        world = World()
        await world.open()
        await body(world)
        world.manager.close()

    run_virtually(main())


def test_a_worker_obeys_no_lower_epoch() -> None:
    """A worker takes no agent and no order from a manager whose epoch is lower than one it heard
    from that journal, nor from one of another journal while it has agents."""

    async def body(world: World) -> None:
        worker = world.work({"t": forever})
        queue(world, "a")
        while world.manager.get("a").checkpoint is None:
            await asyncio.sleep(0.1)
        courier = world._workers[worker][2]._courier
        stamp = world.desk.stamped({})
        assert courier.heeds(stamp)
        assert courier.heeds({**stamp, "epoch": 9})
        assert not courier.heeds({**stamp, "epoch": 8})
        assert not courier.heeds({**stamp, "epoch": 9, "journal": "other"})
        await world.kill(worker)
        courier = Courier(world.link, FLEET, worker, is_free=lambda: True)
        for journal, epoch, is_heeded in (("a", 9, 1), ("b", 1, 1), ("a", 8, 0), ("a", 9, 1)):
            seen = {**stamp, "journal": journal, "epoch": epoch}
            assert courier.heeds(seen) == bool(is_heeded), seen

    run(body)


def test_a_report_of_another_worker_s_lease_is_over() -> None:
    """A worker can neither report for a lease of a worker with another name, nor keep it alive."""

    async def body(world: World) -> None:
        ref = queue(world, "a")
        lease = await granted(world)
        before = world.manager.get(ref)
        hostile = {**report(world, lease, "result", result="forged"), "worker": "evil.a1"}
        assert (await ask(world, "report", hostile, "evil.a1"))["outcome"] == "over"
        held = {**request(world, held=[lease]), "worker": "evil.a1"}
        assert (await ask(world, "beat", held, "evil.a1"))["stop"] == [lease]
        assert world.manager.get(ref) == before
        with_id = await ask(world, "report", hostile, WORKER)
        assert with_id["error"] == "malformed"
        sibling = {**report(world, lease, "result", result="done"), "worker": "gpu1.b2"}
        assert (await ask(world, "report", sibling, "gpu1.b2"))["outcome"] == "recorded"

    run(body)


def test_a_lost_answer_is_given_again() -> None:
    """A start whose answer was lost is in the answer to the worker's next request, and a request
    that comes late gets nothing."""

    async def body(world: World) -> None:
        queue(world, "a")
        queue(world, "b")
        lease = await granted(world)
        [again] = (await ask(world, "next", next_request(world, 2)))["grants"]
        assert again["lease"] == lease
        late = messages.pack(next_request(world, 1))
        assert await world.desk.answer("next", WORKER, late) is None
        assert world.manager.get("b").status == "queued"
        known = next_request(world, 3, held=[lease])
        [other] = (await ask(world, "next", known))["grants"]
        assert other["agent"]["name"] == "b"

    run(body)


def test_an_answer_is_never_larger_than_a_message() -> None:
    """Many agents, and those of answers that were lost, come in several answers if one message
    can't carry them."""

    async def body(world: World) -> None:
        for number in range(90):
            queue(world, f"a{number}", metadata={"text": "x" * 26_000})
        held: list[Any] = []
        for number in range(1, 100):
            asked = next_request(world, number, slots=60, held=held)
            answer = await world.desk.answer("next", WORKER, messages.pack(asked))
            assert answer is not None
            assert len(answer) <= world.link.message_bytes_max
            if number % 2 == 0:  # the others are lost
                held += [grant["lease"] for grant in messages.unpack(answer)["grants"]]
            if len(held) == 90:
                break
        assert world.manager.counts()["running"] == len(held) == 90
        answer = await world.desk.answer(
            "next", WORKER, messages.pack(asked | {"number": 100, "held": []})
        )
        assert answer is not None
        assert len(answer) <= world.link.message_bytes_max

    run(body)


def test_an_agent_that_is_removed_meanwhile_does_no_harm() -> None:
    """A request is answered although an agent is removed between its selection and its start, or
    between the check of its lease and the note that its worker lives."""

    async def body(world: World) -> None:
        def remove(ref: str) -> None:
            world.manager.cancel(ref)
            world.manager.prune(ref)

        gone = queue(world, "gone")
        supply = world.desk._supply
        candidates = supply.candidates

        def removing(*arguments: Any) -> Iterator[str]:
            for agent_id in [*candidates(*arguments)]:
                if agent_id == gone:
                    remove(gone)
                yield agent_id

        supply.candidates = removing  # type: ignore[assignment,method-assign]
        queue(world, "a")
        lease = await granted(world)
        assert world.manager.get("a").status == "running"
        held = world.desk._leasing.held

        def and_remove(*arguments: Any) -> Any:
            found = held(*arguments)
            remove("a")
            return found

        world.desk._leasing.held = and_remove  # type: ignore[assignment,method-assign]
        assert (await ask(world, "beat", request(world, held=[lease])))["stop"] == []

    run(body)


def test_a_start_that_was_never_confirmed_is_no_loss() -> None:
    """A lease of which its worker has never heard ends early, and does not count as lost."""

    async def body(world: World) -> None:
        ref = queue(world, "a")
        await granted(world)
        await asyncio.sleep(LEASE_S / 2)
        agent = world.manager.get(ref)
        assert agent.lease is not None
        assert (agent.status, agent.lease["lost"]) == ("interrupted", 0)
        lease = await granted_again(world)
        await ask(world, "beat", request(world, held=[lease]))
        await asyncio.sleep(1.2 * LEASE_S)
        agent = world.manager.get(ref)
        assert agent.lease is not None
        assert (agent.status, agent.lease["lost"]) == ("interrupted", 1)

    async def granted_again(world: World) -> list[Any]:
        [grant] = (await ask(world, "next", next_request(world, 2)))["grants"]
        return [*grant["lease"]]

    run(body)


def test_a_manager_that_heard_nobody_ends_no_lease() -> None:
    """A manager that was stopped, or that can't reach the servers, gives all leases their whole
    time again, also if its connection seems to be open."""

    async def body(world: World) -> None:
        ref = queue(world, "a")
        lease = await granted(world)
        await ask(world, "beat", request(world, held=[lease]))
        loop: Any = asyncio.get_running_loop()
        loop._now_s += 10 * LEASE_S  # the process was stopped
        await asyncio.sleep(0.9 * LEASE_S)
        assert world.manager.get(ref).status == "running"
        world.link.is_silent = True
        await asyncio.sleep(3 * LEASE_S)
        assert world.manager.get(ref).status == "running"
        world.link.is_silent = False
        await asyncio.sleep(1.2 * LEASE_S)
        assert world.manager.get(ref).status == "interrupted"

    run(body)


def test_versions_without_overlap_are_refused() -> None:
    """A request is refused if both sides speak no version in common, and the worker ends with an
    error that names the versions of both. Otherwise they speak the lower one."""

    async def body(world: World) -> None:
        newer = request(world, held=[], version=9, version_min=1)
        assert "stop" in await ask(world, "beat", newer)
        only_newer = request(world, held=[], version=9, version_min=8)
        answer = await ask(world, "beat", only_newer)
        assert answer["error"] == "version"
        assert "speaks versions 8 to 9 of the protocol, and this program 1 to 1" in answer["text"]
        worker = world.work({"t": echo})
        await asyncio.sleep(1)
        courier = world._workers[worker][2]._courier
        with pytest.raises(DispatchError, match="speaks versions 8 to 9"):
            courier.heeds(world.desk.stamped({}) | {"version": 9, "version_min": 8})

    run(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**63) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)
verbs = st.sampled_from([*messages.VERBS, "stop", ""])


@given(verbs, st.binary(max_size=99) | st.dictionaries(st.text(max_size=9), values), st.data())
def test_a_hostile_request_changes_nothing(verb: str, drawn: Any, data: st.DataObject) -> None:
    """Whatever a worker sends, it gets an answer or none, and no agent of others changes."""

    async def body(world: World) -> None:
        ref = queue(world, "a", agent_type="other")
        world.manager.start(ref)
        before = world.manager.get(ref)
        requests = [
            next_request(world, 7, running=0),
            request(world, held=[["agent_1", 1, 2]]),
            report(world, [ref, 1, before.lsn], "result", result="forged"),
            report(world, [ref, 1, before.lsn], "checkpoint", value=1, steps_taken=2),
        ]
        answer = await world.desk.answer(verb, WORKER, as_bytes(drawn))
        assert answer is None or messages.unpack(answer)
        for whole in requests:
            field = data.draw(st.sampled_from(sorted(whole)))
            changed = as_bytes({**whole, field: data.draw(values)})
            for each in messages.VERBS:
                try:
                    answer = await world.desk.answer(each, WORKER, changed)
                except StaleError:
                    assert field == "epoch"
                assert answer is None or messages.unpack(answer)
        assert world.manager.get(ref) == before

    run(body)


def test_a_machine_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on a machine whose name is not UTF-8 runs agents."""
    monkeypatch.setattr("socket.gethostname", lambda: "gpu\udcff")

    async def body(world: World) -> None:
        worker = world.work({"t": echo})
        queue(world, "a")
        assert (await world.ended("a", 60)).status == "completed"
        assert world.desk.roster[worker].machine == "gpu?"

    run(body)


def as_bytes(drawn: bytes | Body) -> bytes:
    return drawn if isinstance(drawn, bytes) else messages.pack(drawn)


def test_a_machine_s_name_is_bounded() -> None:
    """A worker may tell the name of its machine, which is cut, and an older one tells none. Signs
    of life are those of the workers that were heard."""

    async def body(world: World) -> None:
        workers = world.manager._workers
        assert workers is not None
        for machine in ({}, {"machine": "x" * 100_000}):
            await ask(world, "beat", request(world, held=[], **machine))
            await asyncio.sleep(2)
            [(worker, name, silent_s)] = await workers.signs([WORKER, "gpu9.b1"])
            assert (worker, name) == (WORKER, str(machine.get("machine", ""))[:255])
            assert silent_s == pytest.approx(2, abs=0.1)
        answer = await ask(world, "beat", request(world, held=[], machine=7))
        assert answer["error"] == "malformed"
        for wrong in (7, [7], "gpu1.a1"):
            with pytest.raises((TypeError, ValueError)):
                await workers.signs(wrong)  # type: ignore[arg-type]

    run(body)
