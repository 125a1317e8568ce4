"""The site: the repository's pages as they stand, and a reference that is made of docstrings (`make docs`).

Sphinx's source folder is the repository itself, so that a link from page to page is the same here and on a code host.
"""

import ast
import inspect
import os
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project, author, copyright = "diffjax", "The diffjax Authors", "The diffjax Authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb", "bench/README.md", *(page.name for page in ROOT.glob("*.md"))]
exclude_patterns = ["docs/_build", "docs/_templates"]
templates_path = [str(ROOT / "docs" / "_templates")]
html_theme, html_title = "furo", "diffjax"
smartquotes = False  # primes in formulas are primes

myst_heading_anchors = 2
nb_execution_mode = "off"  # `make notebooks` runs them, and what they showed is kept in them
rooms = [path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("diffjax/**/__init__.py")]
autosummary_context = {"rooms": rooms}  # each has a page, with its modules on it
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
# Types in signatures are read, and followed where that is easy; links between pages are what has to hold.
nitpick_ignore_regex = [("py:.*", ".*")]
suppress_warnings = ["ref.python"]  # two rooms may have a type of the same name


def as_written(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text: columns and formulas stay as they stand, and prose has no markup but `code`."""
    out, drawn = [], False
    for line in lines:
        was, drawn = drawn, bool(re.match(r"\s+\S|\S.*\S {3,}\S", line)) or (drawn and not line)
        if drawn and not was:
            out += ["", "::", ""]
        if was and not drawn:
            out.append("")
        out.append(f"    {line}" if drawn else _prose(line))
    lines[:] = out


def _prose(line: str) -> str:
    parts = line.split("`")
    plain = [re.sub(r"([\\*|_])", r"\\\1", part) for part in parts]
    return "".join(f"\\ ``{parts[i]}``\\ " if i % 2 else plain[i] for i in range(len(parts)))


def as_declared(app, what, name, obj, options, signature, returned):
    """Signatures with the names that types have in the source: Schedule, and not what it stands for."""
    if not inspect.isfunction(obj) or obj.__name__ == "<lambda>":
        return None
    node = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    if not isinstance(node, ast.FunctionDef):
        return None
    return f"({ast.unparse(node.args)})", node.returns and ast.unparse(node.returns)


def without_folders(app, name: str, source: list[str]) -> None:
    """A link to a folder leads somewhere on a code host only."""
    here = ROOT / Path(name).parent

    def kept(link: re.Match) -> str:
        return f"`{link[2].removeprefix('../')}`" if (here / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\(([^)#:]+)\)", kept, source[0])


def setup(app) -> None:
    app.connect("autodoc-process-docstring", as_written)
    app.connect("autodoc-process-signature", as_declared)
    app.connect("source-read", without_folders)
