"""Eight simulated devices, strict arithmetic, and a compilation cache for the whole suite."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
CACHE = Path(__file__).parents[1] / ".cache" / "jax"
CACHE.mkdir(parents=True, exist_ok=True)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# The shapes in the signatures of the mathematics are checked at every call.
install_import_hook(["diffjax.diffusion", "diffjax.testbed"], "beartype.beartype")


@pytest.fixture
def x64():
    """Double precision: laws are then exact to many digits, and an order of convergence is visible."""
    with jax.enable_x64(True):
        yield
