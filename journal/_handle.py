"""OpenHandle: the base of the public classes that own open files, a lock or threads."""

from __future__ import annotations

from typing import NoReturn, Self

from journal._public import PACKAGES, public


def refuse_path(kind: type, *arguments: object) -> None:
    """Raise TypeError if a class of handles is called with a path, or without arguments.

    Users call `open`, and only this project's packages call the constructors. A subclass that has
    an `__init__` of its own may take anything.
    """
    if kind.__init__.__module__.partition(".")[0] not in PACKAGES:  # type: ignore[misc]  # not called
        return
    first = next(iter(arguments), "")
    if isinstance(first, str | bytes) or hasattr(first, "__fspath__"):
        raise TypeError(f"{kind.__name__}(...) opens nothing; call {kind.__name__}.open(...)")


@public
class OpenHandle:
    """An object that can't be copied: a copy would share the original's files and close them."""

    def __new__(cls, *arguments: object, **named: object) -> Self:
        refuse_path(cls, *arguments, *named.values())
        return object.__new__(cls)

    @property
    def _kind(self) -> str:
        """The name of the class in messages."""
        return type(self).__name__

    def __reduce__(self) -> NoReturn:
        # copy.copy, copy.deepcopy and pickle all call this method.
        raise TypeError(
            f"an open {self._kind} can't be copied or pickled: it owns files and threads of "
            "this process; open it again where you need it"
        )
