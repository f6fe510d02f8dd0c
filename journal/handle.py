"""OpenHandle: base of the public classes that stand for open files, a lock or threads."""

from __future__ import annotations

from typing import NoReturn


class OpenHandle:
    """An object that can't be copied: a copy would share the original's files, and close them."""

    def __reduce__(self: object) -> NoReturn:
        # copy.copy, copy.deepcopy and pickle all come here.
        names = (kind.__name__ for kind in type(self).__mro__)
        kind = next(name for name in names if not name.startswith("_"))  # a public one
        raise TypeError(
            f"an open {kind} can't be copied or pickled: it stands for files and threads of this "
            "process; open it again where you need it"
        )
