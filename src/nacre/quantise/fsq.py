"""Kind FSQ: a few values in each dimension inside a bounded range."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BundleError
from nacre.core.types import Floats, Ints
from nacre.io.arrays import Members, read_arrays, write_arrays
from nacre.quantise.base import FILE, MOST_BYTES, Quantiser, check_finite, check_used


@dataclass(frozen=True)
class FiniteScalar(Quantiser):
    """Symbols -n..n in each of D dimensions, of latents squashed into that range; no codebook to learn.

    A level uses the first `dims` [L] dimensions (finite scalar quantisation: Mentzer et al., 2023).
    """

    reach: int
    width: int
    dims: NDArray[np.uint8]

    code, name = 4, "fsq"
    MEMBERS: ClassVar[Members] = {"sizes": ("<u2", 1), "dims": ("|u1", 1)}

    def __post_init__(self) -> None:
        if not 1 <= self.reach <= 127 or not 1 <= self.width <= 255:
            given = f"{self.reach} and {self.width}"
            raise BundleError(f"an FSQ quantiser needs a reach of 1 to 127 and 1 to 255 dims, not {given}")
        check_used(self.dims, self.width)

    @property
    def columns(self) -> int:
        """K = D."""
        return self.width

    width_in = width_out = columns

    @property
    def levels(self) -> int:
        """L."""
        return len(self.dims)

    def used(self, level: int) -> int:
        """Dimensions of a level."""
        return int(self.dims[level])

    def symbols(self, latents: Floats, level: int, limits: Ints, costs: Floats | None = None) -> Ints:
        """latents [T, D] -> symbols [T, D]."""
        check_finite(latents)
        scaled = np.round(self.reach * self.unrounded(latents, level))
        symbols: Ints = np.clip(scaled, -limits, limits).astype(np.int32)
        return symbols

    def unrounded(self, latents: Floats, level: int) -> Floats:
        """Squashed into -1..1, 0 in the dimensions that the level does not use."""
        squashed: Floats = np.tanh(latents)
        squashed[:, self.used(level) :] = 0
        return squashed

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, D] -> latents [T, D] within -1..1."""
        return symbols.astype(np.float32) / np.float32(self.reach)

    @property
    def entries(self) -> int:
        """Values of a dimension."""
        return 2 * self.reach + 1

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays, see `io.arrays`."""
        write_arrays(
            folder / FILE, {"sizes": np.array([self.reach, self.width], "<u2"), "dims": self.dims.astype("u1")}
        )
        return {}

    @classmethod
    def load(cls, folder: Path, facts: dict[str, Any]) -> FiniteScalar:
        """Read what `save` wrote. Raises BundleError."""
        arrays = read_arrays(folder / FILE, cls.MEMBERS, MOST_BYTES)
        if arrays["sizes"].shape != (2,):
            raise BundleError(f"{folder / FILE} must hold two sizes, not {len(arrays['sizes'])}")
        return cls(int(arrays["sizes"][0]), int(arrays["sizes"][1]), arrays["dims"])
