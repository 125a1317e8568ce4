"""Several processes that are one run, usually one on each host: finding each other, and being told when one is lost."""

import atexit
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from diffjax.errors import InputError

VARIABLES = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}

# Runs beside a process, and speaks when that ends without having said goodbye: whatever has ended it.
EPITAPH = """
import sys
if not sys.stdin.read():
    sys.stderr.write(sys.argv[1])
"""


def clustered() -> bool:
    """Whether the environment says that this process is one of several: those of a pod of TPUs, SLURM or MPI."""
    tasks = max(int(os.environ.get(name) or 1) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    hosts = len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(","))
    named = any(os.environ.get(name) for name in ("JAX_COORDINATOR_ADDRESS", "MEGASCALE_COORDINATOR_ADDRESS"))
    chips = any(Path("/dev").glob("accel*")) and "TPU_ACCELERATOR_TYPE" in os.environ
    return max(tasks, hosts) > 1 or named or chips


def connect(timeout: int = 100) -> None:
    """Join the processes of one run, before anything else of jax: on a TPU pod or under SLURM jax finds them by itself,
    elsewhere JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID name them.

    When one of them is lost the others end, after so many seconds at most, and say so.
    """
    if timeout < 1:
        raise InputError(f"the time-out must be at least 1 second; got {timeout}")
    try:
        given: dict[str, Any] = {
            option: int(os.environ[name]) for option, name in VARIABLES.items() if name in os.environ
        }
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=timeout)
    except ValueError as error:
        raise InputError(
            f"cannot connect the processes of this run: {error}; outside a TPU pod or a SLURM job set "
            f"JAX_COORDINATOR_ADDRESS, {' and '.join(VARIABLES.values())} for each of them"
        ) from error
    if jax.process_count() > 1:
        _leave_epitaph()


def _leave_epitaph() -> None:
    """jax ends a process whose peers are lost at once, in the middle of its work: nothing of ours would run then."""
    sentence = (
        f"error: process {jax.process_index()} of {jax.process_count()} ended before the run did: it was killed, or "
        f"another process of the run was lost; start the same command on every host to continue at the newest good "
        f"checkpoint\n"
    )
    # A session of its own: what is sent to the whole group, as Ctrl-C is, is not for it.
    beside = subprocess.Popen([sys.executable, "-IS", "-c", EPITAPH, sentence], stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip

    def farewell() -> None:
        beside.communicate(b"goodbye")

    atexit.register(farewell)
