"""A model is a folder: model.json, two graphs, integer tables. Every part is hash-checked; the fingerprint names it.

model.json              settings, hashes, quantiser steps, measured rates, licence, training data, figures
encoder.onnx            spectra -> latents
decoder.onnx            latents -> spectra
prior.safetensors       integer count tables
quantiser.safetensors   steps, codebooks or sizes, for all kinds but scalar, whose steps are in model.json
context.safetensors     integer network of the context prior, where the model has one
refinement.safetensors  steps and integer tables of the residual layer, where the highest levels have one
denoiser.onnx           spectra -> complex masks, where the model has a denoiser: before the encoder, no part of files

Models of earlier versions have their arrays as npz.

A model with a context prior has two fingerprints: a file names by its own which of the priors wrote it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nacre.core.config import CodecConfig, DenoiserConfig
from nacre.core.errors import BundleError, UsageError
from nacre.core.types import Array
from nacre.io.arrays import EARLIER_SUFFIX, SUFFIX, earlier
from nacre.model.facts import FORMAT, Facts
from nacre.quantise.base import Quantiser
from nacre.quantise.registry import kind_of

MODELS = Path(__file__).parent.parent / "models"
PRIOR = "prior.safetensors"
CONTEXT = "context.safetensors"
RESIDUAL = "refinement.safetensors"
PARTS = ("encoder.onnx", "decoder.onnx", PRIOR)
DENOISER = "denoiser.onnx"
ENCODES = ("encoder.onnx", DENOISER)  # the meaning of a file depends on all parts but these
LARGEST_PART_BYTES = 256 << 20
HEAD = ("format", "name", "kind", "fingerprint", "sha256", "codec")  # of model.json, made by `save`; facts follow


@dataclass(frozen=True)
class Bundle:
    """A checked model folder."""

    folder: Path
    facts: Facts
    fingerprint: bytes
    static_fingerprint: bytes  # of files written by the static tables; the same where there is no other prior

    @property
    def name(self) -> str:
        """The model's name."""
        return self.facts.name

    @property
    def kind(self) -> int:
        """Code of its kind of latents."""
        return self.facts.kind

    @property
    def config(self) -> CodecConfig:
        """Settings."""
        return self.facts.config

    @property
    def rates_kbps(self) -> Array:
        """Mean rate of one channel of speech at each level [L], measured on files."""
        return self.facts.rates_kbps

    @property
    def static_rates_kbps(self) -> Array:
        """The same for files written by the static tables."""
        return self.facts.static_rates_kbps

    def part(self, name: str) -> Path:
        """Path of a part; arrays may be in the form of an earlier version."""
        return self.folder / _form(name, self.facts.hashes)

    @property
    def reads(self) -> dict[str, list[str]]:
        """Fingerprints of the files that this model reads, its own and earlier ones of the same bytes, by prior."""
        own = {"static": self.static_fingerprint} | ({"context": self.fingerprint} if self.has_context else {})
        return {prior: [each.hex() for each in (mine, *self.facts.reads.get(prior, ()))] for prior, mine in own.items()}

    @property
    def fingerprints(self) -> tuple[bytes, ...]:
        """All of these."""
        return tuple(bytes.fromhex(each) for listed in self.reads.values() for each in listed)

    @property
    def has_context(self) -> bool:
        """Whether there is a context prior."""
        return self.fingerprint != self.static_fingerprint

    @property
    def has_residual(self) -> bool:
        """Whether the highest levels have a residual layer."""
        return _form(RESIDUAL, self.facts.hashes) in self.facts.hashes

    @property
    def denoiser(self) -> DenoiserConfig | None:
        """How its denoiser sees sound; None where it has none."""
        return self.facts.denoiser if DENOISER in self.facts.hashes else None

    def quantiser(self) -> Quantiser:
        """The quantiser of its kind. Raises BundleError."""
        return kind_of(self.kind).load(self.folder, self.facts.values)

    @property
    def metadata(self) -> dict[str, Any]:
        """What `save` is given: all of model.json but what it makes itself."""
        return {key: value for key, value in self.facts.values.items() if key not in HEAD}

    @property
    def size_bytes(self) -> int:
        """Bytes of all files in the folder."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())


def _hash(path: Path) -> str:
    """SHA-256 of a part. Raises BundleError for one that is far too large, before it is read."""
    if path.stat().st_size > LARGEST_PART_BYTES:
        raise BundleError(f"{path} is larger than {LARGEST_PART_BYTES >> 20} MB, the most a part of a model may have")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parts_of(kind: int, known: Container[str]) -> tuple[str, ...]:
    """Names of the files a model of this kind consists of, model.json apart; of those it may do without the `known`."""
    needed = [_form(name, known) for name in (*PARTS, *kind_of(kind).parts)]
    return (*needed, *(form for name in (CONTEXT, RESIDUAL, DENOISER) if (form := _form(name, known)) in known))


def _form(name: str, known: Container[str]) -> str:
    """The name of a part, or that in earlier versions where only this is known."""
    older = earlier(Path(name)).name
    return older if name not in known and older in known else name


def fingerprint(config: CodecConfig, kind: int, meaning: Any, hashes: dict[str, str]) -> bytes:
    """Four bytes that change with anything the decoder's output depends on; `meaning` is of `Quantiser.meaning`."""
    parts = [config.to_dict(), kind, meaning, [hashes[name] for name in parts_of(kind, hashes) if name not in ENCODES]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()[:4]


def save(folder: Path, name: str, kind: int, config: CodecConfig, facts: dict[str, Any]) -> Bundle:
    """Write model.json beside parts that are already in `folder`.

    `facts` hold rates_kbps and what the quantiser's `save` gave; with a context prior static_rates_kbps too.
    """
    hashes = {part: _hash(folder / part) for part in parts_of(kind, {path.name for path in folder.iterdir()})}
    made = fingerprint(config, kind, kind_of(kind).meaning(facts), hashes)
    head = {"format": FORMAT, "name": name, "kind": kind, "fingerprint": made.hex(), "sha256": hashes}
    text = json.dumps(head | {"codec": config.to_dict()} | facts, indent=1)
    if "steps" in facts:  # one row a line: a matrix, not a column of a thousand numbers
        rows = ",\n  ".join(json.dumps(row) for row in facts["steps"])
        text = text.replace(json.dumps(facts["steps"], indent=1).replace("\n", "\n "), f"[\n  {rows}\n ]")
    (folder / "model.json").write_text(text + "\n")
    return load(folder)


def load(folder: Path) -> Bundle:
    """Open a model folder; raises BundleError where a part is missing, changed or of another format."""
    bundle = described(folder)
    hashes = bundle.facts.hashes
    for part in parts_of(bundle.kind, hashes):
        path = folder / part
        if path.suffix == EARLIER_SUFFIX and (newer := path.with_suffix(SUFFIX)).exists():
            raise BundleError(f"{newer} stands beside {part}, which alone belongs there; copy the model again")
        if not path.is_file():
            raise BundleError(f"{path} is missing; copy the model again")
        if (digest := _hash(path)) != hashes.get(part):
            hashed = f"hash {digest[:12]}, not {str(hashes.get(part))[:12]}"
            raise BundleError(f"{path} is damaged or of another model ({hashed}); copy the model again")
    return bundle


def described(folder: Path) -> Bundle:
    """What model.json says, checked as far as it goes alone; the parts are not looked at. Raises BundleError."""
    facts = Facts.read(folder)
    place, without = f"{folder}/model.json", facts.hashes.copy()
    without.pop(_form(CONTEXT, without), None)
    if DENOISER in facts.hashes and facts.denoiser is None:
        raise BundleError(f"{place} lacks the settings of {DENOISER}; copy the model again")
    try:
        meaning = kind_of(facts.kind).meaning(facts.values)
        prints = [fingerprint(facts.config, facts.kind, meaning, hashes) for hashes in (facts.hashes, without)]
    except (LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{place} lacks settings of a model ({error!r}); copy the model again") from error
    if facts.fingerprint != prints[0].hex():
        given = f"fingerprint {prints[0].hex()}, not {facts.fingerprint}"
        raise BundleError(f"{place} was changed ({given}); copy the model again")
    return Bundle(folder, facts, *prints)


def bundled() -> Iterator[Path]:
    """Folders of the models inside the package."""
    yield from sorted(path.parent for path in MODELS.glob("*/model.json"))


def by_fingerprint(fingerprint: bytes) -> Path | None:
    """Folder of the model inside the package that wrote files with this fingerprint."""
    return _inside(MODELS).get(fingerprint)


@cache
def _inside(models: Path) -> dict[bytes, Path]:
    """Folders of the models in the package by all fingerprints that they read; a batch looks here for every file."""
    folders = [path.parent for path in sorted(models.glob("*/model.json"))]
    return {each: folder for folder in reversed(folders) for each in described(folder).fingerprints}


def find(name: str | Path) -> Bundle:
    """A model by the name of one in the package, or by its folder. Raises UsageError."""
    inside = MODELS / str(name)
    if os.path.isfile(inside / "model.json"):  # False where the name is none at all, too long say
        return load(inside)
    if os.path.isfile(Path(name) / "model.json"):
        return load(Path(name))
    if os.path.isdir(name):
        raise UsageError(f"folder {name} holds no model, for it has no model.json; give one that nacre export made")
    known = ", ".join(path.name for path in bundled())
    advice = f"give a folder, or one that nacre models lists, such as {known}"
    raise UsageError(f"there is no such model as {name}; {advice}")
