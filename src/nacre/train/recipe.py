"""Recipes: TOML files that say what to train and how, checked against typed settings before any work starts."""

from __future__ import annotations

import difflib
import json
import math
import sys
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError, reason
from nacre.train.adversary import AdversaryConfig
from nacre.train.bottlenecks.base import Bottleneck, Settings
from nacre.train.bottlenecks.registry import BOTTLENECKS
from nacre.train.checks import above_zero, check, not_negative, one_of, share
from nacre.train.degrade import DegradeConfig, NoiseMixConfig
from nacre.train.losses import LossConfig
from nacre.train.nets.blocks import NetConfig
from nacre.train.rate import HIGHEST_WEIGHT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTS = ("encoder", "decoder", "quantiser")
ROUNDING = ("quantised", "bypassed")
KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes"}


@dataclass(frozen=True)
class RateConfig:
    """Targets of the lowest and highest quality level in kb/s; the levels between are spaced geometrically.

    With `beta` above 0 there are no targets: all levels train with this weight of the KL divergence in nats, reached
    after `warmup_steps`, and differ only in the quantiser's steps afterwards. With `hold` there are none either: each
    level keeps the weight that a run with --from finds at its start, and bits go where the trade leads.
    """

    lowest_kbps: float = 1.0
    highest_kbps: float = 16.0
    start_weight: float = 1e-4
    beta: float = 0.0
    warmup_steps: int = 1000
    hold: bool = False

    def __post_init__(self) -> None:
        check(self, "rate", "above 0", above_zero, "lowest_kbps")
        check(self, "rate", "lowest_kbps or more", lambda kbps: kbps >= self.lowest_kbps, "highest_kbps")
        check(self, "rate", f"above 0, at most {HIGHEST_WEIGHT}", lambda w: 0 < w <= HIGHEST_WEIGHT, "start_weight")
        check(self, "rate", "0 or more", not_negative, "beta")
        check(self, "rate", "above 0", above_zero, "warmup_steps")


