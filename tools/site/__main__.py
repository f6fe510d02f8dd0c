"""Build the documentation site: `python tools/site [FOLDER]`.

The default folder is `build/site`. Any warning fails the build, for example a broken link, or a
public name without a docstring. This needs the dependency group `site`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main(arguments: list[str]) -> int:
    """Build the site, print the path of its front page, and return Sphinx's exit code."""
    folder = Path(*arguments) if arguments else ROOT / "build" / "site"
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--write-all"]
    with TemporaryDirectory() as doctrees:
        places = ["--conf-dir", str(HERE), "--doctree-dir", doctrees, str(ROOT), str(folder)]
        code: int = build_main([*options, *places])
    if not code:
        print(folder / "index.html")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
