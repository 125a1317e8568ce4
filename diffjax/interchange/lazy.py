"""Named arrays that are read when they are looked at."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np


class Lazy(Mapping[str, np.ndarray]):
    """A mapping of these names to what `content` makes of each."""

    def __init__(self, names: tuple[str, ...], content: Callable[[str], np.ndarray]):
        self._names, self._content = dict.fromkeys(names), content

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._content(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
