"""A growing column of numbers without a Python object for each."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Column:
    """Numbers of one type, in one block that grows by a quarter when it is full."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._block: NDArray[Any] = np.empty(1024, dtype=dtype)
        self._size = 0
        # Numbers that came one by one: copied together, they take a tenth of the time.
        self._waiting: list[int] = []

    def append(self, values: Iterable[int]) -> None:
        """Append some numbers."""
        self._waiting.extend(values)

    def extend(self, values: NDArray[Any]) -> None:
        """Append many; of integers that are too large, the lower bits."""
        size = len(self.view) + len(values)
        if size > len(self._block):
            block = np.empty(max(size, 5 * len(self._block) // 4), dtype=self._block.dtype)
            block[: self._size] = self._block[: self._size]
            self._block = block
        self._block[self._size : size] = values
        self._size = size

    def cut(self, size: int) -> None:
        """Keep the first ``size`` numbers."""
        self._size = len(self.view[:size])

    @property
    def view(self) -> NDArray[Any]:
        """The numbers; good until the next change."""
        if self._waiting:
            values, self._waiting = self._waiting, []
            self.extend(np.array(values, dtype=self._block.dtype))
        return self._block[: self._size]
