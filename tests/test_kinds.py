"""Kinds of latents in training: what bottlenecks pass, charge and learn; masks, stages, resumption, refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import HUNG_S, once

pytest.importorskip("torch", exc_type=ImportError)

import torch
from test_train import RARELY, RECIPE, assert_same, everything, tiny_recipe, trainer_of
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.core.errors import NacreError, TrainError
from nacre.dsp.mel import LogMelAnalyser
from nacre.io import audio
from nacre.quantise.contract import check_quantiser
from nacre.train import codec_run, codec_trainer
from nacre.train import run as run_room
from nacre.train.bottlenecks import rvq
from nacre.train.bottlenecks.autoencoder import PlainQuantiser
from nacre.train.bottlenecks.base import Settings, used_columns
from nacre.train.bottlenecks.fsq import FiniteScalar, FiniteSettings
from nacre.train.bottlenecks.gaussian import GaussianQuantiser, GaussianSettings, gaussian_kl_bits
from nacre.train.bottlenecks.registry import BOTTLENECKS
from nacre.train.bottlenecks.rvq import ResidualSettings, ResidualVQ, kmeans, nearest
from nacre.train.degrade import NOTHING
from nacre.train.denoise_recipe import is_denoiser
from nacre.train.losses import LossConfig, MelLoss, SpectralLoss
from nacre.train.nets.blocks import BLOCKS, NetConfig
from nacre.train.nets.codec_net import CodecNet
from nacre.train.nets.transforms import LogMel
from nacre.train.rate import RateControl
from nacre.train.recipe import Recipe, load_recipe, parse, read_values, recipe_of
from nacre.train.recordings import Corpus, Source
from nacre.train.sampler import Sampler

RECIPES = [path for path in sorted(RECIPE.parent.glob("*.toml")) if not is_denoiser(read_values(path))]
CODEC = CodecConfig(latent_dims=8, levels=4, group_frames=10)
MEL = dataclasses.replace(CODEC, mel_bands=20, delay_samples=480)
BOOKS = ResidualSettings(codebooks=4, codebook_size=16, code_dims=4)
SMALL_BOOKS = ("kind=rvq", "quantiser.codebooks=4", "quantiser.codebook_size=16", "quantiser.code_dims=4")
QUICK = (*RARELY, "data.excerpt_s=0.2", "data.batch=2")
THREE_STAGES = (
    'stage=[{name="whole", bottleneck="bypassed", steps=3, warmup_steps=1},'
    '{name="codes", train=["quantiser"], fit=true, steps=3, warmup_steps=1},'
    '{name="joint", steps=3, warmup_steps=1}]'
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seed(monkeypatch) -> None:
    """The same numbers whichever tests run before, and k-means on few frames."""
    torch.manual_seed(7)
    monkeypatch.setattr(rvq, "FIT_FRAMES", 200)


def voice(speech: np.ndarray) -> Corpus:
    """Five seconds of speech as three recordings of one source."""
    samples = np.round(speech * 32767).astype(np.int16)
    return Corpus([Source("voice", samples, np.array([20_000, 23_000, len(samples)]))], [], 16_000, 3)


@pytest.fixture(scope="module")
def corpus(speech) -> Corpus:
    return voice(speech)


def latents_like(batch: int, frames: int, width: int = 8) -> Tensor:
    return torch.randn(batch, frames, width)


def net_of(kind: str, codec: CodecConfig = CODEC, **settings: object) -> CodecNet:
    """A tiny network whose levels differ."""
    torch.manual_seed(3)
    net = CodecNet(
        codec, dataclasses.replace(NetConfig(16, 3, 2, 1, 1, 1), **settings), kind, BOOKS if kind == "rvq" else None
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("film"):
                parameter.normal_(0, 0.3)
    return net


# ---- Gaussian: divergence, sample, free bits, width, beta


@pytest.mark.parametrize("mean", [0.0, 0.7, -3.0])
@pytest.mark.parametrize("log_sd", [-5.0, -1.0, 0.0, 0.8])
def test_divergence_equals_a_monte_carlo_estimate(mean, log_sd):
    sd, noise = math.exp(log_sd), torch.randn(200_000, dtype=torch.float64)
    sample = mean + sd * noise
    bits = (sample.square() / 2 - noise.square() / 2 - log_sd) / math.log(2)  # log2 of posterior over prior
    error = float(bits.std()) / math.sqrt(len(bits))
    found = float(gaussian_kl_bits(torch.tensor(mean), torch.tensor(log_sd)))
    assert found == pytest.approx(float(bits.mean()), abs=4 * error + 1e-5)
    assert found >= 0


def test_divergence_is_zero_at_the_prior_only():
    mean, log_sd = torch.tensor([0.0, 0.1, 0.0]), torch.tensor([0.0, 0.0, 0.1])
    assert (gaussian_kl_bits(mean, log_sd) > 0).tolist() == [False, True, True]


def test_training_draws_from_the_posterior_and_evaluation_takes_its_mean():
    quantiser = GaussianQuantiser(CODEC, GaussianSettings())
    level = torch.tensor([1, 3])
    latents = latents_like(2, 1, 16).expand(2, 20_000, 16)
    mean, log_sd = quantiser.to_latent(latents, level).split(8, -1)
    found = quantiser(latents, level)
    torch.testing.assert_close(found.latents.mean(1), mean[:, 0], atol=0.03, rtol=0)
    torch.testing.assert_close(found.latents.std(1), log_sd[:, 0].exp(), atol=0, rtol=0.03)
    torch.testing.assert_close(found.rounded_bits, gaussian_kl_bits(mean, log_sd).sum(2))
    assert torch.equal(found.noisy_bits, found.rounded_bits)
    assert torch.equal(quantiser.eval()(latents, level).latents, mean)


def test_gradients_pass_through_the_sample():
    quantiser = GaussianQuantiser(CODEC, GaussianSettings())
    level, latents = torch.tensor([2]), (0.5 * latents_like(1, 30, 16)).requires_grad_()
    found = quantiser(latents, level)
    mean, log_sd = quantiser.to_latent(latents, level).split(8, -1)
    (grad,) = torch.autograd.grad(found.latents.sum(), latents, retain_graph=True)
    torch.testing.assert_close(grad[..., :8], torch.ones(1, 30, 8))
    torch.testing.assert_close(grad[..., 8:], (found.latents - mean).detach())  # d/d log sd is the noise itself
    quantiser.from_latent(found.latents, level).square().sum().backward()
    for parameter in quantiser.parameters():
        assert (parameter.grad[2] != 0).all()
        assert not parameter.grad[[0, 1, 3]].any()
    assert (log_sd < 1).all()  # where it is cut


def test_free_bits_cost_nothing_and_pull_nothing():
    config = GaussianSettings(free_bits=0.5)
    quantiser, level = GaussianQuantiser(CODEC, config), torch.tensor([0])
    latents = latents_like(1, 40, 16).requires_grad_()
    bits = gaussian_kl_bits(*quantiser.to_latent(latents, level).split(8, -1))
    found = quantiser(latents, level)
    torch.testing.assert_close(found.noisy_bits, bits.clamp(min=0.5).sum(2))
    torch.testing.assert_close(found.rounded_bits, bits.sum(2))
    (grad,) = torch.autograd.grad(found.noisy_bits.sum(), latents)
    cheap = (bits < 0.5).detach()
    assert 0.05 < cheap.float().mean() < 0.95
    assert not grad[..., :8][cheap].any()
    assert (grad[..., :8][~cheap] != 0).all()


def test_steps_follow_the_width_of_the_posterior():
    quantiser, level = GaussianQuantiser(CODEC, GaussianSettings()), torch.tensor([1, 1])
    start = quantiser.width.clone()
    latents = torch.zeros(2, 5, 16)
    latents[..., 8:] = torch.linspace(-2, 1, 8)
    for _ in range(600):
        quantiser(latents, level)
    sd = (torch.linspace(-2, 1, 8) - 1).exp()  # log_width starts at -1
    torch.testing.assert_close(quantiser.width[1], sd, atol=0, rtol=1e-3)
    assert torch.equal(quantiser.width[[0, 2, 3]], start[[0, 2, 3]])  # of levels that were not drawn
    np.testing.assert_allclose(quantiser.export_quantiser().steps[1] ** 2 / 12, sd.square(), rtol=2e-3)


def test_beta_warms_up_in_its_steps_and_stays():
    control = RateControl(torch.tensor([10.0, 20.0]), 1e-4, beta=0.1, warmup=50)
    weights = []
    for _ in range(60):
        weights.append(control.weight(torch.tensor([0, 1])))
        control.update(torch.tensor([0]), torch.tensor([1e6]))  # whatever the rate
    found = torch.stack(weights)
    assert (found[1:51] > found[:50]).all()
    assert found[0].tolist() == pytest.approx([1e-4] * 2)
    assert found[49].max() < 0.1 * math.log(2) * 0.9
    assert found[50:].flatten().tolist() == pytest.approx([0.1 * math.log(2)] * 20)  # a nat is 1 / ln 2 bits
    falling = RateControl(torch.tensor([10.0]), 1e-1, beta=1e-3, warmup=5)
    for _ in range(5):
        falling.update(torch.tensor([0]), torch.tensor([1.0]))
    assert float(falling.weight(torch.tensor([0]))) == pytest.approx(1e-3 * math.log(2))


def test_one_beta_for_all_levels_and_steps_that_differ(corpus):
    recipe = tiny_recipe(*QUICK, "kind=gaussian", "rate.beta=0.01", "rate.warmup_steps=3")
    trainer = trainer_of(recipe, corpus)
    for _ in range(4):
        trainer.step()
    assert trainer.run.control.weight(torch.arange(4)).tolist() == pytest.approx([0.01 * math.log(2)] * 4)
    trainer.run.net.quantiser.width.fill_(0.3)
    steps = trainer.run.net.quantiser.export_quantiser().steps
    assert (steps[1:] < steps[:-1]).all()
    alone = codec_run.net_of(tiny_recipe("kind=gaussian")).quantiser.export_quantiser().steps
    assert (alone == alone[0]).all()


# ---- codebooks: straight through, commitment, moving averages, levels, revival, k-means


def books_of(**settings: object) -> ResidualVQ:
    return ResidualVQ(CODEC, dataclasses.replace(BOOKS, **settings))


TOP = torch.tensor([3, 3])


def test_gradients_pass_straight_through_a_codebook():
    quantiser, latents = books_of(codebooks=1), latents_like(2, 9).requires_grad_()
    found = quantiser.eval()(latents, TOP)
    inward, outward = quantiser.inward[0], quantiser.outward[0]
    index = nearest(latents @ inward, quantiser.codes[0])
    torch.testing.assert_close(found.latents, quantiser.codes[0][index] @ outward)
    pull = torch.randn_like(latents)
    (grad,) = torch.autograd.grad((found.latents * pull).sum(), latents)
    torch.testing.assert_close(grad, pull @ (inward @ outward).T)  # as if nothing had been rounded


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_who_learns_from_what(update):
    quantiser, latents = books_of(update=update), latents_like(2, 9).requires_grad_()
    assert ("codes" in dict(quantiser.named_parameters())) == (update == "gradient")
    found = quantiser.eval()(latents, TOP)
    for loss in (found.latents.square().sum(), found.penalty.sum()):
        quantiser.zero_grad()
        (grad,) = torch.autograd.grad(loss, latents, retain_graph=True)
        assert (grad.abs().sum((1, 2)) > 0).all()
        loss.backward(retain_graph=True)
        assert quantiser.inward.grad.abs().sum() > 0
        if update == "gradient":
            chosen = torch.zeros(16, dtype=torch.bool)
            chosen[nearest(latents.detach() @ quantiser.inward[0], quantiser.codes[0].detach()).unique()] = True
            assert torch.equal(quantiser.codes.grad[0].abs().sum(1) > 0, chosen)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_commitment_draws_latents_to_their_codes(update):
    quantiser, latents = books_of(codebooks=1, update=update), latents_like(1, 6).requires_grad_()
    level = torch.tensor([0])
    found = quantiser.eval()(latents, level)
    low = latents @ quantiser.inward[0]
    code = quantiser.codes[0][nearest(low, quantiser.codes[0])]
    away = (low - code).square().mean(2)
    torch.testing.assert_close(found.penalty, away * (1.25 if update == "gradient" else 0.25))
    (grad,) = torch.autograd.grad(found.penalty.sum(), latents, retain_graph=True)
    torch.testing.assert_close(grad, (0.25 * 2 / 4 * (low - code)) @ quantiser.inward[0].T)
    if update == "gradient":  # codes are drawn four times as hard
        (pull,) = torch.autograd.grad(found.penalty.sum(), quantiser.codes)
        (wanted,) = torch.autograd.grad((low.detach() - code).square().mean(2).sum(), quantiser.codes)
        torch.testing.assert_close(pull, wanted)


def test_moving_averages_of_codes():
    quantiser = books_of(codebooks=1, decay=0.9, revive_below=0.0)
    codes, sums, hits = (getattr(quantiser, name).clone() for name in ("codes", "sums", "hits"))
    latents = latents_like(2, 50)
    index = nearest(latents @ quantiser.inward[0], codes[0]).flatten()
    low = (latents @ quantiser.inward[0]).detach().flatten(0, 1)
    quantiser(latents, TOP)
    for code in range(16):
        mine = low[index == code]
        count, total = 0.9 * hits[0, code] + 0.1 * len(mine), 0.9 * sums[0, code] + 0.1 * mine.sum(0)
        torch.testing.assert_close(quantiser.hits[0, code], count)
        torch.testing.assert_close(quantiser.codes[0, code], total / count)
    for _ in range(300):
        quantiser(latents, TOP)
    means = [low[index == code].mean(0) for index in [nearest(low, quantiser.codes[0])] for code in index.unique()]
    used = quantiser.codes[0][nearest(low, quantiser.codes[0]).unique()]
    torch.testing.assert_close(used, torch.stack(means), atol=1e-3, rtol=1e-3)


def test_levels_use_the_first_codebooks():
    assert used_columns(4, 16) == [4, 8, 12, 16]
    assert used_columns(16, 4) == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    assert used_columns(4, 1) == [1] * 4
    quantiser = books_of()
    latents, level = latents_like(4, 12), torch.arange(4)
    found = quantiser.eval()(latents, level)
    torch.testing.assert_close(found.rounded_bits, torch.tensor([4.0, 8, 12, 16]).unsqueeze(1).expand(4, 12))
    assert not found.noisy_bits.any()
    for item in range(4):
        left, total = latents[item], torch.zeros(12, 8)
        for book in range(item + 1):
            index = nearest(left @ quantiser.inward[book], quantiser.codes[book])
            total = total + quantiser.codes[book][index] @ quantiser.outward[book]
            left = latents[item] - total
        torch.testing.assert_close(found.latents[item], total, atol=1e-5, rtol=1e-5)


def test_codebooks_learn_from_the_levels_that_use_them():
    quantiser = books_of()
    before = quantiser.hits.clone()
    quantiser(latents_like(3, 8), torch.tensor([0, 1, 1]))
    changed = (quantiser.hits != before).any(1)
    assert changed.tolist() == [True, True, False, False]
    assert float(quantiser.hits[0].sum()) == pytest.approx(0.98 * 16 + 0.02 * 24)
    assert float(quantiser.hits[1].sum()) == pytest.approx(0.98 * 16 + 0.02 * 16)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_dead_codes_revive_where_data_is(update):
    quantiser = books_of(codebooks=2, update=update, revive_below=0.05)
    with torch.no_grad():
        quantiser.codes[:, 5:] += 100.0
        quantiser.hits[:, 5:] = 0.02
    if update == "ema":
        quantiser.sums[:] = quantiser.codes * quantiser.hits.unsqueeze(2)
    assert quantiser.figures()["codebook/dead"] == pytest.approx(11 / 16)
    latents = latents_like(2, 60)
    low = (latents @ quantiser.inward[0]).detach().flatten(0, 1)
    alive = quantiser.codes[0, :5].clone()
    quantiser(latents, TOP)
    places = (quantiser.codes[0, 5:, None].detach() - low).abs().sum(2).min(1).values
    assert places.max() < 1e-5
    assert len(quantiser.codes[0, 5:].unique(dim=0)) > 5
    assert quantiser.figures()["codebook/dead"] == 0
    if update == "gradient":
        assert torch.equal(quantiser.codes[0, :5], alive)
    else:
        torch.testing.assert_close(quantiser.sums, quantiser.codes * quantiser.hits.unsqueeze(2))
    index = nearest(low, quantiser.codes[0].detach())
    assert (index >= 5).float().mean() > 0.3  # and are chosen from now on


def test_books_that_nobody_heard_revive_nothing():
    quantiser = books_of()
    quantiser.hits[:] = 0.0
    before = quantiser.codes.clone()
    quantiser(latents_like(1, 8), torch.tensor([1]))
    changed = (quantiser.codes != before).flatten(1).any(1)
    assert changed.tolist() == [True, True, False, False]


def test_without_revival_codes_that_nobody_chose_stay():
    quantiser = books_of(codebooks=1, decay=0.5, revive_below=0.0)
    quantiser.codes[0, 3] = 50.0
    quantiser.sums[0, 3] = 50.0
    for _ in range(60):
        quantiser(latents_like(2, 9), TOP)
    assert float(quantiser.hits[0, 3]) < 1e-9
    assert quantiser.codes[0, 3].tolist() == pytest.approx([50.0] * 4, rel=1e-3)


def test_bits_count_where_codes_are_chosen():
    quantiser = books_of(codebooks=1, rate_weight=0.2).eval()
    quantiser.hits[0] = torch.tensor([1000.0] + [1.0] * 15)
    latents = latents_like(1, 400)
    low = latents @ quantiser.inward[0].detach()
    share = (quantiser.hits[0] + 1e-3) / (quantiser.hits[0] + 1e-3).sum()
    cost = torch.cdist(low[0], quantiser.codes[0]).square() - 0.2 * share.log2()
    wanted = quantiser.codes[0][cost.argmin(1)] @ quantiser.outward[0]
    torch.testing.assert_close(quantiser(latents, TOP[:1]).latents[0], wanted, atol=1e-5, rtol=1e-5)
    station, limits = quantiser.export_quantiser(), np.full(1, 8, np.int32)
    symbols = station.symbols(latents[0].numpy(), 3, limits, -share.log2()[None].numpy())
    np.testing.assert_array_equal(symbols[:, 0] + 8, cost.argmin(1).numpy())
    plain = station.symbols(latents[0].numpy(), 3, limits)
    assert (symbols == -8).mean() > (plain == -8).mean() + 0.05


def test_use_of_the_codebooks_is_reported():
    quantiser = books_of(codebooks=2)
    quantiser.hits[:] = torch.tensor([[1.0] * 16, [4.0] * 4 + [0.0] * 12])
    figures = quantiser.figures()
    assert figures["codebook/least_use"] == pytest.approx(4 / 16)
    assert figures["codebook/mean_use"] == pytest.approx((1 + 4 / 16) / 2)
    assert figures["codebook/dead"] == pytest.approx(12 / 32)


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_finds_the_clusters(seed):
    torch.manual_seed(seed)
    centres = torch.randn(16, 4) * 10
    sizes = torch.randint(20, 200, (16,))
    values = centres.repeat_interleave(sizes, 0) + 0.05 * torch.randn(int(sizes.sum()), 4)
    codes, hits = kmeans(values[torch.randperm(len(values))], 16)
    away, match = torch.cdist(centres, codes).min(1)
    assert away.max() < 0.05
    assert torch.equal(hits[match].int(), sizes.int())


def test_kmeans_of_few_distinct_values():
    codes, hits = kmeans(torch.eye(3).repeat(10, 1), 8)
    assert torch.isfinite(codes).all()
    assert (hits.sum(), len(codes.unique(dim=0))) == (30, 3)


def test_codebooks_start_from_the_latents():
    quantiser = books_of(codebook_size=32)
    latents = latents_like(1, 3000) @ torch.randn(8, 8) * 5 + 3

    @torch.no_grad()
    def left(books: int) -> float:
        found = quantiser.eval()(latents, torch.tensor([books - 1]))
        return float((found.latents - latents).square().mean() / (latents - latents.mean((0, 1))).square().mean())

    before = left(4)
    quantiser.fit(latents[0])
    errors = [left(books) for books in (1, 2, 3, 4)]
    assert errors[0] < 0.8
    assert errors[3] < 0.35 < before
    assert (np.diff(errors) < 0).all()
    assert torch.equal(quantiser.outward, quantiser.inward.transpose(1, 2))
    torch.testing.assert_close(quantiser.sums, quantiser.codes * quantiser.hits.unsqueeze(2))
    assert quantiser.hits.mean(1).tolist() == pytest.approx([1.0] * 4)


class TwoProcesses:
    """Two threads in the place of two processes: sums are made when both have come."""

    def __init__(self) -> None:
        self.barrier, self.given, self.own = threading.Barrier(2, timeout=HUNG_S), {}, threading.local()

    def is_initialized(self) -> bool:
        return True

    def get_rank(self) -> int:
        return self.own.rank

    def get_world_size(self) -> int:
        return 2

    def all_reduce(self, tensor: Tensor) -> None:
        self.given[self.own.rank] = tensor.clone()
        self.barrier.wait()
        total = self.given[0] + self.given[1]
        self.barrier.wait()
        tensor.copy_(total)

    def run(self, work: Callable[[int], None]) -> None:
        failed = []

        def start(rank: int) -> None:
            self.own.rank = rank
            try:
                work(rank)
            except BaseException as error:
                failed.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=start, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_processes_keep_the_same_codebooks(monkeypatch, update):
    pair = TwoProcesses()
    monkeypatch.setattr(rvq, "dist", pair)
    config = dataclasses.replace(BOOKS, update=update, revive_below=0.4)
    first = ResidualVQ(CODEC, config)
    with torch.no_grad():
        first.codes[:, 8:] += 50.0  # never chosen: they die after a while
    both = [first, ResidualVQ(CODEC, config)]
    both[1].load_state_dict(first.state_dict())
    levels = [torch.tensor([0, 1]), torch.tensor([1, 3])]  # the first process never hears of books 2 and 3
    sounds = [latents_like(2, 40) for _ in range(2)]
    before = first.codes.detach().clone()
    pair.run(lambda rank: [both[rank](sounds[rank], levels[rank]) for _ in range(60)])
    assert_same(*(quantiser.state_dict() for quantiser in both))
    changed = (first.codes != before).flatten(1).any(1)
    assert changed.all()
    assert first.codes.abs().max() < 40  # revived


# ---- finite values, and nothing at all


def test_finite_values_round_and_let_gradients_through():
    quantiser = FiniteScalar(CODEC, FiniteSettings(values=5))
    latents, level = (2 * latents_like(4, 200)).requires_grad_(), torch.arange(4)
    found = quantiser(latents, level)
    assert sorted({round(value, 6) for value in found.latents.flatten().tolist()}) == [-1, -0.5, 0, 0.5, 1]
    assert (found.latents[3] - torch.tanh(latents[3])).abs().max() <= 0.25 + 1e-6
    assert found.rounded_bits[:, 0].tolist() == pytest.approx([dims * math.log2(5) for dims in (2, 4, 6, 8)])
    (grad,) = torch.autograd.grad(found.latents.sum(), latents)
    for item, dims in enumerate((2, 4, 6, 8)):
        assert not found.latents[item, :, dims:].any()
        assert not grad[item, :, dims:].any()
        torch.testing.assert_close(grad[item, :, :dims], 1 - torch.tanh(latents[item, :, :dims]).square())
    assert torch.equal(quantiser.bypass(latents, level), torch.tanh(latents))


def test_an_autoencoder_passes_everything_and_notes_the_spread():
    quantiser = PlainQuantiser(CODEC, Settings())
    spread = torch.linspace(0.1, 5, 8)
    for _ in range(900):
        latents = latents_like(2, 100) * spread
        found = quantiser(latents, TOP)
    assert torch.equal(found.latents, latents)
    assert not torch.stack([found.noisy_bits, found.rounded_bits, found.penalty]).any()
    torch.testing.assert_close(quantiser.spread, spread, atol=0, rtol=0.05)
    steps = quantiser.export_quantiser().steps
    assert (np.diff(steps, axis=0) < 0).all()
    np.testing.assert_allclose(steps / steps[:, :1], np.tile(spread / spread[0], (4, 1)), rtol=0.05)


# ---- masks: batch of one equals batch of many

LENGTHS = (4800, 2240, 1280)


def judged(net: CodecNet, wave: Tensor, level: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """(what to minimise [B], bits [B]) as a training step finds them."""
    loss = MelLoss(160) if net.codec.mel_bands else SpectralLoss(LossConfig((512, 256), (20, 20)), 16_000)
    coded = net(wave, level, lengths)
    within = None if lengths is None else net.judged(lengths)
    distortion = loss(coded.sound, net.target(wave, coded.sound), within)[0]
    return distortion + coded.penalty + 0.01 * coded.rounded_bits, coded.rounded_bits


@pytest.mark.parametrize(
    ("kind", "codec", "encoder"),
    [
        ("scalar", CODEC, "convolutional"),
        ("gaussian", CODEC, "gru"),
        ("gaussian", MEL, "convolutional"),
        ("rvq", CODEC, "lstm"),
        ("rvq", MEL, "gru"),
        ("fsq", CODEC, "dense"),
        ("autoencoder", CODEC, "convolutional"),
    ],
)
def test_a_batch_of_one_equals_a_batch_of_many(speech, kind, codec, encoder):
    net = net_of(kind, codec, encoder=encoder, decoder=encoder).eval()
    level, lengths = torch.tensor([3, 0, 2]), torch.tensor(LENGTHS)
    waves = [torch.from_numpy(speech[9000 * i :][: LENGTHS[i]].copy()) for i in range(3)]
    padded = torch.stack([nn.functional.pad(wave, (0, LENGTHS[0] - len(wave))) for wave in waves])
    noisy = padded + 0.3 * torch.randn_like(padded) * (torch.arange(LENGTHS[0]) >= lengths.unsqueeze(1))
    together, bits = judged(net, padded, level, lengths)
    together.sum().backward()
    grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    alone = [judged(net, wave[None], level[i : i + 1], None) for i, wave in enumerate(waves)]
    torch.testing.assert_close(together, torch.cat([cost for cost, _ in alone]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(bits, torch.cat([cost for _, cost in alone]), atol=1e-4, rtol=1e-4)
    torch.cat([cost for cost, _ in alone]).sum().backward()
    assert grads.keys() == {name for name, p in net.named_parameters() if p.grad is not None}
    for name, parameter in net.named_parameters():
        if name in grads:
            scale = float(parameter.grad.abs().max()) + 1e-6
            torch.testing.assert_close(grads[name], parameter.grad, atol=2e-3 * scale, rtol=2e-3, msg=name)
    with torch.no_grad():  # what lies behind an item's end does not matter
        torch.testing.assert_close(judged(net, noisy, level, lengths)[0], together, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gaussian", "rvq", "autoencoder"])
def test_statistics_leave_padding_out(kind):
    bottleneck = BOTTLENECKS[kind]
    settings = dataclasses.replace(BOOKS, revive_below=0.0) if kind == "rvq" else bottleneck.settings_type()
    torch.manual_seed(1)
    masked, plain = bottleneck(CODEC, settings), bottleneck(CODEC, settings)
    plain.load_state_dict(masked.state_dict())
    latents, level = latents_like(2, 10, masked.width_in), torch.tensor([3, 3])
    inside = (torch.arange(10) < torch.tensor([[10], [4]])).float()
    latents[1, 4:] = 25.0
    masked(latents, level, inside)
    plain(latents[inside > 0].unsqueeze(0), level[:1])
    for name, value in masked.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], msg=name)


def test_whole_recordings_stay_apart():
    values, stops = np.array([1000, 2000, 3000, 4000], np.int16), np.array([200, 5000, 5000 + 9000, 24_000])
    flat = np.repeat(values, np.diff(stops, prepend=0))
    corpus = Corpus([Source("a", flat, stops)], [], 16_000, 4)
    drawn = Sampler(corpus, CODEC, NOTHING, None, 1.0, whole=True).draw(200, 6400, (1,))
    waves, lengths = drawn.waves, drawn.lengths
    assert (lengths % 320 == 0).all()
    assert (lengths >= 320).all()
    assert len(set(lengths.tolist())) == 3  # 320 of the first, 4800 or so of the second, 6400 of the others
    for wave, length in zip(waves, lengths, strict=True):
        assert not wave[length:].any()
        assert len(np.unique(np.abs(wave[: min(length, 200)]).round(5))) == 1
    mixed = Sampler(corpus, CODEC, NOTHING, None, 1.0).draw(50, 6400, (1,))
    assert (mixed.lengths == 6400).all()
    assert max(len(np.unique(np.abs(wave).round(5))) for wave in mixed.waves) > 1


@pytest.mark.parametrize("kind", list(BOTTLENECKS))
def test_every_kind_takes_steps_on_whole_recordings(corpus, kind):
    changes = (
        *(SMALL_BOOKS if kind == "rvq" else ()),
        f"kind={kind}",
        "data.whole=true",
        "net.dropout=0.1",
        "data.excerpt_s=0.4",
    )
    recipe = tiny_recipe(*QUICK, *changes)
    trainer = trainer_of(recipe, corpus)
    trainer.sampler.whole = True
    before = everything(trainer.run)
    figures = [trainer.step() for _ in range(2)]
    assert all(math.isfinite(value) for item in figures for value in item.values())
    after = everything(trainer.run)
    for part in ("encoder", "decoder"):
        assert not torch.equal(after[f"net.{part}.outward.weight"], before[f"net.{part}.outward.weight"])


# ---- stages


def test_three_stages_of_a_codebook_model(corpus):
    recipe = tiny_recipe(*QUICK, *SMALL_BOOKS, THREE_STAGES)
    trainer = trainer_of(recipe, corpus)
    states, figures = [], []
    for step in range(9):
        if step % 3 == 0:
            states.append({k: v.clone() for k, v in trainer.run.net.state_dict().items()})
        figures.append(trainer.step())
    states.append(trainer.run.net.state_dict())
    changed = [
        {name.split(".")[0] for name in states[0] if not torch.equal(before[name], after[name])}
        for before, after in pairwise(states)
    ]
    assert changed == [{"encoder", "decoder"}, {"quantiser"}, {"encoder", "decoder", "quantiser"}]
    assert {item["bits"] for item in figures[:3]} == {0.0}
    assert min(item["bits"] for item in figures[3:]) >= 4
    assert "penalty" not in figures[2]
    assert figures[3]["penalty"] > 0
    assert figures[3]["codebook/mean_use"] > 0.2
    assert (trainer.run.control.log_weight == math.log(recipe.rate.start_weight)).all()
    assert trainer.run.net.training


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_what_is_frozen_stays_to_the_last_bit(corpus, update):
    changes = ("net.norm=batch", "net.dropout=0.2", f"quantiser.update={update}", "quantiser.revive_below=2.0")
    stages = 'stage=[{name="a", steps=2, train=["encoder"]}, {name="b", steps=2, train=["decoder"]}]'
    trainer = trainer_of(tiny_recipe(*QUICK, *SMALL_BOOKS, *changes, stages), corpus)
    for part in ("encoder", "decoder"):
        before = {k: v.clone() for k, v in trainer.run.net.state_dict().items()}
        trainer.step()
        trainer.step()
        for name, value in trainer.run.net.state_dict().items():
            assert torch.equal(value, before[name]) != name.startswith(part), name


def test_weights_of_a_stage(corpus):
    def first(*changes: str) -> tuple[dict[str, float], Tensor]:
        trainer = trainer_of(tiny_recipe(*QUICK, *changes), corpus)
        return trainer.step(), trainer.run.net.quantiser.log_scale.grad

    usual, grad = first()
    heavy, same = first("stage.0.distortion_weight=3.0")
    assert heavy["distortion"] == pytest.approx(3 * usual["distortion"], rel=1e-3)
    assert torch.equal(grad != 0, same != 0)
    _, nothing = first("stage.0.rate_weight=0.0")
    assert grad.any()
    assert not nothing.any()


@pytest.mark.parametrize("stop", [2, 3, 5, 7])  # 3 and 6 are where stages begin
def test_a_codebook_run_resumes_exactly(corpus, tmp_path, monkeypatch, stop):
    revive, revived = ResidualVQ._revive, []
    monkeypatch.setattr(ResidualVQ, "_revive", lambda *given: revived.append(bool(given[1].any())) or revive(*given))
    changes = (
        "quantiser.revive_below=0.9",
        "quantiser.decay=0.3",
        "net.dropout=0.1",
        "net.norm=batch",
        "net.encoder=gru",
    )
    recipe = tiny_recipe(*QUICK, *SMALL_BOOKS, THREE_STAGES, *changes)
    resumes(recipe, corpus, tmp_path, stop, 9)
    assert sum(revived) > 6


@pytest.mark.parametrize("changes", [("rate.beta=0.05", "rate.warmup_steps=3"), ("quantiser.free_bits=0.1",)])
def test_a_gaussian_run_resumes_exactly(corpus, tmp_path, changes):
    resumes(tiny_recipe(*QUICK, "kind=gaussian", *changes, "stage.0.steps=6"), corpus, tmp_path, 3, 6)


def test_a_bypassed_run_resumes_exactly(corpus, tmp_path):
    resumes(tiny_recipe(*QUICK, "stage.0.bottleneck=bypassed", "stage.0.steps=4"), corpus, tmp_path, 2, 4)


def resumes(recipe: Recipe, corpus: Corpus, folder: Path, stop: int, steps: int) -> None:
    straight = trainer_of(recipe, corpus)
    figures = []
    for step in range(steps):
        if step == stop:
            straight.run.save(folder)
        figures.append(straight.step())
    torch.manual_seed(99)  # whatever else a process drew in the meantime
    run = codec_run.new_run(recipe, torch.device("cpu"))
    run.load(folder / "checkpoint.safetensors")
    again = trainer_of(recipe, corpus, run)
    assert [again.step() for _ in range(stop, steps)] == figures[stop:]
    assert_same(everything(run), everything(straight.run))


# ---- kinds and blocks of other packages


@pytest.mark.parametrize("kind", list(BOTTLENECKS))
def test_what_every_kind_exports_keeps_the_contract(kind, tmp_path):
    check_quantiser(net_of(kind).quantiser.export_quantiser(), tmp_path)


class Halves(nn.Module):
    """A block that remembers one frame."""

    def __init__(self, width: int):
        super().__init__()
        self.past_shape, self.share = (1, width), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, level: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        past = torch.zeros_like(x[:, :1]) if past is None else past
        joined = torch.cat([past, x], 1)
        return x + self.share * joined[:, :-1], joined[:, -1:]


class Coarse(PlainQuantiser):
    """A kind of its own name that rounds nothing either."""


def test_recipes_may_name_kinds_and_blocks_of_other_packages(corpus, monkeypatch):
    for registry in (BOTTLENECKS, BLOCKS):
        monkeypatch.setattr(registry, "_items", dict(registry._items))
    BOTTLENECKS.add("coarse", Coarse)
    BLOCKS.add("halves", lambda net, levels: Halves(net.width))
    trainer = trainer_of(tiny_recipe(*QUICK, "kind=coarse", "net.encoder=halves"), corpus)
    assert isinstance(trainer.run.net.quantiser, Coarse)
    figures = trainer.step()
    assert all(math.isfinite(value) for value in figures.values())
    assert any(parameter.any() for name, parameter in trainer.run.net.named_parameters() if name.endswith("share"))


# ---- refusals

NEAREST = [
    ("kind=gausian", "kind", "gaussian"),
    ("kind=vq", "kind", "rvq"),
    ("net.encoder=gruu", "net.encoder", "gru"),
    ("net.decoder=conv", "net.decoder", "convolutional"),
    ("net.norm=bach", "net.norm", "batch"),
    ("quantiser.update=emma", "quantiser.update", "ema"),
    ("stage.0.bottleneck=bypass", "stage joint.bottleneck", "bypassed"),
    ('stage.0.train=["encodr"]', "stage joint: train", "encoder"),
    ("quantiser.codebook_sise=3", "quantiser.codebook_sise", "codebook_size"),
]


@pytest.mark.parametrize(("change", "key", "near"), NEAREST)
def test_names_that_are_none_get_the_nearest(change, key, near):
    kind = ("kind=rvq",) if key.startswith("quantiser") else ()
    with pytest.raises(TrainError) as caught:
        tiny_recipe(*kind, change)
    assert str(caught.value).startswith(f"{key} is ")
    assert str(caught.value).endswith(f"did you mean {near}?")


@pytest.mark.parametrize(
    "changes",
    [
        ("quantiser.codebooks=0", "kind=rvq"),
        ("quantiser.codebooks=65", "kind=rvq"),
        ("quantiser.codebook_size=-16", "kind=rvq"),
        ("quantiser.codebook_size=1", "kind=rvq"),
        ("quantiser.codebook_size=5000", "kind=rvq"),
        ("quantiser.code_dims=-1", "kind=rvq"),
        ("quantiser.code_dims=9", "kind=rvq"),  # more than latent_dims
        ("quantiser.decay=1.5", "kind=rvq"),
        ("quantiser.commitment=-0.1", "kind=rvq"),
        ("quantiser.revive_below=-1", "kind=rvq"),
        ("quantiser.free_bits=-1", "kind=gaussian"),
        ("quantiser.rate_weight=-1", "kind=gaussian"),
        ("quantiser.values=4", "kind=fsq"),
        ("quantiser.values=257", "kind=fsq"),
        ("quantiser.codebooks=4", "kind=fsq"),  # of another kind
        ("quantiser.values=5",),
        ("rate.beta=-0.1",),
        ("rate.warmup_steps=0",),
        ("net.dropout=1.0",),
        ("net.dropout=-0.1",),
        ("codec.latent_dims=-8",),
        ("codec.latent_dims=256", "kind=fsq"),
        ("codec.latent_dims=1025",),
        ("codec.mel_bands=-1",),
        ("codec.delay_samples=640", "codec.mel_bands=20"),
        ("stage.0.rate_weight=-1",),
        ("stage.0.distortion_weight=0",),
        ("stage.0.fit=true",),  # no codebooks
        ('stage.0.train=["quantiser"]', "kind=fsq"),
        ('stage.0.train=["quantiser", "quantiser"]', "kind=autoencoder"),
        ('stage.0.train=["quantiser"]', "stage.0.bottleneck=bypassed"),
        ("stage.0.train=[]",),
    ],
)
def test_settings_that_cannot_be_meant(changes):
    with pytest.raises(NacreError) as caught:
        tiny_recipe(*changes)
    assert changes[0].partition("=")[0].split(".")[-1] in str(caught.value)


def test_recipes_of_earlier_versions_held_settings_of_all_kinds(tmp_path):
    recipe = tiny_recipe(*SMALL_BOOKS)
    values = json.loads(json.dumps(dataclasses.asdict(recipe)))
    values["quantiser"] |= {"free_bits": 0.0, "values": 5}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    assert recipe_of(tmp_path) == recipe
    with pytest.raises(TrainError, match="free_bits is an unknown key"):
        parse(values)
    (tmp_path / "recipe.json").write_text("[]")
    with pytest.raises(TrainError, match="a table of settings"):
        recipe_of(tmp_path)


def test_more_codes_than_frames_are_refused_before_training(tmp_path, speech):
    (tmp_path / "data").mkdir()
    audio.write(tmp_path / "data" / "a.wav", speech[None, :6400], 16_000)
    recipe = tiny_recipe("kind=rvq", "quantiser.codebook_size=21", "quantiser.code_dims=4")
    with pytest.raises(TrainError, match=r"^quantiser\.codebook_size is 21, and the recordings have 20 frames"):
        codec_trainer.train(recipe, tmp_path / "data", tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("where", ["distortion", "penalty"])
def test_what_diverged_is_named_and_the_checkpoint_kept(tmp_path, speech, monkeypatch, where):
    (tmp_path / "data").mkdir()
    audio.write(tmp_path / "data" / "a.wav", speech[None], 16_000)
    forward, calls = CodecNet.forward, []

    def poisoned(self, *arguments):
        calls.append(1)
        coded = forward(self, *arguments)
        name = {"distortion": "sound"}.get(where, where)
        return coded._replace(**{name: getattr(coded, name) * math.nan}) if len(calls) > 3 else coded

    monkeypatch.setattr(CodecNet, "forward", poisoned)
    recipe = tiny_recipe(*QUICK, *SMALL_BOOKS, "checkpoint_steps=2")
    with pytest.raises(TrainError, match=rf"^step 3: the gradient is nan, the loss nan; not finite: {where}.*--resume"):
        codec_trainer.train(recipe, tmp_path / "data", tmp_path / "run", quiet=True)
    facts, tensors = run_room.read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert facts["step"] == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())


# ---- recipes that stand on others, and the shipped ones


def test_a_recipe_states_its_difference_from_a_base(tmp_path):
    (tmp_path / "base.toml").write_text(RECIPE.read_text("utf-8"), "utf-8")
    derived = tmp_path / "derived.toml"
    derived.write_text('base = "base.toml"\nname = "derived"\nkind = "fsq"\n[net]\nencoder = "gru"\n', "utf-8")
    recipe, base = load_recipe(derived, ("data.batch=7",)), load_recipe(RECIPE)
    assert (recipe.name, recipe.kind, recipe.net.encoder, recipe.data.batch) == ("derived", "fsq", "gru", 7)
    assert (recipe.net.width, recipe.stage, recipe.codec) == (base.net.width, base.stage, base.codec)
    derived.write_text('base = "base.toml"\n[[stage]]\nname = "b"\nsteps = 3\n', "utf-8")
    assert [stage.name for stage in load_recipe(derived).stage] == ["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "../tiny.toml"', "must be the name of a recipe beside it"),
        ("base = 3", "must be the name of a recipe beside it"),
        ('base = "absent.toml"', r"absent\.toml cannot be read: No such file"),
        ('base = "derived.toml"', "name one that stands alone"),
    ],
)
def test_bases_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "derived.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(TrainError, match=message):
        load_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_stage_of_a_shipped_recipe_trains(path):
    recipe = load_recipe(path)
    with torch.device("meta"):
        net = codec_run.net_of(recipe)
        for stage in recipe.stage:
            codec_run.optimisers(net, stage)
            trained = {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad}
            assert trained
            assert trained == set(stage.train) & {name.split(".")[0] for name, _ in net.named_parameters()}


def test_recipes_cover_the_kinds():
    assert {load_recipe(path).kind for path in RECIPES} >= {"scalar", "gaussian", "rvq", "fsq"}


# ---- parts


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("kind", list(BLOCKS))
def test_blocks_step_as_they_run(kind, norm):
    net = net_of("scalar", encoder=kind, decoder=kind, norm=norm).eval()
    level = torch.tensor([2])
    for stack in (net.encoder, net.decoder):
        frames = torch.randn(1, 17, stack.inward.in_features)
        with torch.no_grad():
            whole, after = stack(frames, level)
            pieces, pasts = [], None
            for piece in frames.split([1, 3, 13], 1):
                out, pasts = stack(piece, level, pasts)
                pieces.append(out)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)
        assert [tuple(past.shape[1:]) for past in after] == stack.past_shapes


def test_batch_normalisation_averages_over_batch_and_frames():
    net = net_of("scalar", norm="batch")
    norm = net.encoder.stack.blocks[0].norm
    x = torch.randn(3, 20, 16) * 4 + 2
    flat = norm(x).flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.std(0, unbiased=False), torch.ones(16), atol=1e-3, rtol=0)
    assert int(norm.num_batches_tracked) == 1


def test_dropout_is_for_training_alone():
    net, frames = net_of("scalar", dropout=0.5), torch.randn(1, 5, 1284)
    draws = [net.encoder(frames, torch.tensor([0]))[0] for _ in range(2)]
    assert not torch.equal(*draws)
    net.eval()
    draws = [net.encoder(frames, torch.tensor([0]))[0] for _ in range(2)]
    assert torch.equal(*draws)


def test_log_mel_equals_the_codecs(speech):
    codec = dataclasses.replace(MEL, mel_bands=80)
    theirs = once(LogMelAnalyser(16_000, 640, 160, 2, 80), speech[:32_000])
    module = LogMel(codec)
    ours = module.spectra(torch.from_numpy(speech[None, :32_000].copy()))
    assert ours.shape == (1, 100, 160)
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=2e-3)
    wave = torch.zeros(1, 3200, requires_grad=True)
    module.target(wave).sum().backward()
    assert torch.isfinite(wave.grad).all()
    assert module.target(wave).shape == (1, 20, 80)
