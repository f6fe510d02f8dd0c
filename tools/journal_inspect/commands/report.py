"""report: one page of HTML that tells all of a journal at a glance, by itself, without a network.

What a journal holds was written by anybody, so nothing of it becomes markup or script: Jinja
escapes what stands in the page, the script reads the rest as JSON, and the page's own policy lets
no other script or style run, and nothing be fetched.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Collection
from importlib.resources import files
from typing import IO

from journal import JournalReader
from journal_inspect.exits import CORRUPT, FINE, RefusedError
from journal_inspect.rendering.text import command, say
from journal_inspect.report.data import observe
from journal_inspect.report.page import page


def write_report(
    path: str, out: str | IO[str], *, redact: Collection[str] = (), utc: bool = False
) -> int:
    """The exit code: 3 if something in the journal at `path` is damaged.

    `out` is a file's path, or text that is open for writing. A file is its owner's alone, as the
    journal is. `redact`: fields of agents whose values are not to be told. Times are in the local
    zone, or UTC. Raises what reading raises, and RefusedError if `out` lies in the journal.
    """
    if isinstance(out, str):
        _check_outside(out, path)
    with JournalReader.open(path) as reader:
        seen = observe(reader)
    text = _render(page(seen, redact=redact, utc=utc))
    if isinstance(out, str):
        is_there = os.path.lexists(out)
        with open(out, "w", encoding="utf-8", newline="\n", opener=_private) as file:
            file.write(text)
        say(f"{out}: written{' over what was there' if is_there else ''}; open it in a browser")
    else:
        out.write(text)
    if seen.is_damaged:
        say(f"{path}: something is damaged; look closer with: {command('verify', path)}")
        return CORRUPT
    return FINE


def _check_outside(out: str, path: str) -> None:
    journal, target = os.path.realpath(path), os.path.realpath(out)
    if not os.path.isdir(os.path.dirname(target)):
        raise RefusedError(f"{out}: there is no directory to write it in; make that first")
    if os.path.isdir(target):
        raise RefusedError(f"{out}: is a directory; name a file")
    if os.path.commonpath([journal, target]) == journal:
        raise RefusedError(f"{out}: lies in the journal, where nothing is written; name another")


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _render(context: dict[str, object]) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise ImportError(
            f"a report needs {error.name}, not installed; "
            "get it with: python -m pip install 'journal-engine[cli]'"
        ) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    parts = {name: _shipped(f"report.{name}") for name in ("html", "css", "js")}
    return environment.from_string(parts["html"]).render(
        context,
        style=Markup(parts["css"]),  # noqa: S704 - our own
        script=Markup(parts["js"]),  # noqa: S704 - our own
        policy="; ".join(
            (
                "default-src 'none'",
                f"script-src {_hash(parts['js'])}",
                f"style-src {_hash(parts['css'])}",
                "base-uri 'none'",
                "form-action 'none'",
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            )
        ),
    )


def _shipped(name: str) -> str:
    return files("journal_inspect.report").joinpath(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
