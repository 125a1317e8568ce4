"""What the documents show is run as it stands there: blocks marked python and pycon; those marked py are only shown."""

import ast
import doctest
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffjax.diffusion.types import Process
from diffjax.experiment import build

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench" / "README.md", *(ROOT / "docs").glob("*.md")]
SHOWN = re.compile(r"```(python|pycon)\n(.*?)```", re.DOTALL)
EXAMPLES = [page for page in PAGES if SHOWN.search(page.read_text()) and page.name != "README.md"]


def test_the_readme_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    namespace: dict = {}
    exec(compile(block, "README.md", "exec"), namespace)
    assert abs(namespace["x"].mean(axis=0) - namespace["world"].mean).max() < 0.15


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda p: p.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    """In order, in one namespace and an empty folder; what a pycon block prints is compared, a config is built."""
    namespace: dict = {}
    monkeypatch.chdir(tmp_path)
    for kind, block in SHOWN.findall(page.read_text()):
        if kind == "python":
            exec(compile(block, page.name, "exec"), namespace)
        else:
            example = doctest.DocTestParser().get_doctest(block, namespace, page.name, str(page), 0)
            assert example.examples
            assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
            namespace = example.globs
    if "get_config" in namespace:
        build(namespace["get_config"]().to_dict())


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of every table of two columns, heads and rulers left out."""
    tables = re.findall(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    return [line.strip("| ").split(" | ") for table in tables for line in table.splitlines()]


@pytest.mark.parametrize("theirs, ours", rows_of("moving.md"))
def test_a_name_that_one_moves_to_exists(theirs, ours):
    """Below diffjax.diffusion, with the options that are named."""
    spans = re.findall(r"`([^`]+)`", ours)
    assert spans or ours == "none"
    for span in spans:
        node = ast.parse(span, mode="eval").body
        name = ast.unparse(node.func if isinstance(node, ast.Call) else node)
        if "." not in name:
            assert name in Process._fields
            continue
        found = pkgutil.resolve_name(f"diffjax.diffusion.{name}")
        if isinstance(node, ast.Call):
            inspect.signature(found).bind_partial(**{word.arg: None for word in node.keywords})


def test_every_page_has_its_place_on_the_site():
    listed = re.findall(r"^(?:.* <)?(?:\.\./)?([\w/]+)>?$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    wanted = {path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/") for path in pages}
    assert set(listed) == wanted - {"index"} | {"bench/README"}


def test_every_room_has_its_page_in_the_reference():
    rooms = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "diffjax").rglob("__init__.py")
    }
    assert set(re.findall(r"^   (diffjax.*)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)) == rooms


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("myst_nb")
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-c", "docs", "-d", tmp_path / "seen"]
    done = subprocess.run([*command, ".", tmp_path / "html"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "log_snr" in (tmp_path / "html" / "docs" / "api" / "diffjax.diffusion.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def added(page_text: str, heading: str) -> str:
    section = page_text.split(f"## {heading}\n")[1]
    return re.search(r"```diff\n(.*?)```", section, re.DOTALL)[1]


@pytest.mark.slow
def test_the_schedule_recipe_is_short_and_gains_its_tests(tmp_path):
    """Apply the diff of docs/adding.md to a copy; count its lines and the laws that it gains; run some of these."""
    diff = added((ROOT / "docs" / "adding.md").read_text(), "A schedule")
    lines = [line[1:] for line in diff.splitlines() if line.startswith("+")]
    assert len(lines) <= 10
    for part in ("diffjax", "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    path = tmp_path / "diffjax" / "diffusion" / "schedules.py"
    function, row = "\n".join(lines[:-1]), lines[-1]
    text = path.read_text().replace("SCHEDULES = {\n", f"{function}\nSCHEDULES = {{\n{row}\n")
    path.write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-k", "cubic"]
    gained, run = (
        subprocess.run(
            [*command, *chosen], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )
        for chosen in (["tests/laws", "--collect-only"], ["tests/laws/test_schedules.py", "tests/laws/test_process.py"])
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 20
    assert int(re.search(r"(\d+)/\d+ tests collected", gained.stdout)[1]) >= 80
