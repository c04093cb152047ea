"""What every kind of latents offers. All turn latents [T, X] of the encoder graph into symbols [T, K] around 0, and
those into latents [T, D] for the decoder graph.

    ScalarQuantiser    1 scalar    one step and dead zone for each level and dimension
    GaussianQuantiser  2 gaussian  steps from the width of the posterior; unsure latents give way to cheap symbols
    ResidualVQ         3 rvq       codebooks, each for what the ones before left over
    FiniteScalar       4 fsq       a few values in each dimension inside a bounded range
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import AudioError, BundleError
from nacre.core.types import Floats, Ints

MOST_BYTES = 16 << 20  # of one array in a file
FILE = "quantiser.safetensors"


class Quantiser(ABC):
    """A kind of latents. Its class says what it is called; an object is what one model has of it."""

    code: ClassVar[int]  # as written in files, 1 to 15; 1 to 7 are nacre's own
    name: ClassVar[str]  # in recipes and in what is shown
    parts: ClassVar[tuple[str, ...]] = (FILE,)  # its files in a model folder
    ordered: ClassVar[bool] = True  # symbols that are near stand for latents that are near

    @property
    @abstractmethod
    def columns(self) -> int:
        """Symbols a frame, K."""

    @property
    @abstractmethod
    def width_in(self) -> int:
        """Numbers a frame the encoder graph gives, X."""

    @property
    @abstractmethod
    def width_out(self) -> int:
        """Numbers a frame the decoder graph takes, D."""

    @property
    @abstractmethod
    def levels(self) -> int:
        """Quality levels, L."""

    @property
    def entries(self) -> int:
        """How many symbols every column has, all of which get a code; 0 where there is no end to them."""
        return 0

    @property
    def scales(self) -> Floats | None:
        """How large a step of a symbol is [L, K], of kinds whose symbols a context prior can code; else None."""
        return None

    @abstractmethod
    def symbols(self, latents: Floats, level: int, limits: Ints, costs: Floats | None = None) -> Ints:
        """latents [T, X] -> symbols [T, K] within +-limits [K]; costs [K, A] are the bits of each symbol.

        Raises AudioError where latents are not finite.
        """

    @abstractmethod
    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, K] -> latents [T, D] for the decoder graph."""

    def unrounded(self, latents: Floats, level: int) -> Floats:
        """latents [T, X] -> latents [T, D] for the decoder graph if nothing were rounded."""
        return latents

    def used(self, level: int) -> int:
        """How many of the K columns a level uses; the others are 0."""
        return self.columns

    @property
    def counts_bits(self) -> bool:
        """Whether symbols depend on what they cost."""
        return False

    def use(self, tokens: Ints) -> dict[str, Any]:
        """Facts for model.json of how tokens [T, K] of training speech are spread; of kinds with `entries` only."""
        return {}

    def check_tables(self, counts: Ints) -> None:  # noqa: B027 - a kind without end clips its symbols
        """Raise BundleError unless the static prior's tables [L, K, A] have a code for every symbol that may come."""

    @abstractmethod
    def save(self, folder: Path) -> dict[str, Any]:
        """Write `parts` into a model folder; what is to stand in its model.json."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, facts: dict[str, Any]) -> Quantiser:
        """What `save` wrote. Raises BundleError for anything else."""

    @classmethod
    def meaning(cls, facts: dict[str, Any]) -> Any:
        """What of model.json symbols cannot be understood without: part of a model's fingerprint."""
        return []


def check_finite(latents: Floats) -> None:
    """Raise AudioError, naming the place, unless all latents [T, D] are finite."""
    if not np.isfinite(latents).all():
        frame, dim = np.argwhere(~np.isfinite(latents))[0].tolist()
        place = f"frame {frame}, dim {dim}"
        raise AudioError(f"the latent of {place} is {latents[frame, dim]}; the samples or the encoder are damaged")


def check_used(used: NDArray[np.uint8], columns: int) -> None:
    """Raise BundleError unless each of `used` [L] is 1 to `columns`."""
    if not 1 <= len(used) <= 16 or not ((used >= 1) & (used <= columns)).all():
        raise BundleError(f"each of 1 to 16 levels must use 1 to {columns} columns, not {used.tolist()}")
