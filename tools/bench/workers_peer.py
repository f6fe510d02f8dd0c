"""taskiq on Redis, the peer of `python tools/bench workers`: the module that its workers load, and
the client that is measured. It prints its results as JSON.

Tasks are in a stream, so that they outlive their worker as agents do, and results are kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import taskiq_redis

from bench.workers_fleet import WARM

URL = os.environ["BENCH_REDIS_URL"]
_CONNECTIONS = 100
_POLL_S = 0.005

broker = taskiq_redis.RedisStreamBroker(
    URL, max_connection_pool_size=_CONNECTIONS, consumer_id="0"
).with_result_backend(
    taskiq_redis.RedisAsyncResultBackend(
        URL, result_ex_time=3600, max_connection_pool_size=_CONNECTIONS, prefix_str="result"
    )
)


async def nothing() -> str:
    return "done"


TASK = broker.register_task(nothing, task_name="nothing")


async def main(count: int) -> None:
    """Measure the time from the first call to the last result."""
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(URL) as client:
        await broker.startup()

        async def run(number: int) -> None:
            before = await client.dbsize()

            async def send(numbers: range) -> None:
                for _ in numbers:
                    await TASK.kiq()

            step = -(-number // (_CONNECTIONS // 2))
            chunks = [range(first, min(first + step, number)) for first in range(0, number, step)]
            await asyncio.gather(*map(send, chunks))
            while await client.dbsize() - before < number:
                await asyncio.sleep(_POLL_S)

        await run(WARM)
        began_s = time.perf_counter()
        await run(count)
        took_s = time.perf_counter() - began_s
        await broker.shutdown()
    print(json.dumps({"seconds": took_s}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
