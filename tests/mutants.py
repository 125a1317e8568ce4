"""Break formulas one at a time and see whether the laws notice: python -m tests.mutants [--module NAME] [--sample 20]

Every arithmetic operator, number, comparison and function of the chosen files of diffjax/diffusion is changed, one by
one, in a copy of the repository, and that file's tests are run until the first fails.  A mutant that no test fails is
printed as a survivor: either a test is missing or the change changes nothing.  With --sample, so many of each file,
always the same ones.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
LAWS = "tests/laws/"
SOLVER_TESTS = [f"{LAWS}test_orders.py", f"{LAWS}test_solvers.py", f"{LAWS}test_sampling.py"]
# Each file, its tests, and words of which a test's name has to hold one: all other tests are of other rows.
TARGETS = {
    "schedules": ([f"{LAWS}test_schedules.py", f"{LAWS}test_process.py"], ""),
    "parameterizations": ([f"{LAWS}test_predictions.py"], ""),
    "guidance": ([f"{LAWS}test_guidance.py"], ""),
    "likelihood": ([f"{LAWS}test_likelihood.py"], ""),
    "solvers/first_order": (SOLVER_TESTS, "ancestral or ddim or euler or reverse or options"),
    "solvers/linear": (SOLVER_TESTS, "deis or dpmpp or heun or ddim or seeds or noise or elements"),
    "solvers/multistep": (SOLVER_TESTS, "deis or lms or ipndm or unipc or dpmpp_2m or dpmpp_3m or options"),
    "solvers/singlestep": (
        SOLVER_TESTS,
        "heun or restart or dpm_ or 2s or 3s or seeds or dpmpp_sde or churn or options",
    ),
    "solvers/pseudo": (SOLVER_TESTS, "plms or pndm"),
    "solvers/langevin": (SOLVER_TESTS, "predictor or langevin or correct or options"),
    "solvers/inpainting": ([f"{LAWS}test_inpainting.py"], ""),
    "solvers/adaptive": (SOLVER_TESTS, "rk45 or adaptive"),
}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
COMPARISONS = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq}
FUNCTIONS = {"exp": "expm1", "expm1": "exp", "sin": "cos", "cos": "sin", "sqrt": "square", "square": "sqrt"}
FUNCTIONS |= {"minimum": "maximum", "maximum": "minimum", "log": "log1p", "ones_like": "zeros_like", "sum": "mean"}


class Mutate(ast.NodeTransformer):
    """Changes the `wanted`-th place that can be changed, and counts them all."""

    def __init__(self, wanted: int = -1):
        self.wanted, self.count, self.changed = wanted, 0, ""

    def _here(self, node: ast.AST, change: str) -> bool:
        self.count += 1
        if self.count - 1 == self.wanted:
            self.changed = f"line {node.lineno}: {change}"
        return self.count - 1 == self.wanted

    def visit_Raise(self, node):  # what errors say is not a formula
        return node

    def visit_arguments(self, node):  # nor are annotations; defaults are
        node.defaults = [self.visit(default) for default in node.defaults]
        return node

    def visit_Subscript(self, node):  # indices and shapes make errors rather than wrong numbers
        return node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        other = OPERATORS.get(type(node.op))
        if (
            other
            and not isinstance(node.left, ast.List)
            and self._here(node, f"{type(node.op).__name__} -> {other.__name__}")
        ):
            node.op = other()
        return node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant) and self._here(node, "-a -> a"):
            return node.operand
        if isinstance(node.op, ast.Invert) and self._here(node, "~a -> a"):
            return node.operand
        return node

    def visit_Compare(self, node):
        self.generic_visit(node)
        other = COMPARISONS.get(type(node.ops[0]))
        if other and self._here(node, f"{type(node.ops[0]).__name__} -> {other.__name__}"):
            node.ops[0] = other()
        return node

    def visit_Constant(self, node):
        if isinstance(node.value, float) and self._here(node, f"{node.value} -> {node.value * 1.5 + 0.25}"):
            return ast.copy_location(ast.Constant(node.value * 1.5 + 0.25), node)
        return node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        other = FUNCTIONS.get(node.attr)
        if (
            other
            and isinstance(node.value, ast.Name)
            and node.value.id == "jnp"
            and self._here(node, f"{node.attr} -> {other}")
        ):
            node.attr = other
        return node


def places(module: str) -> int:
    counter = Mutate()
    counter.visit(ast.parse(path_in(ROOT, module).read_text()))
    return counter.count


def path_in(root: Path, module: str) -> Path:
    return root / "diffjax" / "diffusion" / f"{module}.py"


def survives(root: Path, module: str, place: int) -> str:
    """What was changed, if the tests pass all the same; "" if one fails, or nothing ends in time."""
    path, text = path_in(root, module), path_in(ROOT, module).read_text()
    mutate = Mutate(place)
    tree = mutate.visit(ast.parse(text))
    path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
    tests, words = TARGETS[module]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    try:
        run = subprocess.run(command + (["-k", words] if words else []), cwd=root, capture_output=True, timeout=1200)
        return mutate.changed if run.returncode == 0 else ""
    except subprocess.TimeoutExpired:
        return ""
    finally:
        path.write_text(text)


def copy_to(folder: Path) -> Path:
    for part in ("diffjax", "tests", "configs", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    (ROOT / ".cache").mkdir(exist_ok=True)
    (folder / ".cache").symlink_to(ROOT / ".cache")  # compiled programs
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", choices=list(TARGETS), help="a file (default: all)")
    parser.add_argument("--sample", type=int, help="so many mutants of each file (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="copies that are tested at a time (default: 2)")
    args = parser.parse_args()
    mutants = []
    for module in args.module or TARGETS:
        numbers = list(range(places(module)))
        some = sorted(random.Random(0).sample(numbers, min(args.sample or len(numbers), len(numbers))))
        mutants += [(module, place) for place in some]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        free: Queue[Path] = Queue()
        for job in range(args.jobs):
            free.put(copy_to(Path(folder) / str(job)))

        def one(mutant):
            root = free.get()
            try:
                return survives(root, *mutant)
            finally:
                free.put(root)

        survivors = list(tqdm(pool.map(one, mutants), total=len(mutants), unit="mutant"))
    for module in args.module or TARGETS:
        own = [change for (name, _), change in zip(mutants, survivors, strict=True) if name == module]
        alive = [change for change in own if change]
        print(
            f"{module}: {len(own) - len(alive)} of {len(own)} killed" + "".join(f"\n    survivor, {a}" for a in alive)
        )
    killed = sum(not change for change in survivors)
    print(f"all: {killed} of {len(mutants)} killed, {100 * killed / len(mutants):.1f} %")
    sys.exit(killed < 0.95 * len(mutants))


if __name__ == "__main__":
    main()
