"""The loss on held-out data at fixed noise levels: the same data, levels and noise at every call, for smooth curves."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion.losses import loss_at
from diffjax.diffusion.types import Process

LEVELS = (np.arange(8) + 0.5) / 8  # the middles of eight equal parts of [0, 1]


def make_evaluate(denoise: Callable, process: Process, *, levels: np.ndarray = LEVELS) -> Callable:
    """(params, batches) -> {"heldout_loss": mean over levels, "heldout_loss_t0.06": ..., ...}.

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
            return jnp.sum(jnp.where(mask > 0, loss, 0))  # whatever fills up a batch, even if it is not finite

        some = jax.lax.map(at, jnp.asarray(levels, jnp.float32))  # one compiled body for all levels
        return total[0] + some, total[1] + jnp.sum(mask > 0)

    def evaluate(params: Any, batches: Iterable[dict[str, jax.Array]]) -> dict[str, float]:
        total = np.zeros(len(levels), np.float32), np.zeros((), np.int32)
        for i, batch in enumerate(batches):  # one at a time: collectives of several block each other on few cores
            total = jax.block_until_ready(add(total, params, batch, i))
        sums, count = jax.device_get(total)
        means = sums / count
        named = {f"heldout_loss_t{t:.2f}": float(mean) for t, mean in zip(levels, means, strict=True)}
        return {"heldout_loss": float(np.mean(means))} | named

    return evaluate
