"""CRC32C, from the library of that name, which is loaded at first use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

from journal._disk.disk import Buffer


@cache
def crc32c() -> Callable[[Buffer, int], int]:
    """Return the library's function: CRC32C of a buffer, continued from a start."""
    # At first use, which for a writer is as it opens: among busy threads an import takes seconds,
    # and readers of help texts need none. Its package looks up its own version as it is imported,
    # which takes as long as the whole engine; what computes stands beside that.
    import importlib.util
    from importlib.machinery import PathFinder

    package = importlib.util.find_spec("crc32c")
    places = package and package.submodule_search_locations
    spec = PathFinder.find_spec("_crc32c", places) if places else None
    if spec is None or spec.loader is None:
        import crc32c as module  # a statement, for those who freeze programs look for them
    else:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return cast("Callable[[Buffer, int], int]", module.crc32c)


def checksum(data: Buffer, start: int = 0) -> int:
    """Return the CRC32C (Castagnoli) of `data`, continued from `start`."""
    return crc32c()(data, start)
