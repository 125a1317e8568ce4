"""Where the splits of a data set on disk are: a path may hold "{split}"."""

from pathlib import Path

from diffjax.errors import InputError


def located(path: str, split: str) -> Path:
    """The existing file or folder of a split.  Raises InputError if there is none, or one for all splits."""
    if "{split}" not in path and split != "train":
        raise InputError(
            f"data.path '{path}' is the same for every split; write {{split}} where it differs, "
            f"or set data.heldout to ''"
        )
    found = Path(path.replace("{split}", split)).expanduser()
    if not found.exists():
        raise InputError(f"there is no {found}; check data.path and data.split")
    return found
