"""What the documents show is run as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench" / "README.md", *(ROOT / "docs").glob("*.md")]


def test_the_readme_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    namespace: dict = {}
    exec(compile(block, "README.md", "exec"), namespace)
    assert abs(namespace["x"].mean(axis=0) - namespace["world"].mean).max() < 0.15


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