@dataclass(frozen=True)
class DataConfig:
    """What one step sees: `batch` excerpts of `excerpt_s` on each process; sources weighed by length ** balance.

    They go through the networks in `accumulate` parts one after the other, and the weights move once.

    With `whole`, an excerpt stays inside one recording and shorter ones are masked; without, short recordings follow
    one another as speech on a line does.
    """

    excerpt_s: float = 1.5
    batch: int = 16
    accumulate: int = 1
    balance: float = 0.6
    whole: bool = False

    def __post_init__(self) -> None:
        check(self, "data", "above 0", above_zero, "excerpt_s", "batch", "accumulate")
        check(self, "data", f"a divisor of batch, {self.batch}", lambda parts: self.batch % parts == 0, "accumulate")
        check(self, "data", "0 or more", not_negative, "balance")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: the parts that learn, for how many steps, how fast. Other parts are frozen.

    `bottleneck` "bypassed" trains without quantiser and rate. `fit` starts codebooks by k-means on the latents.
    The weights multiply the recipe's: of the bits, and of the views of the distortion. `cleaning` is the share of
    excerpts with noise that the encoder learns to leave out; the recipe says which in [dirt]. `adversarial` is the
    gradient that the discriminators of [adversary] have on the sound, as a share of the distortion's: at the lowest
    level, at the highest.
    """

    name: str
    steps: int
    train: tuple[str, ...] = PARTS
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_share: float = 0.4  # last share of the stage over which the rate falls linearly to 2 %
    bottleneck: str = "quantised"
    fit: bool = False
    rate_weight: float = 1.0
    distortion_weight: float = 1.0
    cleaning: float = 0.0
    adversarial: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        wrong = [part for part in self.train if part not in PARTS]
        if wrong or not self.train:
            near = [difflib.get_close_matches(part, PARTS, 1, 0.0)[0] for part in wrong]
            advice = f"did you mean {', '.join(near)}?" if near else "one that is frozen whole learns nothing"
            raise TrainError(f"stage {self.name}: train is {list(self.train)}, not some of {list(PARTS)}; {advice}")
        one_of(self, f"stage {self.name}", ROUNDING, "bottleneck")
        check(self, f"stage {self.name}", "0 or more", not_negative, "rate_weight")
        check(self, f"stage {self.name}", "two numbers, 0 or more", lambda pair: min(pair) >= 0, "adversarial")
        check(self, f"stage {self.name}", "above 0", above_zero, "steps", "learning_rate", "distortion_weight")
        check(self, f"stage {self.name}", "0 or more", not_negative, "warmup_steps")
        check(self, f"stage {self.name}", "0 to 1", share, "decay_share", "cleaning")


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
    quantiser: Settings = field(default_factory=Settings)  # of the kind
    rate: RateConfig = field(default_factory=RateConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    degrade: DegradeConfig = field(default_factory=DegradeConfig)
    dirt: NoiseMixConfig = field(default_factory=NoiseMixConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    data: DataConfig = field(default_factory=DataConfig)
    card: CardConfig = field(default_factory=CardConfig)

    def __post_init__(self) -> None:
        one_of(self, "", BOTTLENECKS, "kind")
        if not self.stage:
            raise TrainError("the recipe has no stage; add a [[stage]]")
        check(self, "", "0 or more", not_negative, "seed")
        check(self, "", "above 0", above_zero, "checkpoint_steps", "validate_steps")
        check(self, "", "0 to 1", share, "ema_decay")
        self._check_stages()
        self._check_sizes()
        shortest_s = (self.codec.delay_samples + self.codec.hop_samples) / self.codec.rate_hz
        check(self.data, "data", f"at least {shortest_s:g} s", lambda s: s >= shortest_s, "excerpt_s")

    def _check_stages(self) -> None:
        """Raise TrainError for a stage in which nothing can learn, or that fits codebooks where there are none."""
        for stage in self.stage:
            alone = set(stage.train) == {"quantiser"}
            if alone and (not self.bottleneck.learns or stage.bottleneck == "bypassed"):
                nothing = f"in which nothing learns with kind {self.kind}, {stage.bottleneck}"
                advice = "add encoder or decoder"
                raise TrainError(f"stage {stage.name}: train is {list(stage.train)}, {nothing}; {advice}")
            if stage.cleaning and not (self.codec.cleans and self.bottleneck.denoises and not self.codec.mel_bands):
                advice = "set codec.cleans = true, for sound, or leave it out"
                found = f"stage {stage.name}: cleaning is {stage.cleaning}"
                raise TrainError(f"{found}, but the encoder has no levels for it; {advice}")
            if any(stage.adversarial) and stage.steps <= self.adversary.settle_steps:
                wanted = f"more than adversary.settle_steps, {self.adversary.settle_steps}, or discriminators never act"
                raise TrainError(f"stage {stage.name}: steps is {stage.steps}; it must be {wanted}")
            if any(stage.adversarial) and (self.codec.mel_bands or "decoder" not in stage.train):
                without = "log-mel frames have" if self.codec.mel_bands else f"train = {list(stage.train)} has"
                found = f"stage {stage.name}: {without} no decoder that learns to make sound"
                raise TrainError(f"{found}; leave adversarial out")
            if stage.fit and not self.bottleneck.fits:
                raise TrainError(f"stage {stage.name}: kind {self.kind} has no codebooks, as rvq has; leave fit out")

    def _check_sizes(self) -> None:
        """Raise TrainError for sizes that fit no model folder, or contradict each other."""
        codec, most = self.codec, self.bottleneck.most_dims
        check(codec, "codec", f"at most {most} for kind {self.kind}", lambda dims: dims <= most, "latent_dims")
        self.quantiser.check_codec(codec)
        if codec.mel_bands:
            lag = codec.window_samples - codec.step_samples
            wanted = f"{lag} with mel_bands, window_samples less step_samples"
            check(codec, "codec", wanted, lambda delay: delay == lag, "delay_samples")

    @property
    def bottleneck(self) -> type[Bottleneck]:
        """The kind's class."""
        return BOTTLENECKS[self.kind]

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


