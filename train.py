"""Train a diffusion model, or continue training it.

    python train.py --config configs/digits.py --workdir runs/digits
    python train.py --config configs/digits.py --workdir runs/wide --config.net.width=48 --config.batch_size=128

    python train.py --config configs/cifar10.py --dry_run --devices 8 --accelerator v5e

Whatever the config file holds can be changed on the command line.  A workdir that holds a run is continued; Ctrl-C or
SIGTERM saves and ends it.  On several hosts start the same command on each of them (with --distributed where neither
SLURM nor a pod says so); there a SIGTERM to any of them ends all.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config file, for example configs/digits.py.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run: config, checkpoints, metrics, previews.")
REPLAY = flags.DEFINE_string("replay", None, "Do a step again from its black box, and look into it; nothing else.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Compile the step, print what it costs on each device, and end.")
DEVICES = flags.DEFINE_integer("devices", 0, "For --dry_run: so many simulated devices instead of those here.")
FIT = flags.DEFINE_bool("fit", False, "With --dry_run: look for the mesh, remat and parts that fit --accelerator.")
ACCELERATOR = flags.DEFINE_string("accelerator", "", "For --dry_run: does it fit h100, h200, v5e, v5p, v6e ...?")
ALLOW_CHANGES = flags.DEFINE_bool("allow_changes", False, "Continue a run although the config has changed.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Connect several processes; under SLURM and on pods automatic.")
TIMEOUT = flags.DEFINE_integer("timeout", 100, "Seconds after which several processes end when one of them is lost.")
PROFILE = flags.DEFINE_integer("profile", 0, "Trace so many steps into WORKDIR/profile, for TensorBoard or Perfetto.")
WANDB = flags.DEFINE_string("wandb", "", "A project of Weights & Biases that gets the numbers too.")


def main(argv: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.FATAL)  # errors reach us as such; --verbosity=0 shows what the libraries do
    import diffjax  # here, so that --help answers at once

    with diffjax.exit_on_input_error():
        if argv[1:]:
            raise diffjax.InputError(f"unexpected arguments {argv[1:]}; every option starts with --")
        if DISTRIBUTED.value or diffjax.clustered():
            diffjax.connect(TIMEOUT.value)
        diffjax.cache_compilations()
        if REPLAY.value:
            diffjax.replay(REPLAY.value)
            return
        try:
            config = CONFIG.value and CONFIG.value.to_dict()
        except OSError as error:  # reported when the config is first used, its last line says why
            raise diffjax.InputError(
                f"cannot load the config: {str(error).strip().splitlines()[-1].strip()}"
            ) from error
        if DRY_RUN.value and config:
            look = diffjax.fit if FIT.value else diffjax.dry_run
            look(config, devices=DEVICES.value, accelerator=ACCELERATOR.value)
            return
        if not config or not WORKDIR.value:
            raise diffjax.InputError("give --config and --workdir; see python train.py --help")
        changes, profile, project = ALLOW_CHANGES.value, PROFILE.value, WANDB.value
        diffjax.train(config, WORKDIR.value, allow_changes=changes, profile=profile, wandb=project)


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; a bad one is a sentence and exit status 2, not a traceback."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, OSError, SyntaxError, TypeError, ValueError) as error:
        print(f"error: {str(error).strip()}\nsee python train.py --help", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
