"""What a checkpoint holds, field by field and leaf by leaf, and whether it is what a target asks for."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jaxtyping import PyTree

from diffjax.errors import InputError

State = PyTree  # a NamedTuple or a dict, of pytrees of arrays


def fields(state: State) -> dict[str, PyTree]:
    """The top-level fields that are there, each of them one item of the checkpoint.  Raises InputError for a name."""
    found = state._asdict() if hasattr(state, "_asdict") else dict(state)
    for name in found:
        if not str(name).isidentifier() or name == "meta":
            raise InputError(f"a state cannot have a field named '{name}'; use an identifier other than 'meta'")
    return {name: tree for name, tree in found.items() if tree is not None}


def items(leaves: Mapping[str, Any], args: type) -> dict[str, Any]:
    """Orbax arguments per field; without the empty leaves, which Orbax refuses and which hold nothing to store."""
    filled = dict.fromkeys(path.split("/")[0] for path, leaf in leaves.items() if leaf.size)
    return {f: args({p: leaf for p, leaf in leaves.items() if p.split("/")[0] == f and leaf.size}) for f in filled}


def abstract(leaves: Mapping[str, Any]) -> dict[str, str]:
    """{'params/w': 'float32[8,16]'}: what a record keeps of a tree, and a target is compared with."""
    return {path: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for path, leaf in leaves.items()}


def difference(wanted: Mapping[str, str], stored: Mapping[str, str]) -> str | None:
    """The first difference of two abstract trees in words, or None."""
    for path in [*wanted, *stored]:
        if path not in stored:
            return f"'{path}' ({wanted[path]}) is missing from it"
        if path not in wanted:
            return f"it has '{path}' ({stored[path]}), which the target lacks"
        if wanted[path] != stored[path]:
            return f"'{path}' is {stored[path]} in it and {wanted[path]} in the target"
    return None


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record's JSON, without the entry that holds it."""
    content = json.dumps({key: value for key, value in record.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
