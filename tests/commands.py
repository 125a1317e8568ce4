"""Running the scripts as a user does: another process, one device, the suite's settings and compilation cache.

What a short command spends its time on is importing libraries.  They are imported once, and every script is a fork of
the process that did (multiprocessing's forkserver); from there on all is its own: devices, environment, signals.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ROOT / ".cache" / "jax"))
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.libraries"])
TOY = ["train.py", "--config", "configs/toy_moons.py"]


def settings(devices: int) -> dict[str, str]:
    """What the suite sets for itself and for every process that it starts.

    Its programs run a few times each, so compilation is what they cost: with these settings, a quarter of it.  Every
    program is kept, however small, for another worker or process will want it.
    """
    flags = ["--xla_cpu_parallel_codegen_split_count=1", f"--xla_force_host_platform_device_count={devices}"]
    if metadata.version("jaxlib").startswith("0.10."):  # a later XLA does not know it, and ends the process
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(flags),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def environment(devices: int = 1) -> dict[str, str]:
    return os.environ | settings(devices)


class Script:
    """A fork that runs a script; it is asked and told what a subprocess.Popen is."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        pipes = [FORKS.Pipe(duplex=False) for _ in range(2)]
        self.streams, its = zip(*pipes, strict=True)
        self.process = FORKS.Process(target=_perform, args=(command, environment, *its))
        self.process.start()
        for end in its:
            end.close()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, ...]:
        """(stdout, stderr) until both are closed, also by what the script has left behind; once."""
        readers = ThreadPoolExecutor(2)
        try:
            said = tuple(reading.result(timeout) for reading in [readers.submit(_read, end) for end in self.streams])
        except TimeoutError:
            self.kill()
            raise
        self.process.join()
        return said


def _read(end: Connection) -> str:
    with end, open(end.fileno(), closefd=False) as file:
        return file.read()


def _perform(command: list[str], environment: dict[str, str], out: Connection, err: Connection) -> None:
    """In the fork: become the command."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    out.close()
    err.close()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def start(*arguments: object, devices: int = 1, **more: str) -> Any:
    """A script, or with -c or -m whatever Python does then, as something with the methods of a subprocess.Popen."""
    command, given = list(map(str, arguments)), environment(devices) | more
    if command[0].endswith(".py"):
        return Script(command, given)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=given, **pipes)


def run(*arguments: object, devices: int = 1) -> tuple[int, str, str]:
    """(exit status, stdout, stderr)"""
    process = start(*arguments, devices=devices)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def refused(*arguments: object, devices: int = 1) -> str:
    """The one sentence with which a command refuses: status 2, no traceback."""
    status, out, err = run(*arguments, devices=devices)
    assert status == 2 and "Traceback" not in err, err
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return sentence


def interrupt(
    workdir: Path, number: signal.Signals, *arguments: object, after: str = "metrics.jsonl"
) -> tuple[int, str]:
    """Start training, send a signal once the run has written `after` into its workdir; (exit status, output)."""
    process = start(*arguments, "--workdir", workdir)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        path = workdir / after
        if path.exists() and (path.is_dir() or path.stat().st_size):
            process.send_signal(number)
            break
        time.sleep(0.02)
    out, err = process.communicate(timeout=200)
    return process.returncode, out + err
