"""Measurements: python -m bench NAME [options].

digits    how good the demo's samples are, by a judge that has seen real digits only
calls     what a call of many training steps saves, data included
accelerator  training and sampling of whole networks in bfloat16, with MFU, on the accelerator at hand
compile   what a sampler costs to compile, against its number of steps
first_use from the start of a process to its first training step, beside torch eager and compiled
loop      what a sampler costs beyond its network calls
nfe       how close to the law samplers come in few network calls, beside other libraries where they are installed
peers     networks, training steps and samplers beside torch and diffusers, as ratios
plan      a plan of evaluate.py against every solver on every named grid, at the same number of network calls
scale     what a step is predicted to take on pods, from counted arithmetic and bytes
waits     what saving costs the steps around it, and for how long training waits for data
"""

import sys

from bench import accelerator, calls, compile, digits, first_use, loop, nfe, peers, plan, scale, waits

BENCHES = {
    "digits": digits.main,
    "accelerator": accelerator.main,
    "calls": calls.main,
    "compile": compile.main,
    "first_use": first_use.main,
    "loop": loop.main,
    "nfe": nfe.main,
    "peers": peers.main,
    "plan": plan.main,
    "scale": scale.main,
    "waits": waits.main,
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        print(__doc__)
    elif name in BENCHES:
        BENCHES[name](sys.argv[2:])
    elif name:
        sys.exit(f"error: no bench '{name}'; known: {', '.join(BENCHES)}")
    else:
        for run in (compile.main, loop.main):
            run([])


if __name__ == "__main__":
    main()
