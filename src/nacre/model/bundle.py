"""A model is a folder: model.json, two graphs, integer tables. Every part is hash-checked; the fingerprint names it.

model.json      settings, hashes, quantiser steps, measured rates, licence, training data, figures
encoder.onnx    spectra -> latents
decoder.onnx    latents -> spectra
prior.npz       integer count tables
quantiser.npz   steps, codebooks or sizes, for all kinds but scalar, whose steps are in model.json
context.npz     integer network of the context prior, where the model has one
refinement.npz  steps and integer tables of the refinement, where the highest levels have one

A model with a context prior has two fingerprints: a file names by its own which of the priors wrote it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nacre.core.config import CodecConfig
from nacre.core.errors import BundleError, UsageError
from nacre.core.types import Array
from nacre.quantise.base import Quantiser
from nacre.quantise.registry import kind_of

FORMAT = 1
MODELS = Path(__file__).parent.parent / "models"
PARTS = ("encoder.onnx", "decoder.onnx", "prior.npz")
CONTEXT = "context.npz"
REFINEMENT = "refinement.npz"
ENCODES = ("encoder.onnx",)  # the meaning of a file depends on all parts but this one
LARGEST_JSON_BYTES, LARGEST_PART_BYTES = 1 << 20, 256 << 20
HEAD = ("format", "name", "kind", "fingerprint", "sha256", "codec")  # of model.json, made by `save`; facts follow
RATES_HZ = (8_000, 192_000)
NUMBERS = ("rates_kbps", "static_rates_kbps", "steps", "dead_zone", "cleaning_span")


@dataclass(frozen=True)
class Bundle:
    """A checked model folder. Rates and what the kind keeps there are in its facts."""

    folder: Path
    name: str
    kind: int
    config: CodecConfig
    fingerprint: bytes
    static_fingerprint: bytes  # of files written by the static tables; the same where there is no other prior
    facts: dict[str, Any]

    def part(self, name: str) -> Path:
        """Path of a part."""
        return self.folder / name

    @property
    def reads(self) -> dict[str, list[str]]:
        """Fingerprints of the files that this model reads, its own and earlier ones of the same bytes, by prior."""
        earlier = self.facts.get("reads", {})
        own = {"static": self.static_fingerprint} | ({"context": self.fingerprint} if self.has_context else {})
        return {prior: [mark.hex(), *earlier.get(prior, [])] for prior, mark in own.items()}

    @property
    def marks(self) -> tuple[bytes, ...]:
        """All of these."""
        return tuple(bytes.fromhex(mark) for marks in self.reads.values() for mark in marks)

    @property
    def has_context(self) -> bool:
        """Whether there is a context prior."""
        return self.fingerprint != self.static_fingerprint

    @property
    def has_refinement(self) -> bool:
        """Whether the highest levels are refined."""
        return REFINEMENT in self.facts["sha256"]

    def quantiser(self) -> Quantiser:
        """The quantiser of its kind. Raises BundleError."""
        return kind_of(self.kind).load(self.folder, self.facts)

    @cached_property
    def rates_kbps(self) -> Array:
        """Mean rate of one channel of speech at each level [L], measured on files."""
        return np.asarray(self.facts["rates_kbps"], np.float64)

    @cached_property
    def static_rates_kbps(self) -> Array:
        """The same for files written by the static tables."""
        return np.asarray(self.facts.get("static_rates_kbps", self.facts["rates_kbps"]), np.float64)

    @cached_property
    def cleaning_span(self) -> tuple[float, float]:
        """How far cleaned latents lie from plain ones in half, and in nine tenths, of training speech; see Cleaner."""
        low, high = self.facts["cleaning_span"]
        return float(low), float(high)

    @property
    def told(self) -> dict[str, Any]:
        """The facts that `save` is given: all but those it makes itself."""
        return {key: value for key, value in self.facts.items() if key not in HEAD}

    @property
    def size_bytes(self) -> int:
        """Bytes of all files in the folder."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())


def _hash(path: Path) -> str:
    """SHA-256 of a part. Raises BundleError for one that is far too large, before it is read."""
    if path.stat().st_size > LARGEST_PART_BYTES:
        raise BundleError(str(path), found="a huge file", wanted=f"at most {LARGEST_PART_BYTES >> 20} MB")
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def parts_of(kind: int, known: Container[str]) -> tuple[str, ...]:
    """Names of the files a model of this kind consists of, model.json apart; of those it may do without the `known`."""
    return (*PARTS, *kind_of(kind).parts, *(name for name in (CONTEXT, REFINEMENT) if name in known))


