"""The residual layer of the highest levels, group by group, on sound of the networks at the gains of the encoder.

It is the layer of files itself, in numpy: its symbols must be theirs. Gradients pass it by, through the networks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nacre.codec.frames import SILENT
from nacre.core.types import Array
from nacre.model.model import Model


def symbols_of(model: Model, ready: Array, predicted: Array, noise: Array | None, gains: Array, level: int) -> Array:
    """Symbols [T, hop] int16 of one item: `ready` [N] as the encoder was given it, `predicted` and `noise` [N] as the
    networks gave it back, lagging by the codec's delay; gain codes [G] of its groups. 0 in groups that are silent."""
    layer = model.residual
    assert layer
    hop, delay = model.config.hop_samples, model.config.delay_samples
    wanted = np.concatenate([np.zeros(delay, np.float32), ready])[: len(ready)]
    symbols = np.zeros((len(ready) // hop, hop), np.int16)
    for group in _sounding(model, gains, len(ready)):
        whole = predicted[group] if noise is None else predicted[group] + noise[group]
        fine = layer.symbols(wanted[group], predicted[group], whole, level)
        symbols[group.start // hop : group.stop // hop] = fine.reshape(-1, hop)
    return symbols


def enhanced(model: Model, fine: Array, predicted: Array, noise: Array | None, gains: Array, level: int) -> Array:
    """Sound [N] of symbols [T, hop] and of what the networks gave, predicted and noise [N]."""
    layer = model.residual
    assert layer
    hop = model.config.hop_samples
    wave = predicted.copy() if noise is None else predicted + noise
    for group in _sounding(model, gains, len(wave)):
        symbols = fine[group.start // hop : group.stop // hop].reshape(-1, layer.size).astype(np.int32)
        wave[group] = layer.enhanced(symbols, predicted[group], None if noise is None else noise[group], level)
    return wave


def _sounding(model: Model, gains: Array, samples: int) -> Iterator[slice]:
    """Samples of each group that is not silent."""
    size = model.config.group_samples
    for group in np.flatnonzero(gains != SILENT).tolist():
        yield slice(group * size, min(samples, (group + 1) * size))
