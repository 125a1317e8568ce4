"""Eight simulated devices, strict arithmetic, and a compilation cache for the whole suite."""

import functools
import gc
import os

from tests.commands import CACHE, settings

os.environ.update(settings(devices=8))
CACHE.mkdir(parents=True, exist_ok=True)

import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402
from jaxlib.mlir import ir  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Every program gets an MLIR context of its own, and loading its dialects is a quarter of what a small program costs.
# Here all share one, but those made within the making of another.  Private to jax: without it tests are but slower.
if hasattr(mlir, "make_ir_context"):
    fresh, shared = mlir.make_ir_context, functools.cache(mlir.make_ir_context)
    mlir.make_ir_context = lambda: shared() if ir.Context.current is None else fresh()

# The shapes in the signatures of the mathematics are checked at every call.
install_import_hook(["diffjax.diffusion", "diffjax.testbed"], "beartype.beartype")


@pytest.fixture
def x64():
    """Double precision: laws are then exact to many digits, and an order of convergence is visible."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[1, 8], ids=["one device", "eight"])
def devices(request, monkeypatch):
    """What is traced on one device, where nothing is split, is not what is traced on several."""
    monkeypatch.setattr(jax, "device_count", lambda: request.param)
    return request.param


@pytest.fixture(scope="module")
def frozen():
    """What earlier tests have left is no longer searched for garbage, which a damaged checkpoint asks for: seconds."""
    gc.freeze()
    yield
    gc.unfreeze()