def fingerprint(config: CodecConfig, kind: int, meaning: Any, hashes: dict[str, str]) -> bytes:
    """Four bytes that change with anything the decoder's output depends on; `meaning` is of `Quantiser.meaning`."""
    parts = [config.to_dict(), kind, meaning, [hashes[name] for name in parts_of(kind, hashes) if name not in ENCODES]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()[:4]


def save(folder: Path, name: str, kind: int, config: CodecConfig, facts: dict[str, Any]) -> Bundle:
    """Write model.json beside parts that are already in `folder`.

    `facts` hold rates_kbps and what the quantiser's `save` gave; with a context prior static_rates_kbps too.
    """
    hashes = {part: _hash(folder / part) for part in parts_of(kind, {path.name for path in folder.iterdir()})}
    mark = fingerprint(config, kind, kind_of(kind).meaning(facts), hashes)
    head = {"format": FORMAT, "name": name, "kind": kind, "fingerprint": mark.hex(), "sha256": hashes}
    text = json.dumps(head | {"codec": config.to_dict()} | facts, indent=1)
    if "steps" in facts:  # one row a line: a matrix, not a column of a thousand numbers
        rows = ",\n  ".join(json.dumps(row) for row in facts["steps"])
        text = text.replace(json.dumps(facts["steps"], indent=1).replace("\n", "\n "), f"[\n  {rows}\n ]")
    (folder / "model.json").write_text(text + "\n")
    return load(folder)


def load(folder: Path) -> Bundle:
    """Open a model folder; raises BundleError where a part is missing, changed or of another format."""
    bundle = described(folder)
    hashes = bundle.facts["sha256"]
    for part in parts_of(bundle.kind, hashes):
        path = folder / part
        found = _hash(path) if path.is_file() else "nothing"
        if found != hashes.get(part):
            wanted = str(hashes.get(part))[:12]
            raise BundleError(str(path), found=found[:12], wanted=wanted, next="copy the model again")
    return bundle


def described(folder: Path) -> Bundle:
    """What model.json says, checked as far as it goes alone; the parts are not looked at. Raises BundleError."""
    facts = _facts(folder)
    try:
        config = CodecConfig.from_dict(facts["codec"])
        hashes, kind = dict(facts["sha256"]), int(facts["kind"])
        if isinstance(facts["kind"], bool) or _has_bools([facts.get(name) for name in NUMBERS]):
            raise TypeError("true or false in place of a number")
        meaning, without = kind_of(kind).meaning(facts), hashes.copy()
        without.pop(CONTEXT, None)
        marks = fingerprint(config, kind, meaning, hashes), fingerprint(config, kind, meaning, without)
        bundle = Bundle(folder, str(facts["name"]), kind, config, *marks, facts)
        fits = bundle.rates_kbps.shape == bundle.static_rates_kbps.shape == (config.levels,)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"{folder}/model.json", found=repr(error), wanted="all settings of a model") from error
    if not fits:
        raise BundleError(f"{folder}/model.json: rates_kbps", wanted=f"{config.levels} levels")
    _check_numbers(bundle)
    _check_reads(bundle)
    if config.cleans:
        _check_span(bundle)
    return bundle


def _has_bools(values: Any) -> bool:
    """Whether true or false stand anywhere in lists of numbers: Python takes them for 1 and 0."""
    return any(_has_bools(value) for value in values) if isinstance(values, list) else isinstance(values, bool)


def _check_span(bundle: Bundle) -> None:
    try:
        low, high = bundle.cleaning_span
    except (LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{bundle.folder}/model.json: cleaning_span", wanted="two numbers") from error
    if not 0 <= low < high < float("inf"):
        raise BundleError(f"{bundle.folder}/model.json: cleaning_span", found=(low, high), wanted="0 or more, rising")


def _check_reads(bundle: Bundle) -> None:
    try:
        fits = all(len(mark) == 4 for mark in bundle.marks)
    except (TypeError, ValueError, AttributeError):
        fits = False
    if not fits:
        wanted = "fingerprints of 8 hexadecimal digits, by prior"
        raise BundleError(f"{bundle.folder}/model.json: reads", found=bundle.facts.get("reads"), wanted=wanted)


def _check_numbers(bundle: Bundle) -> None:
    place, config = f"{bundle.folder}/model.json", bundle.config
    rates = np.concatenate([bundle.rates_kbps, bundle.static_rates_kbps])
    if not (np.isfinite(rates) & (rates > 0)).all():
        raise BundleError(f"{place}: rates_kbps", wanted="rates above 0")
    found = (config.rate_hz, config.delay_samples, config.window_samples)
    if not RATES_HZ[0] <= config.rate_hz <= RATES_HZ[1] or max(found[1:]) > config.rate_hz:
        names, wanted = "rate_hz, delay_samples, window_samples", f"{RATES_HZ}, at most a second"
        raise BundleError(f"{place}: {names}", found=found, wanted=wanted)
    stated = bundle.facts.get("fingerprint")
    if stated != bundle.fingerprint.hex():
        raise BundleError(f"{place}: settings", found=bundle.fingerprint.hex(), wanted=stated, next="copy it again")


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise BundleError(str(path), found="a huge file", wanted="the settings of a model")
        facts = json.loads(path.read_text())
    except OSError as error:
        raise BundleError(
            str(folder), found=error.strerror, wanted="a model folder", next="see `nacre models`"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(str(path), found="damaged JSON", wanted="the settings of a model") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else type(facts).__name__
        raise BundleError(str(path), found=f"format {found}", wanted=f"format {FORMAT}", next="update nacre")
    return facts


def bundled() -> Iterator[Path]:
    """Folders of the models inside the package."""
    yield from sorted(path.parent for path in MODELS.glob("*/model.json"))


def by_fingerprint(mark: bytes) -> Path | None:
    """Folder of the model inside the package that wrote files with this fingerprint."""
    return next((folder for folder in bundled() if mark in described(folder).marks), None)


def find(name: str | Path) -> Bundle:
    """A model by the name of one in the package, or by its folder."""
    inside = MODELS / str(name)
    if os.path.isfile(inside / "model.json"):  # False where the name is none at all, too long say
        return load(inside)
    if os.path.isfile(Path(name) / "model.json"):
        return load(Path(name))
    known = ", ".join(path.name for path in bundled()) or "none in this package"
    raise UsageError(
        f"model {name}",
        found="no such model",
        wanted=f"one of {known}, or a folder",
        next="see `nacre models`",
    )
