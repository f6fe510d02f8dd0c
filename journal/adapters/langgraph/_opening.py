"""SaverOpening: the context manager that `JournalSaver.open` returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from journal import Tables

S = TypeVar("S")
# A put writes a few rows for each channel, and a removal a few hundred at a time.
TRANSACTION_KEYS_MAX = 100_000


class SaverOpening(Generic[S]):
    """An open of a journal, to be used in `with` or in `async with`. It closes the journal, too.

    In `async with`, the journal opens and closes in a thread, and the event loop stays responsive.
    """

    def __init__(self, make: Callable[[Tables], S], path: Any, **options: Any) -> None:
        self._make = make
        arguments = {"transaction_keys_max": TRANSACTION_KEYS_MAX, **options}
        self._open = partial(Tables.open, path, **arguments)
        self._aopen = partial(Tables.aopen, path, **arguments)
        self._tables: Tables | None = None

    def __enter__(self) -> S:
        tables = self._open()
        try:
            made = self._make(tables)
        except BaseException:
            tables.close()
            raise
        self._tables = tables
        return made

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        assert self._tables is not None
        self._tables.__exit__(kind, error, traceback)

    async def __aenter__(self) -> S:
        tables = await self._aopen()
        try:
            made = await asyncio.to_thread(self._make, tables)
        except BaseException:
            await tables.aclose()
            raise
        self._tables = tables
        return made

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        assert self._tables is not None
        await self._tables.__aexit__(kind, error, traceback)
