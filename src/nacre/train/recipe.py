"""Recipes: TOML files that say what to train and how, checked against typed settings before any work starts."""

from __future__ import annotations

import difflib
import json
import math
import sys
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from nacre.config import CodecConfig
from nacre.errors import TrainError
from nacre.train.checks import above_zero, check, not_negative, share
from nacre.train.degrade import DegradeConfig
from nacre.train.losses import LossConfig
from nacre.train.nets import NetConfig
from nacre.train.quantisers import HIGHEST_WEIGHT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTS = ("encoder", "decoder", "quantiser")
KINDS = ("scalar",)
KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes"}


@dataclass(frozen=True)
class RateConfig:
    """Targets of the lowest and highest quality level in kb/s; the levels between are spaced geometrically."""

    lowest_kbps: float = 1.0
    highest_kbps: float = 16.0
    start_weight: float = 1e-4

    def __post_init__(self) -> None:
        check(self, "rate", "above 0", above_zero, "lowest_kbps")
        check(self, "rate", "lowest_kbps or more", lambda kbps: kbps >= self.lowest_kbps, "highest_kbps")
        check(self, "rate", f"above 0, at most {HIGHEST_WEIGHT}", lambda w: 0 < w <= HIGHEST_WEIGHT, "start_weight")


@dataclass(frozen=True)
class DataConfig:
    """What one step sees: `batch` excerpts of `excerpt_s` on each process; sources weighed by length ** balance."""

    excerpt_s: float = 1.5
    batch: int = 16
    balance: float = 0.6

    def __post_init__(self) -> None:
        check(self, "data", "above 0", above_zero, "excerpt_s", "batch")
        check(self, "data", "0 or more", not_negative, "balance")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: the parts that learn, for how many steps, how fast. Other parts are frozen."""

    name: str
    steps: int
    train: tuple[str, ...] = PARTS
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_share: float = 0.4  # last share of the stage over which the rate falls linearly to 2 %

    def __post_init__(self) -> None:
        wrong = [part for part in self.train if part not in PARTS]
        if wrong or not self.train:
            raise TrainError(f"stage {self.name}: train", found=list(self.train), wanted=f"some of {list(PARTS)}")
        check(self, f"stage {self.name}", "above 0", above_zero, "steps", "learning_rate")
        check(self, f"stage {self.name}", "0 or more", not_negative, "warmup_steps")
        check(self, f"stage {self.name}", "0 to 1", share, "decay_share")


@dataclass(frozen=True)
class CardConfig:
    """What the model card says beyond the run's own figures: one line a source with its licence, known weaknesses."""

    sources: tuple[str, ...] = ()
    weaknesses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    name: str
    stage: tuple[StageConfig, ...]
    kind: str = "scalar"
    seed: int = 0
    compile: bool = True
    ema_decay: float = 0.999
    checkpoint_steps: int = 500
    validate_steps: int = 2000
    description: str = ""
    licence: str = ""
    codec: CodecConfig = field(default_factory=CodecConfig)
    net: NetConfig = field(default_factory=NetConfig)
    rate: RateConfig = field(default_factory=RateConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    degrade: DegradeConfig = field(default_factory=DegradeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    card: CardConfig = field(default_factory=CardConfig)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TrainError("kind", found=self.kind, wanted=" or ".join(KINDS))
        if not self.stage:
            raise TrainError("recipe", found="no stage", wanted="at least one [[stage]]")
        check(self, "", "0 or more", not_negative, "seed")
        check(self, "", "above 0", above_zero, "checkpoint_steps", "validate_steps")
        check(self, "", "0 to 1", share, "ema_decay")
        shortest_s = (self.codec.delay_samples + self.codec.hop_samples) / self.codec.rate_hz
        check(self.data, "data", f"at least {shortest_s:g} s", lambda s: s >= shortest_s, "excerpt_s")

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stage)

    def stage_at(self, step: int) -> tuple[int, int]:
        """(index of the stage, step inside it) of a step counted over the whole run."""
        for index, stage in enumerate(self.stage):
            if step < stage.steps:
                return index, step
            step -= stage.steps
        return len(self.stage) - 1, self.stage[-1].steps


def build(kind: type[Any], values: Any, where: str = "") -> Any:
    """A frozen dataclass from plain TOML values; raises TrainError naming the key and the nearest valid one."""
    if not isinstance(values, dict):
        raise TrainError(where.removesuffix(".") or "recipe", found=values, wanted="a table of settings")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.0)
            raise TrainError(
                f"{where}{key}",
                found="an unknown key",
                wanted=f"one of {sorted(known)}",
                next=f"did you mean {near[0]}?",
            )
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise TrainError(f"{where}{name}", found="nothing", wanted="a value", next="add it to the recipe")
    return kind(**{key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return build(hint, value, where + ".")
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise TrainError(where, found=value, wanted="a list")
        inner = [h for h in get_args(hint) if h is not Ellipsis]
        if Ellipsis not in get_args(hint) and len(inner) != len(value):
            raise TrainError(where, found=value, wanted=f"{len(inner)} values")
        return tuple(_convert(inner[min(i, len(inner) - 1)], v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise TrainError(where, found=repr(value), wanted=KIND_NAMES[hint])
    if hint is float and not math.isfinite(value):
        raise TrainError(where, found=value, wanted="a finite number")
    return value


def load_recipe(path: Path, changes: tuple[str, ...] = ()) -> Recipe:
    """Recipe from a TOML file; `changes` are key=value overrides such as `data.batch=8` or `stage.0.steps=100`."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TrainError(str(path), found=error.strerror, wanted="a recipe", next="see the folder recipes/") from error
    except UnicodeDecodeError as error:
        raise TrainError(str(path), found="no text", wanted="a recipe", next="see the folder recipes/") from error
    except tomllib.TOMLDecodeError as error:
        raise TrainError(str(path), found=str(error), wanted="TOML", next="mend that line") from error
    for change in changes:
        _override(values, change)
    recipe: Recipe = build(Recipe, values)
    return recipe


def recipe_of(run: Path) -> Recipe:
    """The recipe that a run folder was trained with."""
    path = run / "recipe.json"
    try:
        recipe: Recipe = build(Recipe, json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise TrainError(str(run), found=str(error), wanted="a folder written by `nacre train`") from error
    return recipe


def _override(values: Any, change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise TrainError(f"--set {change}", found="no '='", wanted="key=value", next="such as data.batch=8")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    try:
        for name in path:
            values = values[int(name)] if isinstance(values, list) else values.setdefault(name, {})
        values[int(last) if isinstance(values, list) else last] = value
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise TrainError(f"--set {change}", found="no such place in the recipe", wanted="an existing key") from error
