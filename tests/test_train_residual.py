"""A residual layer fitted to a model: its levels, its kernel and tables, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import test_cleaning
from test_cleaning import CLEANING, SMALL, cleaner  # noqa: F401  a fixture
from test_train import CLIPS, tiny_recipe, trainer_of

import nacre
from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError
from nacre.entropy.static_prior import StaticPrior
from nacre.model import bundle as bundles
from nacre.model.runtime import Network
from nacre.train import start
from nacre.train.post import adapt
from nacre.train.post import residual as post

pytestmark = pytest.mark.slow

corpus = test_cleaning.corpus
CONFIG = post.ResidualConfig(base=1, steps=(2.0, 0.7), block_ms=2.5, zones=3, classes=6)


@pytest.fixture(scope="module")
def layered(cleaner, tmp_path_factory) -> Path:  # noqa: F811
    """The tiny cleaner with its two upper levels with a residual layer, on the networks of level 1."""
    out = tmp_path_factory.mktemp("refined") / "refined"
    post.add_residual_layer(cleaner, CLIPS, out, hours=0.003, config=CONFIG, quiet=True)
    return out


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_levels_are_what_they_were_told_to_be(cleaner, layered, part):  # noqa: F811
    before, after = (Network(folder / f"{part}.onnx", rows=1 + (part == "decoder")) for folder in (cleaner, layered))
    frames = np.random.default_rng(0).standard_normal((9, before.width_in)).astype(np.float32)
    wanted = [0, 1, 1, 1] + ([4, 5, 5, 5] if part == "encoder" else [])
    outs = [before.step(frames, level, before.start())[0] for level in range(len(wanted))]
    for level, source in enumerate(wanted):
        np.testing.assert_array_equal(after.step(frames, level, after.start())[0], outs[source])


def test_tables_and_steps_follow(cleaner, layered):  # noqa: F811
    before, after = bundles.load(cleaner), bundles.load(layered)
    counts = [StaticPrior.load(found.part(bundles.PRIOR)).counts for found in (before, after)]
    np.testing.assert_array_equal(counts[1], counts[0][[0, 1, 1, 1]])
    np.testing.assert_array_equal(after.quantiser().steps, before.quantiser().steps[[0, 1, 1, 1]])
    assert after.rates_kbps[3] > after.rates_kbps[2] > after.rates_kbps[1]
    assert 1 <= nacre.load(layered).model.residual.memory <= 3
    assert after.fingerprint.hex() in (layered / "README.md").read_text()


def test_residual_levels_are_nearer(layered, speech):
    codec, wave = nacre.load(layered), speech[16_000:40_000]
    away = [
        np.square(codec.decode(codec.encode(wave, 16_000, quality=100 * level / 3))[0][0] - wave).sum()
        for level in (1, 2, 3)
    ]
    assert away[2] < 0.5 * away[1] < 0.5 * away[0]


def test_cleaning_does_without(layered, speech):
    codec = nacre.load(layered)
    data = codec.encode(speech[:16_000], 16_000, quality=100, denoise=True)
    assert {packet.level for packet in codec.parse(data).packets if packet.payload} == {1}
    sized = codec.encode(speech[:16_000], 16_000, packet_bytes=2000, denoise=True)
    assert max(packet.level for packet in codec.parse(sized).packets) == 1


def test_kernel_finds_what_sizes_tell():
    """Sizes that follow from those of the step before alone."""
    rng = np.random.default_rng(0)
    groups = []
    for _ in range(20):
        scale, rows = 4 * rng.random(40), []
        for _ in range(50):
            rows.append(rng.laplace(0, scale))
            scale = 0.9 * np.abs(rows[-1]) + 0.2
        groups.append(np.round(rows).astype(np.int16))
    kernel = post.fit_kernel(groups)
    assert kernel[0].argmax() == 7
    assert kernel[0, 7] > 5 * np.delete(kernel, 7)[np.arange(29) != 20].max()
    np.testing.assert_array_equal(kernel, kernel[:, ::-1])


def test_nothing_to_refine():
    with pytest.raises(TrainError, match="no symbols but 0"):
        post.fit_kernel([np.zeros((20, 40), np.int16)] * 3)


def test_a_prior_learned_later_keeps_the_residual_layer(layered, tmp_path, speech):
    found = adapt.add_context(layered, CLIPS, tmp_path / "both", hours=0.003, config=SMALL, quiet=True)
    assert found.has_context
    assert found.has_residual
    before, after = nacre.load(layered), nacre.load(tmp_path / "both")
    data = before.encode(speech[:16_000], 16_000, quality=100)
    small = after.encode(speech[:16_000], 16_000, quality=100)
    np.testing.assert_array_equal(after.decode(data)[0], before.decode(data)[0])
    np.testing.assert_array_equal(after.decode(small)[0], before.decode(data)[0])


def test_a_context_prior_is_spread_too(cleaner, tmp_path, speech):  # noqa: F811
    adapt.add_context(cleaner, CLIPS, tmp_path / "context", hours=0.003, config=SMALL, quiet=True)
    post.add_residual_layer(tmp_path / "context", CLIPS, tmp_path / "both", hours=0.003, config=CONFIG, quiet=True)
    codec = nacre.load(tmp_path / "both")
    data = codec.encode(speech[:16_000], 16_000, quality=100)
    static = codec.encode(speech[:16_000], 16_000, quality=100, prior="static")
    assert data != static
    np.testing.assert_array_equal(codec.decode(data)[0], codec.decode(static)[0])


@pytest.mark.parametrize(
    "changes",
    [{"base": 4}, {"base": -1}, {"steps": (1.0,) * 2}, {"steps": (4.0, 3.0, 2.0, 1.0)}, {"block_ms": 2.1}, {"zones": 0}]
    + [
        {"block_ms": 0.06},
        {"block_ms": 0.0},
        {"steps": ()},
        {"steps": (np.inf, 1.0)},
        {"zones": 65},
        {"reach": 64},
        {"classes": 2},
        {"exponent": 3},
    ],
)
def test_settings_that_do_not_fit(cleaner, tmp_path, changes):  # noqa: F811
    def add() -> None:
        config = dataclasses.replace(CONFIG, **changes)
        post.add_residual_layer(cleaner, CLIPS, tmp_path / "out", hours=0.003, config=config, quiet=True)

    with pytest.raises(TrainError):
        add()
    assert not list(tmp_path.iterdir())


def test_blocks_last_as_long_at_any_rate():
    for rate_hz, size in ((16_000, 160), (48_000, 480)):
        codec = CodecConfig(rate_hz, rate_hz // 50, rate_hz // 25, rate_hz // 100, rate_hz // 25)
        assert post.ResidualConfig().block_samples(codec) == size


def test_what_has_a_residual_layer_already(layered, tmp_path):
    with pytest.raises(TrainError, match="a residual layer"):
        post.add_residual_layer(layered, CLIPS, tmp_path / "out", config=CONFIG, quiet=True)


def test_command(run, cleaner, tmp_path):  # noqa: F811
    done = run("refine", cleaner, "--data", CLIPS, "-o", "out", "--hours", 0.01, "--base", 1, "--steps", "2,.7")
    assert done.rc == 0, done.stderr
    assert "kb/s" in done.stderr + done.stdout.decode()
    assert run("refine", cleaner, "--data", CLIPS, "-o", "more", "--steps", "a").rc == 2


def test_training_goes_on_from_levels_that_share_networks(cleaner, corpus, tmp_path):  # noqa: F811
    """They have no slope between them, and fewer bits than the level below them."""
    config = dataclasses.replace(CONFIG, base=0)
    found = post.add_residual_layer(cleaner, CLIPS, tmp_path / "out", hours=0.003, config=config, quiet=True)
    trainer = trainer_of(tiny_recipe(*CLEANING), corpus)
    start.start_from(found)(trainer)
    assert trainer.run.control.log_weight.isfinite().all()
    assert all(np.isfinite(value) for value in trainer.step().values())
