"""Messages: the requests of workers and the answers of their manager, as bytes and back.

A request and an answer are msgpack maps. What comes from the network may be anything, so each field
is checked before it is used. An unknown field is ignored, so that a newer version may add some.

| verb | request | answer |
|---|---|---|
| next | number, types, queues, slots, wait_s, held, running | grants, each an agent and its token |
| beat | held | stop: the agents of `held` that the worker should stop |
| report | agent_id, token, sequence, kind, body | outcome: recorded, over or refused |

The manager's requests to a worker:

| verb | request | answer |
|---|---|---|
| stop | stop: the leases that are over | none |
| output | agent_id, start, stream, position | is_known, position, data |
| forget | agent_ids: agents that were removed, whose files are removed | nothing |

An answer to the last two may be an error. A manager asks others of its fleet, too:

| verb | request | answer |
|---|---|---|
| claim | manager, machine, served_s | the same of one that goes on, so that the asking one ends |

`held` lists the leases that the worker knows, as [agent_id, epoch, lsn], and `running` is the
number of agents that run there. While it is not 0, the worker obeys only its own journal. Each
request has the worker's id, machine and journal, the versions that it speaks and the highest epoch
that it has seen. Each answer has the version that both speak, and the manager's journal and epoch.
`served_s` is None for a manager that does not serve yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import msgpack

from manager.agent import FIELDS, JSON, Agent
from manager.leasing import Token

VERSION = 1
"""The newest version of the protocol that this program speaks."""

VERSION_MIN = 1
"""The oldest version of the protocol that this program speaks."""

VERBS = ("next", "beat", "report")
Body = dict[str, Any]
LEASE_S_MAX = 86_400.0
"""The longest time of a lease, in seconds. Workers refuse answers with a longer one."""

_WORKER_BYTES_MAX = 128
_LIST_MAX = 10_000


class MessageError(ValueError):
    """A message is not one of this protocol."""


class VersionError(MessageError):
    """The two sides speak no version of the protocol in common."""


class Lease(NamedTuple):
    """An agent's id and the token of its lease."""

    agent_id: str
    token: Token

    @classmethod
    def of(cls, value: object) -> Lease:
        """Return the lease in a message. Raises MessageError."""
        if type(value) is not list or len(value) != 3:
            raise MessageError("a lease is not a list of three values")
        return cls(text(value[0], "agent_id"), Token(whole(value[1]), whole(value[2])))

    @property
    def message(self) -> list[JSON]:
        """The lease as it is in a message."""
        return [self.agent_id, *self.token]


def pack(body: Mapping[str, Any]) -> bytes:
    """Return the bytes of a message. Raises TypeError or ValueError for a value that no message can
    carry."""
    try:
        packed: bytes = msgpack.packb(body)
    except OverflowError:
        raise ValueError("an integer does not fit in 64 bits") from None
    return packed


def unpack(data: bytes) -> Body:
    """Return the fields of a message. Raises MessageError."""
    try:
        body = msgpack.unpackb(data, strict_map_key=True)
    except Exception as error:
        raise MessageError(f"not a message: {error!s:.100}") from None
    if type(body) is not dict or not all(type(key) is str for key in body):
        raise MessageError("not a map with strings as keys")
    return body


def common_version(body: Body) -> int:
    """Return the newest version that both sides speak. Raises VersionError."""
    newest, oldest = whole(body.get("version")), whole(body.get("version_min"))
    version = min(newest, VERSION)
    if version < max(oldest, VERSION_MIN):
        raise VersionError(
            f"speaks versions {oldest} to {newest} of the protocol, and this program "
            f"{VERSION_MIN} to {VERSION}; update the older one"
        )
    return version


def versions() -> Body:
    """Return the fields that state which versions this program speaks."""
    return {"version": VERSION, "version_min": VERSION_MIN}


def agent_body(agent: Agent) -> Body:
    """Return an agent as a message has it."""
    body: Body = {name: getattr(agent, name) for name in FIELDS}
    tools = agent.allowed_tools
    return body | {"allowed_tools": None if tools is None else list(tools)}


def agent_of(body: object) -> Agent:
    """Return the agent in a message. Raises MessageError."""
    if type(body) is not dict or not all(type(body.get(name)) is str for name in _TEXTS):
        _refuse("an agent lacks a text")
    known = {name: body[name] for name in FIELDS if name in body}
    if (tools := known.get("allowed_tools")) is not None:
        known["allowed_tools"] = tuple(texts(tools, "allowed_tools"))
    if type(known.get("metadata")) is not dict:
        _refuse("the metadata of an agent are not a map")
    try:
        return Agent(**known, from_prior_session=False)
    except TypeError as error:
        raise MessageError(f"not an agent: {error!s:.100}") from None


def text(value: object, name: str) -> str:
    """Return a text in a message. Raises MessageError."""
    if type(value) is not str:
        _refuse(f"{name} is not a string")
    return value


def texts(value: object, name: str) -> list[str]:
    """Return a list of texts in a message. Raises MessageError."""
    return [text(item, name) for item in items(value, name)]


def items(value: object, name: str) -> list[Any]:
    """Return a list in a message, of at most 10,000 items. Raises MessageError."""
    if type(value) is not list or len(value) > _LIST_MAX:
        _refuse(f"{name} is not a list of at most {_LIST_MAX} items")
    return value


def whole(value: object, *, low: int = 0) -> int:
    """Return a whole number in a message. Raises MessageError."""
    if type(value) is not int or not low <= value < 1 << 64:
        _refuse("a number is missing, or is not whole")
    return value


def seconds(value: object, high_s: float) -> float:
    """Return a duration in a message, at most `high_s`. Raises MessageError."""
    if type(value) not in (int, float) or not 0 <= value <= high_s:  # type: ignore[operator]
        _refuse(f"a duration is not from 0 to {high_s:g} s")
    return float(value)  # type: ignore[arg-type]


def worker_id(name: str, own: str) -> str:
    """Return the id of a worker, whose credential has the name `name`. Raises ValueError."""
    for part in (name, own):
        if not part or not part.isascii() or not part.replace("-", "").replace("_", "").isalnum():
            raise ValueError(
                f"the name of a worker has only letters, digits, - and _, unlike {part[:80]!r}"
            )
    if len(name) + len(own) >= _WORKER_BYTES_MAX:
        raise ValueError(f"the name of a worker has at most {_WORKER_BYTES_MAX - 20} characters")
    return f"{name}.{own}"


def name_of(worker: str) -> str:
    """Return the name of a worker's credential from the worker's id."""
    return worker.rpartition(".")[0]


def _refuse(what: str) -> NoReturn:
    raise MessageError(what)


_TEXTS = ("agent_id", "name", "agent_type", "prompt", "status", "boot_id")
