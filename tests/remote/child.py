"""A worker or a manager of a fleet, to be killed at any moment: python -m tests.remote.child."""

from __future__ import annotations

import asyncio
import sys

from manager import WorkContext, serve


async def quick(context: WorkContext) -> str:
    return f"{context.agent.name} by {context.agent.lease and context.agent.lease['worker']}"


async def slow(context: WorkContext) -> str:
    await context.checkpoint("began")
    await asyncio.sleep(3600)
    return "never"


async def main(url: str, name: str) -> None:
    await serve(url, {"quick": quick, "slow": slow}, slots=2, name=name)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
