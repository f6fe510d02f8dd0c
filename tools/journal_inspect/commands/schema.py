"""schema: print the JSON Schema of a verb's output."""

from __future__ import annotations

from importlib.resources import files

from _journal_console.exits import FINE


def read_schema(verb: str) -> str:
    return files("journal_inspect").joinpath("schemas", f"{verb}.json").read_text("utf-8")


def show_schema(verb: str) -> int:
    print(read_schema(verb), end="")
    return FINE
