"""A sampler in one file: its program compiled ahead as StableHLO, with the weights; served without tracing anything.

    python -m diffjax.export --workdir runs/digits --solver dpmpp_2m --steps 20 --batch 100 --out digits.sampler

    sampler = diffjax.open_sampler("digits.sampler")
    x = sampler(seed=0, labels=[3], guidance=2.0)      # numpy [100, 8, 8, 1], those of model.sample

The file is a zip archive: program.bin (jax.export), params.npz and about.json.  Solver, steps, grid and batch are fixed
in it; seed, labels and guidance are not.  A program runs on the platforms it was exported for, and with versions of jax
up to six months newer than the one that wrote it.
"""

import argparse
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Float

from diffjax.diffusion.sampling import row_keys
from diffjax.errors import InputError, exit_on_input_error
from diffjax.model import Model, cycled, load, require_guidance
from diffjax.sampler import sampler, settled

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_sampler(
    model: Model, out: str | Path, *, batch: int, guided: bool = False, solver: str | None = None,
    steps: int | None = None, grid: str = "uniform", platforms: Sequence[str] = (), **options: Any,
) -> Path:  # fmt: skip
    """Write a model's sampler into the file `out`; keywords as in `model.sample`, defaults from its config.

    Raises InputError for what the sampler refuses, and for a platform that there is not.
    """
    experiment = model.experiment
    for platform in platforms:
        if platform not in PLATFORMS:
            raise InputError(f"no platform '{platform}'; known: {', '.join(PLATFORMS)}")
    if batch < 1:
        raise InputError(f"the batch of an exported sampler must be at least 1; got {batch}")
    if guided:
        require_guidance(experiment)
    spec, turned, ts = settled(experiment, solver=solver, steps=steps, grid=grid, **options)
    run, classes = sampler(experiment, spec, guided=guided), experiment.source.classes

    def program(params, seed, labels, scale):
        keys = row_keys(jax.random.key(seed), batch)
        return run(params, keys, ts, labels if classes else None, scale, turned)

    shapes = jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    leaves, tree = jax.tree.flatten(model.params)
    flat = jax.jit(lambda leaves, *rest: program(jax.tree.unflatten(tree, leaves), *rest))
    abstract = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    exported = export.export(flat, platforms=platforms or None)(abstract, *shapes, jax.ShapeDtypeStruct((), "float32"))
    about = {
        "config": experiment.config, "classes": classes, "guided": guided, "batch": batch, "step": model.step,
        "solver": spec, "knobs": turned, "steps": len(ts) - 1, "grid": grid, "times": ts.tolist(),
        "platforms": list(exported.platforms), "jax": jax.__version__, "shape": list(experiment.source.shape),
    }  # fmt: skip
    arrays = io.BytesIO()
    np.savez(arrays, *map(np.asarray, leaves))
    out = Path(out)
    try:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("about.json", json.dumps(about, indent=2))
            archive.writestr("program.bin", exported.serialize())
            archive.writestr("params.npz", arrays.getvalue())
    except OSError as error:
        raise InputError(f"cannot write the sampler {out}: {error}; name another file with --out") from error
    return out


def open_sampler(path: str | Path) -> Callable[..., Float[np.ndarray, "batch *S"]]:
    """The sampler in a file: (seed, *, labels=None, guidance=1.0) -> float32 [batch, *S] in the data range.

    Raises InputError for a file that is not one, or of other platforms than this machine's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("about.json"))
            exported = export.deserialize(bytearray(archive.read("program.bin")))
            with np.load(io.BytesIO(archive.read("params.npz"))) as arrays:
                leaves = [jax.device_put(arrays[f"arr_{i}"]) for i in range(len(arrays.files))]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no exported sampler: {error}; make one with python -m diffjax.export") from error
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if here not in about["platforms"]:
        raise InputError(f"{path} was exported for {about['platforms']} and not for {here}; export it with --platforms")
    call = jax.jit(exported.call)

    def run(seed: int = 0, *, labels: Sequence[int] | None = None, guidance: float | None = None):
        if (guidance is not None) > about["guided"]:
            raise InputError(f"{path} was exported without guidance; export it with --guided")
        label = cycled(labels, about["batch"], about["classes"], guidance=guidance)
        label = np.zeros(about["batch"], np.int32) if label is None else label  # a model without classes reads none
        scale = jnp.float32(1.0 if guidance is None else guidance)
        return np.asarray(call(leaves, jnp.uint32(seed), label, scale))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="folder of a run, as given to train.py")
    parser.add_argument("--out", required=True, help="file to write")
    parser.add_argument("--batch", type=int, default=100, help="samples of a call (default: 100)")
    parser.add_argument("--solver", help="as in sample.py (default: the config's)")
    parser.add_argument("--steps", type=int, help="steps of the solver (default: the config's)")
    parser.add_argument("--grid", default="uniform", help="spacing, as in sample.py (default: uniform)")
    parser.add_argument("--guided", action="store_true", help="let calls give a guidance; twice the network's work")
    parser.add_argument("--platforms", nargs="*", default=(), help="cpu, cuda, rocm, tpu (default: this machine's)")
    args = vars(parser.parse_args())
    with exit_on_input_error():
        print(export_sampler(load(args.pop("workdir")), args.pop("out"), **args))


if __name__ == "__main__":
    main()
