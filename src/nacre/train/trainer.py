"""What the training loop asks of whatever trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from nacre.train.run import Run


class Trainer(ABC):
    """Runs the steps of a recipe from wherever its run stands, in each of the processes of `fabric`."""

    recipe: Any  # steps, checkpoint_steps and validate_steps are read here
    run: Run
    fabric: Fabric

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One optimisation step over all processes; returns figures for the log. Raises TrainError if it diverged."""

    @abstractmethod
    def validate(self) -> tuple[str, dict[str, float]]:
        """What the averaged weights reach, as a sentence and as figures for the log."""

    @abstractmethod
    def headline(self, figures: dict[str, float]) -> str:
        """The figures that the progress line shows."""

    def histograms(self) -> dict[str, Tensor]:
        """Distributions for the log."""
        return {}
