"""Laws hold to many digits, so they are tested in double precision; programs run once, so they are compiled quickly."""

import jax
import pytest


@pytest.fixture(autouse=True)
def double_precision():
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_disable_most_optimizations", False)
