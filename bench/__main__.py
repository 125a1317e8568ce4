"""Measurements: python -m bench NAME [options], or the whole of them: python -m bench all.

The whole, each in a process of its own on one core where that is steadier; hours on a busy machine:
  loop         what a sampler costs beyond its network calls
  compile      what a sampler costs to compile, against its number of steps
  growth       how time grows with steps, rows and depth
  calls        what a call of many training steps saves, data included
  memory       what a training step adds to a process, beside torch
  first_use    from the start of a process to its first training step, beside torch eager and compiled
  peers        networks, training steps and samplers beside torch, diffusers, FlaxDiff and hackable_diffusion, as ratios

By themselves, for they need a trained run, an accelerator, much time, or measure nothing:
  digits       how good the demo's samples are, by a judge that has seen real digits only
  accelerator  training and sampling of whole networks in bfloat16, with MFU, on the accelerator at hand
  nfe          how close to the law samplers come in few network calls, beside other libraries where they are installed
  plan         a plan of evaluate.py against every solver on every named grid, at the same number of network calls
  waits        what saving costs the steps around it, and for how long training waits for data
  scale        what a step is predicted to take on pods, from counted arithmetic and bytes
"""

import subprocess
import sys
from importlib import import_module

import diffjax

ONE_CORE = ["taskset", "-c", "0"]
WHOLE = {
    "loop": ONE_CORE, "compile": [], "growth": ONE_CORE, "calls": ONE_CORE, "memory": [], "first_use": ONE_CORE,
    "peers": [],
}  # fmt: skip
NAMES = (*WHOLE, "digits", "accelerator", "nfe", "plan", "waits", "scale")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(__doc__)
    elif name in NAMES:
        diffjax.prepare(cache=False)  # as every script does, before numpy and jax are imported
        import_module(f"bench.{name}").main(sys.argv[2:])
    elif name == "all":
        for name, where in WHOLE.items():
            print(f"\n{name}", flush=True)
            subprocess.run([*where, sys.executable, "-m", "bench", name], check=True)
    else:
        sys.exit(f"error: no bench '{name}'; known: all, {', '.join(NAMES)}")


if __name__ == "__main__":
    main()
