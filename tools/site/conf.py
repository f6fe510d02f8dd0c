"""Configuration of Sphinx. `contents.py` lists the pages; `reference.py` adds the reference."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Put the checkout first, so that an installed copy is not documented instead.
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from contents import FRONT_PAGE, PAGES  # noqa: E402 - the line above makes it importable

from journal import __version__  # noqa: E402

project = "journal-engine"
release = __version__
root_doc = FRONT_PAGE
include_patterns = [f"{page}.md" for pages in PAGES.values() for page in pages.values()]
exclude_patterns = ["build", ".venv", ".git"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "reference"]

myst_heading_anchors = 4  # the levels of headings that get anchors, as on GitHub

default_role = "code"  # the meaning of single backticks in docstrings
smartquotes = False
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

# Each reference to a public name must have a target. Types of other projects, type variables and
# types of private folders have none.
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(?!(journal|manager)\.).*"),
    ("py:(class|obj)", r"(.*\.)?([A-Z]|[A-Za-z]+_co)"),
    ("py:class", r"(journal|manager)\.(.*\.)?_.*"),
    ("py:class", r"journal\.testing\.medium\..*"),
]

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
