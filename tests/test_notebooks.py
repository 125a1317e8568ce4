"""Notebooks run from top to bottom, on small sizes; what is committed of them is complete and clean."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.commands import settings

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EVERY = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
WHOLE = 1_000_000  # bytes of all of them

nbformat = pytest.importorskip("nbformat")


def cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def shown(path):
    return [output for cell in cells(path) for output in cell.outputs]


def test_there_are_some_and_they_are_light():
    assert NOTEBOOKS
    assert sum(path.stat().st_size for path in NOTEBOOKS) < WHOLE


@EVERY
def test_what_is_committed_was_run_from_top_to_bottom(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    assert sum("image/png" in output.get("data", {}) for output in shown(path)) >= 1


@EVERY
def test_what_is_committed_is_clean(path):
    assert not [o for o in shown(path) if o.output_type == "error" or o.get("name") == "stderr"]
    places = re.compile(r"/(?:home|Users|root|work|tmp|usr|opt|var|private)/|[A-Z]:\\\\")
    assert not places.search(re.sub(r'"image/png": "[^"]*"', "", path.read_text()))
    assert not any("execution" in cell.metadata for cell in cells(path)), "no times of day: they differ in every run"


@EVERY
def test_pictures_and_numbers_are_followed_by_what_is_asserted(path):
    """The text states what cells assert: a notebook without an assertion claims nothing that is tested."""
    assert sum(line.startswith("assert ") for cell in cells(path) for line in cell.source.splitlines()) >= 3


@pytest.mark.slow
@EVERY
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """On small sizes and without the digits run; an error in any cell fails, an assertion is one."""
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("DIFFJAX_FAST", "1")
    monkeypatch.setenv("DIFFJAX_RUN", str(tmp_path / "none"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("XLA_FLAGS", settings(devices=1)["XLA_FLAGS"])  # as a user has
    monkeypatch.delenv("MPLBACKEND", raising=False)
    copy = Path(shutil.copy(path, tmp_path))
    notebook = nbformat.read(copy, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(os.listdir(tmp_path)) <= 2  # it leaves nothing behind
    assert not [o for cell in notebook.cells for o in cell.get("outputs", ()) if o.get("name") == "stderr"]
