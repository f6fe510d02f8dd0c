"""Task fields: checks the values in a line of a file of tasks.

Each function returns the value, or raises ValueError, which says what is wrong.
"""

from __future__ import annotations

from manager.arguments import short_repr
from manager.values import text

_TIMEOUT_S_MAX = 1e9


def command(value: object) -> str | list[str]:
    """Return a command: a text for /bin/sh, or an array of arguments."""
    if isinstance(value, str) and value.strip():
        has_nul = "\0" in value
    elif isinstance(value, list) and value and value[0] and all(isinstance(w, str) for w in value):
        has_nul = any("\0" in word for word in value)
    else:
        raise ValueError(
            f"command must be a string or an array of strings, not {short_repr(value)}"
        )
    if has_nul:
        raise ValueError("command contains a NUL")
    return value


def seconds(value: object) -> float:
    """Return a time limit in seconds."""
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 < value <= _TIMEOUT_S_MAX
    ):
        return float(value)
    raise ValueError(
        f"timeout_s must be a number greater than 0 and at most {_TIMEOUT_S_MAX:.0f}, "
        f"not {short_repr(value)}"
    )


def names(key: str, value: object) -> tuple[str, ...]:
    """Return the names in an array, each once."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(dict.fromkeys(text(key, name) for name in value))
    raise ValueError(f"{key} must be an array of names, not {short_repr(value)}")


def directory(key: str, value: object) -> str:
    """Return the path of a directory. Whether it exists is seen when the command is started."""
    if isinstance(value, str) and value and "\0" not in value:
        return text(key, value)
    raise ValueError(f"{key} must be the path of a directory, not {short_repr(value)}")


def queue(key: str, value: object) -> str:
    """Return the name of a queue."""
    if isinstance(value, str) and value:
        return text(key, value)
    raise ValueError(f"{key} must be the name of a queue, not {short_repr(value)}")


def environment(key: str, value: object) -> dict[str, str]:
    """Return the variables in an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be an object of strings, not {short_repr(value)}")
    for name, content in value.items():
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"{key} has {short_repr(name)}, which can't name a variable")
        if not isinstance(content, str) or "\0" in content:
            raise ValueError(
                f"{key}[{short_repr(name)}] must be a string without NUL, not {short_repr(content)}"
            )
    return {text(key, name): text(key, content) for name, content in value.items()}
