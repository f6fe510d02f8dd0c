"""A stream or its bucket that was deleted or damaged beside the mirror."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from proof.servers import with_jetstream

from journal._mirror.blobs import RollUpName, encode_blob, read_blob
from journal._mirror.entry import ROLL_UP, MirrorDamageError, MirrorEntry, Piece
from journal._mirror.store import LostError, RefusedError, Store
from journal._mirror.urls import open_store
from tests.mirror.servers import make_stream
from tests.mirror.world import SEGMENT

NAME = RollUpName(3, 1)
HEADER = MirrorEntry(ROLL_UP, 3, 1, b"n" * 8, b"", claim_number=1, last_lsn=9, first=1)
Damage = Callable[[Any, str, str], Any]


def opened(address: str, name: str) -> Store:
    make_stream(address, name)
    return open_store(f"nats://{address}/{name}", timeout_s=5)


async def lose_all(stream: Any, bucket: str, subject: str) -> None:
    await stream.purge_stream(f"OBJ_{bucket}", subject=subject)


async def lose_one(stream: Any, bucket: str, subject: str) -> None:
    message = await stream.get_last_msg(f"OBJ_{bucket}", subject)
    await stream.delete_msg(f"OBJ_{bucket}", message.seq)


async def flip_a_bit(stream: Any, bucket: str, subject: str) -> None:
    message = await stream.get_last_msg(f"OBJ_{bucket}", subject)
    await stream.delete_msg(f"OBJ_{bucket}", message.seq)
    await stream.publish(subject, bytes([message.data[0] ^ 1]) + message.data[1:])


@pytest.mark.parametrize("damage", [lose_all, lose_one, flip_a_bit])
def test_a_damaged_blob_of_a_stream_is_damaged(
    damage: Damage, nats_address: str, fresh_name: str
) -> None:
    """A blob that has lost bytes or has others is damaged, and the store counts as reachable."""
    bucket = f"{fresh_name}-blobs"

    async def hurt(stream: Any) -> None:
        info = await (await stream.object_store(bucket)).get_info(str(NAME))
        await damage(stream, bucket, f"$O.{bucket}.C.{info.nuid}")

    with closing(opened(nats_address, fresh_name)) as store:
        parts = list(encode_blob(HEADER, [Piece(SEGMENT, 0, bytes(300_000))]))
        store.put_blob(str(NAME), parts)
        assert sum(len(part.pieces) for part in read_blob(store, NAME)) == 1
        with_jetstream(nats_address, hurt)
        with pytest.raises(MirrorDamageError):
            list(read_blob(store, NAME))


def test_a_bucket_that_is_gone_has_lost_its_blobs(nats_address: str, fresh_name: str) -> None:
    """Nothing more is put into a mirror whose bucket of blobs was deleted."""
    with closing(opened(nats_address, fresh_name)) as store:
        store.put_blob("b", [b"x"])
        with_jetstream(
            nats_address, lambda stream: stream.delete_object_store(f"{fresh_name}-blobs")
        )
        with pytest.raises(LostError, match="the mirror was emptied"):
            store.put_blob("b", [b"x"])


def test_a_list_of_a_stream_that_is_gone_is_refused(nats_address: str, fresh_name: str) -> None:
    """A list states that the stream does not exist, as an open does."""
    with closing(opened(nats_address, fresh_name)) as store:
        store.append(1, b"x")
        with_jetstream(nats_address, lambda stream: stream.delete_stream(fresh_name))
        for call in (store.numbers, store.last):
            with pytest.raises(RefusedError, match="the stream does not exist"):
                call(0)
