"""One engine of a duel: a process that builds a case, and runs it whenever it is asked.

Requests and answers are lines of JSON.  {"build": case, "options": {...}} is answered by what is known of the case
before it is timed, {"run": times} by seconds of each.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """Work that is ready to be timed: `run` does it once, to the end."""

    run: Callable[[], object]
    facts: dict  # parameters, and whatever is worth telling


def serve(cases: Mapping[str, Callable[..., Case]], versions: Mapping[str, str]) -> None:
    """Answer until the other side hangs up.  What libraries print goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    say(out, {"cases": list(cases), "versions": dict(versions)})
    case = Case(lambda: None, {})
    for line in sys.stdin:
        request = json.loads(line)
        if "build" in request:
            case = Case(lambda: None, {})  # the one before may go
            start = time.perf_counter()
            case = cases[request["build"]](**request["options"])
            built = time.perf_counter() - start
            held = resident(fresh=True)
            first = seconds(case.run)
            say(out, case.facts | {"built": built, "first": first, "grown": resident() - held})
        else:
            say(out, {"seconds": [seconds(case.run) for _ in range(request["run"])]})


def say(out, answer: dict) -> None:
    print(json.dumps(answer), file=out, flush=True)


def resident(fresh: bool = False) -> float:
    """MB of the process at its largest since it was last asked `fresh`: then, as it is now.  0 where Linux is not."""
    if not Path("/proc/self/clear_refs").exists():
        return 0.0
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
