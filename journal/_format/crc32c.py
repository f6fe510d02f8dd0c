"""CRC32C: the checksum function of the library `crc32c`, loaded at first use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

from journal._disk.disk import Buffer

_ALONE, BESIDE_OTHERS = 0, -1  # the library's `gil_release_mode`
_ALONE_BYTES_MAX = 4 << 20


@cache
def crc32c() -> Callable[[Buffer, int, int], int]:
    """Return the library's function, which continues a CRC32C over a buffer."""
    # The library is loaded at first use, because a program that only prints its help needs no CRC.
    # A writer loads it while it opens: later, among busy threads, the import would take seconds,
    # and a child that is forked meanwhile would wait for its end forever.
    # Importing the library's package looks up the package's version, which takes as long as
    # importing the whole engine. So load only its extension module, which has the function.
    import importlib.util
    from importlib.machinery import PathFinder

    package = importlib.util.find_spec("crc32c")
    places = package and package.submodule_search_locations
    spec = PathFinder.find_spec("_crc32c", places) if places else None
    if spec is None or spec.loader is None:
        import crc32c as module  # a statement, because tools that freeze programs look for those
    else:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return cast("Callable[[Buffer, int, int], int]", module.crc32c)


def checksum(data: Buffer, start: int = 0) -> int:
    """Return the CRC32C (Castagnoli) of `data`, continued from `start`."""
    # From 32 KiB on, the library lets other threads run. It may then take 5 ms to get the
    # interpreter's lock back, while 4 MiB take 0.1 ms.
    return crc32c()(data, start, _ALONE if len(data) <= _ALONE_BYTES_MAX else BESIDE_OTHERS)
