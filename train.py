"""Train a diffusion model, or continue training it.

    python train.py --config configs/digits.py --workdir runs/digits
    python train.py --config configs/digits.py --workdir runs/wide --config.net.width=48 --config.batch_size=128
    python train.py --config configs/cifar10.py --dry_run --devices 8 --accelerator v5e

Whatever the config holds can be changed on the command line.  A workdir that holds a run is continued; Ctrl-C or
SIGTERM saves and ends it.  On several hosts start the same command on each (see --distributed); one SIGTERM ends all.
"""

from absl import app, flags, logging
from ml_collections import config_flags

import diffjax

config_flags.DEFINE_config_file("config", None, "The config file, for example configs/digits.py.", lock_config=True)
flags.DEFINE_string("workdir", None, "The folder of the run: config, checkpoints, metrics, previews.")
flags.DEFINE_string("replay", None, "Do a step again from its black box, and look into it; nothing else.")
flags.DEFINE_bool("dry_run", False, "Compile the step, print what it costs on each device, and end.")
flags.DEFINE_integer("devices", 0, "For --dry_run: so many simulated devices instead of those here.")
flags.DEFINE_bool("fit", False, "With --dry_run: look for the mesh, remat and parts that fit --accelerator.")
flags.DEFINE_string("accelerator", "", "For --dry_run: does it fit h100, h200, v5e, v5p, v6e ...?")
flags.DEFINE_bool("allow_changes", False, "Continue a run although the config has changed.")
flags.DEFINE_bool("distributed", False, "Connect several processes; under SLURM and on pods automatic.")
flags.DEFINE_integer("timeout", 100, "Seconds after which several processes end when one of them is lost.")
flags.DEFINE_integer("profile", 0, "Trace so many steps into WORKDIR/profile, for TensorBoard or Perfetto.")
flags.DEFINE_string("wandb", "", "A project of Weights & Biases that gets the numbers too.")


def main(argv: list[str]) -> None:
    f = flags.FLAGS
    with diffjax.exit_on_input_error():
        if argv[1:]:
            raise diffjax.InputError(f"unexpected arguments {argv[1:]}; every option starts with --")
        diffjax.prepare()
        if f.distributed or diffjax.clustered():
            diffjax.connect(f.timeout)
        config = f.config and f.config.to_dict()
        if f.replay:
            diffjax.replay(f.replay)
        elif f.dry_run and config:
            (diffjax.fit if f.fit else diffjax.dry_run)(config, devices=f.devices, accelerator=f.accelerator)
        elif config and f.workdir:
            diffjax.train(config, f.workdir, allow_changes=f.allow_changes, profile=f.profile, wandb=f.wandb)
        else:
            raise diffjax.InputError("give --config and --workdir; see python train.py --help")


def parse(argv: list[str]) -> list[str]:
    """The flags, and the config that they name; what is wrong with them is a sentence, not a traceback."""
    wrong = flags.Error, AttributeError, KeyError, OSError, SyntaxError, TypeError, ValueError
    with diffjax.exit_on_input_error(*wrong, hint="see python train.py --help"):
        rest = flags.FLAGS(argv)
        _ = flags.FLAGS.config and flags.FLAGS.config.to_dict()  # which says so if it could not be loaded
        return rest


if __name__ == "__main__":
    logging.set_verbosity(logging.FATAL)  # errors reach us as such; --verbosity=0 shows what the libraries do
    app.run(main, flags_parser=parse)
