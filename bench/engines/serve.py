"""One engine of a duel: a process that builds a case, and runs it whenever it is asked.

Requests and answers are lines of JSON.  {"build": case, "options": {...}} is answered by what is known of the case
before it is timed, {"run": times} by seconds of each.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
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
            say(out, case.facts | {"built": built, "first": seconds(case.run)})
        else:
            say(out, {"seconds": [seconds(case.run) for _ in range(request["run"])]})


def say(out, answer: dict) -> None:
    print(json.dumps(answer), file=out, flush=True)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
