"""OpenHandle: the base of the public classes that own open files, a lock or threads."""

from __future__ import annotations

from typing import NoReturn

from journal._public import public


@public
class OpenHandle:
    """An object that can't be copied: a copy would share the original's files and close them."""

    def __reduce__(self: object) -> NoReturn:
        # copy.copy, copy.deepcopy and pickle all call this method.
        kinds = type(self).__mro__
        kind = next((kind for kind in kinds if OpenHandle in kind.__bases__), kinds[0])
        raise TypeError(
            f"an open {kind.__name__} can't be copied or pickled: it owns files and threads of "
            "this process; open it again where you need it"
        )
