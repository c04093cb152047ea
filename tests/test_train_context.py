"""Training of the context prior: it learns what there is to learn, and its integers do what the network did."""

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch

from nacre.core.errors import TrainError
from nacre.entropy import range_coder
from nacre.train.post import context
from nacre.train.post.context import ContextConfig, Groups, bits, fit, static_bits, statistics, to_prior, train

pytestmark = pytest.mark.slow

CONFIG = ContextConfig(hidden=24, small=12, shares=(0.5, 1.0), steps=200, batch=16, frames=20, fast=False)


def talking(levels=2, count=12, frames=40, seed=0):
    """[n, T, 6] symbols of each level: loudness comes and goes, dim 1 follows dim 0, dim 5 is nearly always 0."""
    rng, groups = np.random.default_rng(seed), []
    for level in range(levels):
        loud = np.repeat(rng.choice([0.1, 3.0], (count, frames // 8)), 8, 1)[..., None]
        latents = rng.laplace(0, 1, (count, frames, 6)) * loud * (level + 1)
        latents[..., 1] = latents[..., 0] + 0.3 * latents[..., 1] + 4 * (level + 1)
        latents[..., 5] = 4 * (rng.random((count, frames)) < 0.001)
        groups.append(np.round(latents).astype(np.int16))
    return groups


STEPS = np.array([[1.0] * 6, [0.5] * 6])


@pytest.fixture(scope="module")
def learnt():
    data, losses = Groups(talking(), statistics(talking(), STEPS)), []
    net = fit(data, CONFIG, lambda step, loss: losses.append(loss))
    return net, data, to_prior(net, data), losses


def test_statistics():
    found = statistics(talking(), STEPS)
    assert sorted(found.order.tolist()) == [0, 1, 2, 3, 4]
    assert found.mean[1, found.order.tolist().index(1)] > 6
    assert (found.ratio == [[512] * 5, [256] * 5]).all()
    assert found.logs[0] == 0
    assert found.logs[16] == 16
    assert found.logs.max() == 127
    logs = found.logarithms(np.array([[[1, -1, 0, 3, 200]]]), np.array([1]))
    assert logs[0, 0].tolist() == [16, -16, 0, 32, 122]


def test_it_beats_static_tables_on_symbols_it_has_not_seen(learnt):
    _, data, prior, losses = learnt
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:5])
    fresh = talking(seed=1)
    static = static_bits([level[..., data.found.order] for level in fresh])
    for level, groups in enumerate(fresh):
        spent = sum(prior.bits(group.astype(np.int32), level) for group in groups) / groups.shape[0] / groups.shape[1]
        assert spent < 0.93 * static[level]
        data_bytes = range_coder.encode_symbols(prior.encoding(groups[0].astype(np.int32), level))
        found = range_coder.serve([data_bytes], prior.decoding([level], [len(groups[0])]))
        assert (found[0] == groups[0]).all()


def test_integers_spend_what_the_rounding_network_spent(learnt):
    net, data, prior, _ = learnt
    assert net.rounding
    for level, groups in enumerate(talking(seed=2)):
        mine = groups[..., data.found.order][:, :20]
        *inputs, wanted = data.inputs(mine, np.full(len(mine), level))
        with torch.no_grad():
            wanted_bits = float(bits(net(*inputs), wanted, True).sum())
        whole = groups[:, :20].astype(np.int32)
        whole[..., 5] = 0
        rest = 20 * len(groups) * -np.log2(prior.arrays["tables"][level, 0, prior.sizes.others // 2] / 65536)
        spent = sum(prior.bits(group, level) for group in whole) - rest
        assert spent == pytest.approx(wanted_bits, rel=0.01)


def test_training_repeats_itself():
    config = ContextConfig(hidden=8, small=4, shares=(1.0,), steps=4, batch=4, frames=20, fast=False, depth=1)
    first, again = (train(talking(), STEPS, config) for _ in range(2))
    assert all((first.arrays[name] == again.arrays[name]).all() for name in first.arrays)


def test_too_little_to_learn_from():
    with pytest.raises(TrainError):
        train([group[:, :10] for group in talking()], STEPS, CONFIG)


def test_blocks():
    assert context.block_ends(49, (0.06, 0.16, 0.29, 0.45, 0.64, 1.0)) == [3, 8, 14, 22, 31, 49]
    assert context.block_ends(2, (0.06, 0.16, 1.0)) == [1, 2]
