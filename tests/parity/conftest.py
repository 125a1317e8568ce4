"""Our mathematics beside two independent implementations; collected only where those are installed."""

import sys
from importlib.util import find_spec

import jax
import pytest

PEERS = ("torch", "diffusers", "k_diffusion")
MISSING = [name for name in PEERS if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def single_precision():
    """In which networks are compared."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    with jax.enable_x64(False):
        yield
    torch.set_default_dtype(before)


def pytest_itemcollected(item):
    item.add_marker("parity")
    item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:diffusers"))
    item.add_marker(pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"))  # torch to numpy


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        terminalreporter.write_line(
            f"tests/parity left out: no {', '.join(MISSING)}; `make parity` installs and runs all"
        )
        return
    for case, error in sorted(getattr(sys.modules.get("peers"), "ERRORS", {}).items()):
        terminalreporter.write_line(f"{error:10.1e}  {case}")
