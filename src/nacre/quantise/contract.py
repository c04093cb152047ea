"""What every kind of latents keeps to, as one check: of nacre's own kinds, and of those that packages add."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nacre.core.errors import AudioError
from nacre.core.types import Floats, Ints
from nacre.quantise.base import Quantiser

FRAMES = 23


def check_quantiser(quantiser: Quantiser, folder: Path) -> None:
    """Raise AssertionError where a quantiser breaks what the codec relies on; `folder` is an empty one to save it in.

    Latents are drawn from a normal distribution, three times as wide as a step of 1.
    """
    kind = type(quantiser)
    assert 1 <= kind.code <= 15, f"code {kind.code}: wanted 1 to 15"
    assert kind.name.isidentifier(), f"name {kind.name!r}: wanted a word"
    assert quantiser.width_out <= quantiser.width_in, "the encoder graph gives at least what the decoder graph takes"
    _check_symbols(quantiser)
    facts = quantiser.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(kind.parts), "save writes `parts` and nothing else"
    again = kind.load(folder, facts)
    for level in range(quantiser.levels):
        for ours, theirs in zip(_coded(quantiser, level), _coded(again, level), strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg="load gives back what save wrote")
    assert kind.meaning(facts) == kind.meaning(again.save(folder)), "the fingerprint stays"


def _check_symbols(quantiser: Quantiser) -> None:
    for level in range(quantiser.levels):
        given = _drawn(quantiser)
        limits = np.full(quantiser.columns, quantiser.entries // 2 or 5, np.int32)
        symbols, latents, smooth = _coded(quantiser, level)
        assert symbols.shape == (FRAMES, quantiser.columns), symbols.shape
        assert symbols.dtype == np.int32, symbols.dtype
        assert (np.abs(symbols) <= limits).all(), "symbols stay within their limits"
        assert not symbols[:, quantiser.used(level) :].any(), "columns that a level does not use are 0"
        for made in (latents, smooth):
            assert made.shape == (FRAMES, quantiser.width_out), made.shape
            assert made.dtype == np.float32, made.dtype
            assert np.isfinite(made).all(), "latents are finite"
        one = quantiser.symbols(given[7:8], level, limits)
        np.testing.assert_array_equal(one[0], symbols[7], err_msg="a frame is quantised by itself")
        back = quantiser.latents(symbols[7:8], level)
        np.testing.assert_array_equal(back[0], latents[7], err_msg="a frame is given back by itself")
        counts = np.ones((quantiser.levels, quantiser.columns, _alphabet(quantiser)), np.int32)
        if quantiser.entries:
            counts[..., quantiser.entries :] = 0
        quantiser.check_tables(counts)
        for value in (np.nan, np.inf):
            given = _drawn(quantiser)
            given[3, 0] = value
            _check_refused(quantiser, given, level)


def _check_refused(quantiser: Quantiser, given: Floats, level: int) -> None:
    try:
        quantiser.symbols(given, level, np.full(quantiser.columns, 5, np.int32))
    except AudioError:
        return
    raise AssertionError("latents that are not finite are an AudioError")


def _alphabet(quantiser: Quantiser) -> int:
    return 2 * (quantiser.entries // 2) + 1


def _drawn(quantiser: Quantiser) -> Floats:
    return 3 * np.random.default_rng(0).standard_normal((FRAMES, quantiser.width_in)).astype(np.float32)


def _coded(quantiser: Quantiser, level: int) -> tuple[Ints, Floats, Floats]:
    """Symbols [T, K], latents [T, D] of them, and latents [T, D] of nothing rounded."""
    given, limits = _drawn(quantiser), np.full(quantiser.columns, quantiser.entries // 2 or 5, np.int32)
    given.setflags(write=False)
    symbols = quantiser.symbols(given, level, limits)
    return symbols, quantiser.latents(symbols, level), quantiser.unrounded(given, level)
