"""The loss on held-out data at fixed noise levels: the same data, levels and noise at every call, for smooth curves."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion.losses import loss_at
from diffjax.diffusion.types import Process

LEVELS = (np.arange(8) + 0.5) / 8  # the middles of eight equal parts of [0, 1]


def make_losses(denoise: Callable, process: Process, *, levels: np.ndarray = LEVELS) -> Callable:
    """(params, batches) -> the mean loss over examples at every level, and its standard error: float64 [levels] each.

    `denoise` is (params, xt, t, cond) -> x0_hat; a batch holds x [B, *S], mask [B] and maybe label [B], already on its
    devices.
    """

    @jax.jit
    def add(total: Any, params: Any, batch: dict[str, jax.Array], number: int) -> Any:
        x0, mask = batch["x"], batch["mask"]
        key = jax.random.fold_in(jax.random.key(0), number)

        def rule(xt, t, cond):
            return denoise(params, xt, t, cond)

        def at(level):
            t, noise_key = jnp.full(len(x0), level), jax.random.fold_in(key, jnp.round(level * 2**16).astype(int))
            loss = loss_at(noise_key, rule, process, t=t, x0=x0, cond=batch.get("label"))
            loss = jnp.where(mask > 0, loss, 0)  # whatever fills up a batch, even if it is not finite
            return jnp.stack([jnp.sum(loss), jnp.sum(loss**2)])

        some = jax.lax.map(at, jnp.asarray(levels, jnp.float32))  # one compiled body for all levels
        return total[0] + some, total[1] + jnp.sum(mask > 0)

    def losses(params: Any, batches: Iterable[dict[str, jax.Array]]) -> tuple[np.ndarray, np.ndarray]:
        total = np.zeros((len(levels), 2), np.float32), np.zeros((), np.int32)
        for i, batch in enumerate(batches):  # one at a time: collectives of several block each other on few cores
            total = jax.block_until_ready(add(total, params, batch, i))
        sums, count = jax.device_get(total)
        means, squares = (sums.astype(np.float64) / count).T
        return means, np.sqrt(np.maximum(squares - means**2, 0) / count)

    return losses


def make_evaluate(denoise: Callable, process: Process, *, levels: np.ndarray = LEVELS) -> Callable:
    """(params, batches) -> {"heldout_loss": mean over levels, "heldout_loss_t0.06": ..., ...}; see `make_losses`."""
    losses = make_losses(denoise, process, levels=levels)

    def evaluate(params: Any, batches: Iterable[dict[str, jax.Array]]) -> dict[str, float]:
        means, _ = losses(params, batches)
        named = {f"heldout_loss_t{t:.2f}": float(mean) for t, mean in zip(levels, means, strict=True)}
        return {"heldout_loss": float(np.mean(means))} | named

    return evaluate
