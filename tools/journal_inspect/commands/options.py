"""Options: the options that several verbs share, and the types of their values.

Only click is imported before a verb runs.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

from journal_inspect.commands.reading import MEMORY_MAX_MIN

if TYPE_CHECKING:
    from journal import Key
    from journal_inspect.commands.moments import Time

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic since click 8.4 only

Verb = Callable[..., int]
LSN = click.IntRange(min=1)
LSN_OR_0 = click.IntRange(min=0)  # 0: the empty journal, before its first record


class _Parsed(_ParamType):
    """A type of option values. Its function parses a word or raises ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _time(text: str) -> Time:
    from journal_inspect.commands.moments import parse_time

    return parse_time(text)


def _moment(text: str) -> int | Time:
    from journal_inspect.commands.moments import parse_moment

    return parse_moment(text)


def _key(text: str) -> Key:
    from journal_inspect.commands.keys import parse_key

    return parse_key(_without_space(text))


def _prefix(text: str) -> str | bytes | tuple[int | str | bytes, ...]:
    from journal_inspect.commands.keys import parse_prefix

    return parse_prefix(_without_space(text))


def _without_space(text: str) -> str:
    """Return an argument without the space that `TakesNegatives` put before it."""
    return text[1:] if text.startswith(" -") else text


def _part(text: str) -> str:
    if not text.isidentifier():
        raise ValueError(f"{text!r} is not an identifier, so it can't name a part")
    return text


def _memory(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([KMGT]?)(i?B)?", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a size; give one such as 512M or 2G")
    size_bytes = int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")
    if size_bytes < MEMORY_MAX_MIN:
        raise ValueError(f"{text} is too little; give 32M at least")
    return size_bytes


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None


def _decoder(text: str) -> Callable[[Any], Any]:
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError(f"{text!r} is not MODULE:FUNCTION")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it hides no installed module
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{module} can't be imported: {error}; set PYTHONPATH") from error
    except Exception as error:  # the user's module may raise anything
        raise ValueError(f"{module} can't be imported: {error!r}; fix that first") from error
    function = getattr(imported, name, None)
    if not callable(function):
        raise ValueError(f"{module} has no function {name}")
    return function  # type: ignore[no-any-return]


TIME = _Parsed("TIME", _time)
MOMENT = _Parsed("LSN|TIME", _moment)
PATTERN = _Parsed("RE", _pattern)
TABLE = _Parsed("TABLE", _without_space)
KEY = _Parsed("KEY", _key)
PREFIX = _Parsed("PREFIX", _prefix)
_DECODER = _Parsed("MODULE:FUNCTION", _decoder)

_form = partial(
    click.option,
    "-o",
    type=click.Choice(["text", "json", "jsonl"]),
    default="text",
    show_default=True,
    help="Text for people, one JSON value, or JSON Lines.",
)
UTC = click.option("--utc", is_flag=True, help="Show times in UTC, not in the local zone.")
redact_option = click.option(
    "--redact",
    metavar="FIELD",
    multiple=True,
    help="Hide the values of this field everywhere; may be repeated.",
)
_DECODE = click.option(
    "--decoder",
    "decode",
    type=_DECODER,
    help="Show the result of this Python function for each record. It runs with your rights.",
)
# Not checked by click: an unreadable path must give the journal's exit code, not that of usage.
PATH = click.argument("path", type=click.Path(readable=False))


def verb(
    *, payload: bool = False, decoder: bool = False, form_names: tuple[str, ...] = ("--output",)
) -> Callable[[Verb], Verb]:
    """Return a decorator that adds the output options to a verb and passes them as `renderer`.

    `payload`: the verb shows data of the application, so it has --redact. `decoder`: the verb shows
    whole records, so it has --decoder. `form_names`: the names of -o.
    """

    def decorate(function: Verb) -> Verb:
        @wraps(function)
        def run(
            *,
            form: Any,
            utc: bool,
            redact: tuple[str, ...] = (),
            decode: Callable[[Any], Any] | None = None,
            **options: Any,
        ) -> int:
            from journal_inspect.rendering.renderer import Renderer

            return function(renderer=Renderer(form, utc, frozenset(redact), decode), **options)

        options = [_DECODE] * decoder + [redact_option] * payload + [UTC]
        options.append(_form(*form_names, "form"))
        for option in options:
            run = option(run)
        return run

    return decorate


class TakesNegatives(click.Command):
    """A command whose arguments may be negative numbers or times such as -1h: no option begins with
    a digit. Such an argument gets a space before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = [f" {word}" if word[:1] == "-" and word[1:2].isdigit() else word for word in args]
        return super().parse_args(ctx, words)


MEMORY_MAX = click.option(
    "--memory-max",
    "memory_max",
    type=_Parsed("SIZE", _memory),
    default="1G",
    show_default=True,
    help="Name and skip each record that would take more memory than this.",
)


def complete_agent(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names and ids of agents that begin with `incomplete`."""
    from manager import read_fleet

    try:
        # After an option without its value, click leaves PATH among the other words.
        path = ctx.params.get("path") or next(iter(ctx.args))
        agents = read_fleet(path).agents(include_archived=True)
    except Exception:  # a shell that completes words must show no error
        return []
    refs = dict.fromkeys(ref for agent in agents for ref in (agent.name, agent.agent_id))
    return [ref for ref in refs if ref.startswith(incomplete) and ref.isprintable()]


REF = click.argument("ref", shell_complete=complete_agent)
AT = click.option(
    "--at",
    "at",
    type=MOMENT,
    help="Show the state as of this moment, if it is still kept.  [default: now]",
)

PART = click.option(
    "--part", type=_Parsed("NAME", _part), help="The part of a Composite that has the tables."
)


_RANGE = (
    click.option("--to-lsn", type=LSN, help="The last LSN to show."),
    click.option("--from-lsn", type=LSN, help="The first LSN to show."),
    click.option("-U", "--until", type=TIME, help="Leave out what was written after this time."),
    click.option(
        "-S",
        "--since",
        type=TIME,
        help="Leave out what was written before: ISO 8601, or how long ago, "
        "such as -90s, -1h30m, -2d.",
    ),
)


def lsn_range(function: Verb) -> Verb:
    """Add the options for a range of the log to a verb."""
    for option in _RANGE:
        function = option(function)
    return function


def check_range(from_lsn: int | None, to_lsn: int | None) -> None:
    if from_lsn and to_lsn and from_lsn > to_lsn:
        raise click.UsageError(f"--from-lsn {from_lsn} is after --to-lsn {to_lsn}")
