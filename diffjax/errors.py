"""The one exception that means "the user can fix this".

Every message is one sentence that says what was got, what was expected and what to do.  Scripts print it alone and exit
with status 2; anything else that goes wrong is a bug and keeps its traceback.
"""

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


class InputError(ValueError):
    """Bad input: a sentence for the user, never a traceback."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a `name` that is not among the `known` names of a `kind` ("solver", "split of digits")."""
    known, (what, of, whose) = sorted(known), kind.partition(" of ")
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"no {what} '{name}'{of}{whose}; {hint}known: {', '.join(known) or 'none'}")


@contextlib.contextmanager
def exit_on_input_error(*others: type[Exception], hint: str = "") -> Iterator[None]:
    """Turn an InputError, or the last line of one of the others, into a sentence on stderr and exit status 2."""
    try:
        yield
    except (InputError, *others) as error:
        said = str(error) if isinstance(error, InputError) else (str(error).strip() or repr(error)).splitlines()[-1]
        print(f"error: {said.strip()}" + (f"\n{hint}" if hint else ""), file=sys.stderr)
        raise SystemExit(2) from None


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with a file in a folder, as on a full disk, into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write into {folder}: {error.strerror or error}; what was saved there before is as it was: make "
            f"room or repair it, and run the same command again"
        ) from error
