"""Types of arrays. A shape stands in brackets where an array is made: T frames, D dims, K columns, A alphabet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Shares = NDArray[np.float64]  # multiples of 2^-28 that sum to 1 in each row
State = tuple[Array, ...]  # what a signal processor hands on from one call to the next
