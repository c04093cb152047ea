"""What model.json says of a model: read once, without trust, into typed values."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nacre.core.config import CodecConfig, DenoiserConfig
from nacre.core.errors import BundleError, reason
from nacre.core.types import Array

FORMAT = 1
LARGEST_BYTES = 1 << 20
RATES_HZ = (8_000, 192_000)
NUMBERS = ("kind", "rates_kbps", "static_rates_kbps", "steps", "dead_zone", "cleaning_span")


@dataclass(frozen=True, eq=False)
class Facts:
    """A checked model.json. Creation raises BundleError, TypeError or ValueError, `read` BundleError alone."""

    name: str
    kind: int
    fingerprint: str
    config: CodecConfig
    hashes: dict[str, str]  # SHA-256 of every part
    rates_kbps: Array  # mean rate of one channel of speech at each level [L], measured on files
    static_rates_kbps: Array  # the same for files written by the static tables
    cleaning_span: tuple[float, float] | None  # see nacre.codec.latent_denoiser
    reads: dict[str, tuple[bytes, ...]]  # fingerprints of earlier models of the same bytes, by prior
    licence: str
    training: dict[str, Any]  # recipe, steps, sources
    refinement: dict[str, Any]  # how it was made, empty without one
    denoiser: DenoiserConfig | None
    codebooks: dict[str, Any]  # how much of them training speech used, of kinds that have some
    values: dict[str, Any]  # all of it as it stands there, for what a kind keeps

    @classmethod
    def read(cls, folder: Path) -> Facts:
        """Of a model folder. Raises BundleError."""
        values, place = _json(folder), f"{folder}/model.json"
        try:
            facts = cls._from(values)
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise BundleError(f"{place} lacks settings of a model ({error!r}); copy the model again") from error
        except BundleError as error:
            raise BundleError(f"{place}: {error}") from error
        return facts

    @classmethod
    def _from(cls, values: dict[str, Any]) -> Facts:
        if _has_bools([values.get(name) for name in NUMBERS]):
            raise TypeError("true or false in place of a number")
        config, rates = CodecConfig.from_dict(values["codec"]), values["rates_kbps"]
        facts = cls(
            str(values["name"]),
            int(values["kind"]),
            str(values.get("fingerprint")),
            config,
            dict(values["sha256"]),
            np.asarray(rates, np.float64),
            np.asarray(values.get("static_rates_kbps", rates), np.float64),
            _span(values.get("cleaning_span")) if config.cleans else None,
            _reads(values.get("reads", {})),
            str(values.get("licence", "")),
            dict(values.get("training") or {}),
            dict(values.get("refinement") or {}),
            _denoiser(values.get("denoiser")),
            dict(values.get("codebooks") or {}),
            values,
        )
        facts._check_rates()
        return facts

    def _check_rates(self) -> None:
        c = self.config
        if not self.rates_kbps.shape == self.static_rates_kbps.shape == (c.levels,):
            raise BundleError(f"rates_kbps must hold a rate for each of {c.levels} levels")
        rates = np.concatenate([self.rates_kbps, self.static_rates_kbps])
        if not (np.isfinite(rates) & (rates > 0)).all():
            raise BundleError("rates_kbps must be finite and above 0")
        if not RATES_HZ[0] <= c.rate_hz <= RATES_HZ[1]:
            raise BundleError(f"rate_hz must be {RATES_HZ[0]} to {RATES_HZ[1]}, not {c.rate_hz}")
        if max(c.delay_samples, c.window_samples) > c.rate_hz:
            given = f"{c.delay_samples} and {c.window_samples}"
            raise BundleError(f"delay_samples and window_samples must be at most a second, {c.rate_hz}, not {given}")


def _span(value: Any) -> tuple[float, float]:
    try:
        low, high = map(float, value)
    except (TypeError, ValueError) as error:
        raise BundleError("cleaning_span must be two numbers") from error
    if not 0 <= low < high < float("inf"):
        raise BundleError(f"cleaning_span must be two rising numbers of 0 or more, not {low} and {high}")
    return low, high


def _denoiser(value: Any) -> DenoiserConfig | None:
    if value is None:
        return None
    known = [field.name for field in fields(DenoiserConfig)]
    if not isinstance(value, dict) or not set(known) <= value.keys():
        raise BundleError(f"denoiser must have the settings {', '.join(known)}, not {str(value)[:80]}")
    return DenoiserConfig(**{name: value[name] for name in known})


def _reads(value: Any) -> dict[str, tuple[bytes, ...]]:
    try:
        reads = {prior: tuple(bytes.fromhex(each) for each in listed) for prior, listed in value.items()}
        if all(len(each) == 4 for listed in reads.values() for each in listed):
            return reads
    except (TypeError, ValueError, AttributeError):
        pass
    raise BundleError(f"reads must list fingerprints of 8 hexadecimal digits by prior, not {str(value)[:80]}")


def _has_bools(values: Any) -> bool:
    """Whether true or false stand anywhere in lists of numbers: Python takes them for 1 and 0."""
    return any(_has_bools(value) for value in values) if isinstance(values, list) else isinstance(values, bool)


def _json(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise BundleError(f"{path} is larger than {LARGEST_BYTES >> 20} MB, too large for the settings of a model")
        values = json.loads(path.read_text())
    except OSError as error:
        raise BundleError(f"{folder} is not a model folder ({reason(error)}); see nacre models") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON; copy the model again") from error
    if not isinstance(values, dict):
        raise BundleError(f"{path} must hold the settings of a model, not a {type(values).__name__}")
    if values.get("format") != FORMAT:
        raise BundleError(f"{path} has format {values.get('format')}, but this nacre reads {FORMAT}; update nacre")
    return values