def parse(values: Any, earlier: bool = False) -> Recipe:
    """A recipe from plain values; raises TrainError. `earlier`: versions before wrote settings of all kinds into it."""
    if not isinstance(values, dict):
        raise TrainError(f"the recipe is {str(values)[:60]}; it must be a table of settings")
    name = values.get("kind", Recipe.kind)
    bottleneck = BOTTLENECKS.get(name) if isinstance(name, str) else None
    settings = bottleneck.settings_type if bottleneck else Settings  # an unknown kind is refused by the recipe itself
    given = values.get("quantiser", {})
    if earlier and isinstance(given, dict):
        given = {key: value for key, value in given.items() if key in {f.name for f in fields(settings)}}
    recipe: Recipe = build(Recipe, values | {"quantiser": given}, types={"quantiser": settings})
    return recipe


def build(kind: type[Any], values: Any, where: str = "", types: dict[str, type[Any]] | None = None) -> Any:
    """A frozen dataclass from plain TOML values; raises TrainError naming the key and the nearest valid one.

    `types` of fields go before those that the dataclass states.
    """
    if not isinstance(values, dict):
        raise TrainError(f"{where.removesuffix('.') or 'recipe'} is {str(values)[:60]}; it must be a table of settings")
    hints = get_type_hints(kind) | (types or {})
    known = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.0)
            there = f"there are {', '.join(sorted(known))}" if known else "this kind has no settings"
            advice = f"did you mean {near[0]}?" if near else "leave it out"
            raise TrainError(f"{where}{key} is an unknown key; {there}; {advice}")
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise TrainError(f"{where}{name} has no value; add it to the recipe")
    return kind(**{key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return build(hint, value, where + ".")
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise TrainError(f"{where} is {value!r}; it must be a list")
        inner = [h for h in get_args(hint) if h is not Ellipsis]
        if Ellipsis not in get_args(hint) and len(inner) != len(value):
            raise TrainError(f"{where} is {value!r}; it must be {len(inner)} values")
        return tuple(_convert(inner[min(i, len(inner) - 1)], v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise TrainError(f"{where} is {value!r}; it must be {KIND_NAMES[hint]}")
    if hint is float and not math.isfinite(value):
        raise TrainError(f"{where} is {value}; it must be a finite number")
    return value


def load_recipe(path: Path, changes: tuple[str, ...] = ()) -> Recipe:
    """Recipe from a TOML file; `changes` are key=value overrides such as `data.batch=8` or `stage.0.steps=100`."""
    return parse(read_values(path, changes))


def read_values(path: Path, changes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The plain values of a TOML file with overrides, not checked yet. Raises TrainError.

    A recipe with `base = "other.toml"` states only how it differs from that one, which lies beside it.
    """
    values = _read(path)
    if "base" in values:
        name = values.pop("base")
        if not isinstance(name, str) or Path(name).name != name:
            raise TrainError(f"{path}: base is {name!r}; it must be the name of a recipe beside it")
        base = _read(path.with_name(name))
        if "base" in base:
            raise TrainError(f"{path}: base is {name}, which has a base itself; name one that stands alone")
        values = _merged(base, values)
    for change in changes:
        override(values, change)
    return values


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """base with changes, table by table; lists, stages among them, are replaced whole."""
    nested = {
        key: _merged(base[key], value)
        for key, value in changes.items()
        if isinstance(base.get(key), dict) and isinstance(value, dict)
    }
    return base | changes | nested


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TrainError(f"{path} cannot be read: {reason(error)}; recipes are in the folder recipes/") from error
    except UnicodeDecodeError as error:
        raise TrainError(f"{path} is no text, so no recipe; recipes are in the folder recipes/") from error
    except tomllib.TOMLDecodeError as error:
        raise TrainError(f"{path} is no TOML: {error}; mend that line") from error


def recipe_of(run: Path) -> Recipe:
    """The recipe that a run folder was trained with."""
    path = run / "recipe.json"
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainError(f"{run} is no folder written by `nacre train`: {reason(error)}") from error
    return parse(values, earlier=True)


def override(values: Any, change: str) -> None:
    """Put one key=value, as of --set, into plain recipe values."""
    key, equals, text = change.partition("=")
    if not equals:
        raise TrainError(f"--set {change} has no =; give key=value, such as data.batch=8")
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
        raise TrainError(f"--set {change}: the recipe has no such place; check the key") from error
