"""report: write an HTML page that shows a whole journal and needs no network.

A journal's data is untrusted, so none of it becomes markup or script: Jinja escapes the text of the
page, the script reads the other data as JSON, and the page's Content-Security-Policy allows no
other script or style and no request.
"""

from __future__ import annotations

import hashlib
import os
import sys
from base64 import b64encode
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import IO, TYPE_CHECKING

from _journal_console import naming_stdout
from _journal_console.exits import CORRUPT, FINE

from journal import JournalReader
from journal_inspect.exits import RefusedError
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.output_file import check_replaceable, output_file
from journal_inspect.rendering.progress import counted
from journal_inspect.report.data import observe
from journal_inspect.report.page import page

if TYPE_CHECKING:
    from jinja2 import Template


def write_report(
    path: str,
    out: str | IO[str],
    *,
    redact: Collection[str] = (),
    utc: bool = False,
    memory_max: int | None = None,
) -> int:
    """Write the page of the journal at `path`. Return the exit code: 3 if the journal is damaged.

    `out`: the path of a file, "-" for stdout, or a text file open for writing. The file is readable
    by its owner only, like the journal, and takes the place of an old one only when it is complete.
    `redact`: the fields of agents whose values are hidden. Times are in the local zone, or in UTC.
    Records that would take more memory than `memory_max` are named and left out (None: none).
    Raise the errors of reading, and RefusedError if `out` lies inside the journal, is a directory,
    or is in no directory.
    """
    if isinstance(out, str) and out != "-":
        _check_outside(out, path)
        check_replaceable(out, replace=True)
    with (
        JournalReader.open(path, memory_max_bytes=memory_max) as reader,
        counted("reading", path) as progress,
    ):
        observed = observe(reader, progress)
    text = _render(page(observed, redact=redact, utc=utc))
    if out == "-":
        with naming_stdout():
            sys.stdout.buffer.write(text.encode())  # the page says that it is UTF-8, in any locale
    elif isinstance(out, str):
        is_replaced = os.path.lexists(out)
        with output_file(out, replace=True) as file:
            file.write(text)
        say(f"{out}: written{', replacing the old file' * is_replaced}; open it in a browser")
    else:
        out.write(text)
    if observed.is_damaged:
        say(f"{path}: the journal is damaged; look closer with: {command('verify', path)}")
        return CORRUPT
    return FINE


def _check_outside(out: str, path: str) -> None:
    journal, target = os.path.realpath(path), os.path.realpath(out)
    if not os.path.isdir(os.path.dirname(target)):
        raise RefusedError(f"{out}: its directory does not exist; create that first")
    if os.path.isdir(target):
        raise RefusedError(f"{out}: is a directory; give the name of a file")
    if os.path.commonpath([journal, target]) == journal:
        raise RefusedError(f"{out}: lies inside the journal; choose a file outside it")


def _render(context: dict[str, object]) -> str:
    try:
        import jinja2  # noqa: F401  # `_template` needs it
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise ImportError(
            f"a report needs {error.name}, which is not installed; "
            "install it with: python -m pip install 'journal-engine[cli]'"
        ) from error
    parts = {name: _shipped(f"report.{name}") for name in ("css", "js")}
    return _template().render(
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


@cache
def _template() -> Template:
    """Return the template of the page. Compiling it takes ten times as long as a small report."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.from_string(_shipped("report.html"))


def _shipped(name: str) -> str:
    return files("journal_inspect.report").joinpath(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
