"""The architecture as tests: which room may import which, and what a table must look like."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "diffjax"
MODULES = sorted(PACKAGE.rglob("*.py"))

# room -> what it may import of ours, beside itself and diffjax.errors
ARROWS = {
    "diffusion": set(),
    "data": set(),
    "nets": {"diffusion"},
    "training": {"diffusion"},
    "evaluation": {"diffusion"},
    "testbed": {"diffusion", "evaluation"},
    "interchange": set(),
}
MATHEMATICS = {"jax", "numpy", "jaxtyping"}


def imports(path):
    """(room of ours or None, first word) of everything that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield (parts[1] if parts[0] == "diffjax" and len(parts) > 1 else None), parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows(path):
    room = path.relative_to(PACKAGE).parts[0]
    for ours, first in imports(path):
        if room in ARROWS and ours:
            allowed = ARROWS[room] | {room} | (set() if room == "diffusion" else {"errors"})
            assert ours in allowed, f"{path} imports diffjax.{ours}"
        if room == "diffusion" and not ours:
            assert first in MATHEMATICS | set(sys.stdlib_module_names)
        if room == "data":
            assert first not in ("jax", "flax")
        if first == "flax":
            assert room == "nets"
        if first == "ml_collections":
            raise AssertionError("configs are read as plain mappings")


@pytest.mark.parametrize("script", ["train.py", "sample.py", "evaluate.py"])
def test_scripts_are_thin(script):
    text = (ROOT / script).read_text()
    assert text.count("\n") <= 75
    assert {ours for ours, first in imports(ROOT / script) if first == "diffjax"} <= {None}


def test_no_room_for_leftovers():
    assert not {p.stem for p in MODULES} & {"utils", "common", "helpers", "base", "misc"}


@pytest.mark.parametrize("room", ["diffusion", "training"])
def test_modality_is_unknown(room):
    for path in (PACKAGE / room).glob("*.py"):
        assert not re.search(r"\bimages?\b", path.read_text(), re.IGNORECASE), path


def test_the_mathematics_imports_without_frameworks():
    code = "import sys, diffjax.diffusion.solvers as s; assert not {'flax','optax','orbax','grain'} & set(sys.modules)"
    # The package itself imports everything, so the room is loaded from its own folder.
    stub = "import sys, types; p = types.ModuleType('diffjax'); sys.modules['diffjax'] = p; "
    stub += f"p.__path__ = [{str(PACKAGE)!r}]; "
    subprocess.run([sys.executable, "-c", stub + code], check=True, cwd=ROOT)


def tables():
    from diffjax import data, nets
    from diffjax.diffusion import gaussian, grids, parameterizations, schedules, solvers, times, weights
    from diffjax.evaluation import distances, metrics
    from diffjax.testbed import analytic
    from diffjax.training import optimizers

    ours = (analytic, gaussian, grids, parameterizations, schedules, solvers, times, weights)
    for module in (*ours, optimizers, nets, data, distances, metrics):
        for name, table in vars(module).items():
            if name.isupper() and isinstance(table, dict) and all(map(callable, table.values())):
                yield f"{module.__name__}.{name}", table


@pytest.mark.parametrize("name, table", [pytest.param(*t, id=t[0]) for t in tables()])
def test_a_key_is_its_functions_name(name, table):
    for key, row in table.items():
        assert row.__name__ == key and row.__doc__, f"{name}[{key!r}]"
