"""Training room: parity with the codec's numpy, exact resumption, stages, data of all kinds, export, honest figures."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import HUNG_S, once

pytest.importorskip("torch", exc_type=ImportError)

import torch
from conftest import PACKAGE
from safetensors.torch import load_file, save_file

import nacre
from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError
from nacre.dsp.stft import Analyser, Synthesiser
from nacre.entropy.static_prior import TOTAL
from nacre.io import audio
from nacre.model import bundle as bundles
from nacre.model.runtime import Network
from nacre.train import codec_run, codec_trainer, loop, processes
from nacre.train import export as export_room
from nacre.train import recordings as recordings_room
from nacre.train import run as run_room
from nacre.train import start as start_room
from nacre.train import validate as validate_room
from nacre.train.bottlenecks.scalar import ScalarQuantiser, laplace_bits
from nacre.train.degrade import NOTHING, DegradeConfig, narrow
from nacre.train.losses import LossConfig, SpectralLoss, mel_filters
from nacre.train.nets.blocks import NetConfig
from nacre.train.nets.codec_net import CodecNet
from nacre.train.nets.transforms import Analysis
from nacre.train.rate import HIGHEST_WEIGHT, RateControl, smooth
from nacre.train.recipe import Recipe, StageConfig, load_recipe
from nacre.train.recordings import Corpus, Source, load_corpus, open_cache
from nacre.train.sampler import Sampler

CLIPS = PACKAGE / "clips"
RECIPE = Path(__file__).parents[1] / "recipes" / "tiny.toml"
CODEC = CodecConfig(latent_dims=8, levels=4, group_frames=10)
NET = NetConfig(16, 3, 2, 1, 1, 1)
RARELY = ("validate_steps=1000", "checkpoint_steps=1000")
TWO_STAGES = tuple(
    StageConfig(name, 4, parts, 3e-3, 2)
    for name, parts in (("encoder", ("encoder",)), ("joint", ("encoder", "decoder")))
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums in one order, as in a process that is told to use one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_recipe(*changes: str) -> Recipe:
    """The tiny recipe with changes."""
    return load_recipe(RECIPE, changes)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    """The bundled clips, decoded."""
    return load_corpus(CLIPS, tmp_path_factory.mktemp("corpus") / "corpus", CODEC.rate_hz, quiet=True)


@pytest.fixture
def net() -> CodecNet:
    """A tiny network whose levels differ."""
    torch.manual_seed(3)
    net = CodecNet(CODEC, NET)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("film"):
                parameter.normal_(0, 0.3)
    return net


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Folder of a finished run of 40 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    codec_trainer.train(tiny_recipe(*RARELY), CLIPS, folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Path:
    """Model folder of the finished run."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_room.export_run(trained, folder, "trial")
    return folder


def trainer_of(recipe: Recipe, corpus: Corpus, run: codec_run.CodecRun | None = None) -> codec_trainer.CodecTrainer:
    """A trainer on the CPU, from the start or from where `run` stands."""
    fabric = processes.alone(torch.device("cpu"))
    run = run or codec_run.new_run(recipe, fabric.device)
    return codec_trainer.CodecTrainer(recipe, run, loop.Sounds(corpus, None, None), fabric)


def everything(run: codec_run.CodecRun) -> dict[str, torch.Tensor]:
    """All tensors that decide how a run goes on."""
    tensors = {f"net.{k}": v for k, v in run.net.state_dict().items()} | {"control": run.control.log_weight}
    tensors |= {f"mean.{k}": v for k, v in run.mean.items()}
    tensors |= {f"adversary.{k}": v for k, v in run.adversary.state_dict().items()}
    for index, optimiser in enumerate(run.optimisers):
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{index}.{number}.{k}": v for k, v in state.items()}
    return {k: v.detach().clone() for k, v in tensors.items()}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Equal to the last bit."""
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


# ---- parity with what the codec runs


@pytest.mark.parametrize("gain", [1e-4, 0.1, 1.0])
def test_spectra_equal_the_codecs(speech, gain):
    wave = speech[:32_000] * np.float32(gain)
    theirs = once(Analyser(CODEC), wave)
    ours = Analysis(CODEC).spectra(torch.from_numpy(wave[None]))[0].numpy()
    assert ours.shape == theirs.shape == (100, CODEC.steps_per_frame * 2 * CODEC.bins)
    np.testing.assert_allclose(ours, theirs, atol=5e-5, rtol=1e-4)


def waves(analysis: Analysis, spectra: torch.Tensor) -> torch.Tensor:
    """Compressed spectra [B, S, 2 * bins] -> wave [B, N], with the codec's delay."""
    return analysis.wave(analysis.expanded(spectra))


@pytest.mark.parametrize("loudest", [1e-3, 1.0, 20.0])
def test_synthesis_equals_the_codecs(loudest):
    rng = np.random.default_rng(1)
    spectra = (rng.standard_normal((40, 2 * CODEC.bins)) * loudest).astype(np.float32)
    theirs = once(Synthesiser(CODEC), spectra)
    ours = waves(Analysis(CODEC), torch.from_numpy(spectra[None]))[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max(), rtol=1e-3)


def test_analysis_and_synthesis_are_inverse(speech):
    wave = torch.from_numpy(speech[None, :16_000].copy())
    analysis = Analysis(CODEC)
    back = waves(analysis, analysis.spectra(wave).reshape(1, -1, 2 * CODEC.bins))
    lag = CODEC.window_samples - CODEC.step_samples
    torch.testing.assert_close(back[:, lag:], wave[:, :-lag], atol=1e-3, rtol=1e-3)


def test_gradients_of_silence_are_finite():
    wave = torch.zeros(1, 3200, requires_grad=True)
    analysis = Analysis(CODEC)
    waves(analysis, analysis.spectra(wave).reshape(1, -1, 2 * CODEC.bins)).sum().backward()
    assert torch.isfinite(wave.grad).all()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("level", [0, 3])
def test_steps_equal_the_whole(net, part, level):
    stack = getattr(net, part)
    torch.manual_seed(4)
    frames, chosen = torch.randn(1, 23, stack.inward.in_features), torch.tensor([level])
    with torch.no_grad():
        whole, after = stack(frames, chosen)
        pieces, pasts = [], None
        for piece in frames.split([1, 2, 1, 10, 9], 1):
            out, pasts = stack(piece, chosen, pasts)
            pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)
    assert [tuple(past.shape[1:]) for past in after] == stack.past_shapes
    for ours, theirs in zip(pasts, after, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_nothing_looks_ahead(net):
    frames = torch.randn(1, 12, CODEC.steps_per_frame * 2 * CODEC.bins)
    changed = frames.clone()
    changed[:, 7:] += 1
    with torch.no_grad():
        ours, theirs = (net.encoder(x, torch.tensor([1]))[0] for x in (frames, changed))
    torch.testing.assert_close(ours[:, :7], theirs[:, :7])
    assert not torch.allclose(ours[:, 7:], theirs[:, 7:])


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_graphs_equal_the_networks(trained, exported, part):
    recipe = tiny_recipe(*RARELY)
    run = codec_run.new_run(recipe, torch.device("cpu"))
    run.load(trained / "checkpoint.safetensors")
    stack = getattr(export_room.averaged(run), part)
    graph = Network(exported / f"{part}.onnx", rows=CODEC.steps_per_frame if part == "decoder" else 1)
    with torch.no_grad():
        for parameter in stack.parameters():
            if parameter.numel() >= export_room.LARGE:
                assert not torch.equal(parameter, parameter.half().float())
                parameter.copy_(parameter.half().float())
    frames = np.random.default_rng(5).standard_normal((23, stack.inward.in_features)).astype(np.float32)
    for level in range(CODEC.levels):
        with torch.no_grad():
            theirs = stack(torch.from_numpy(frames[None]), torch.tensor([level]))[0][0].numpy()
        whole, _ = graph.step(frames, level, graph.start())
        np.testing.assert_allclose(whole, theirs, atol=2e-5, rtol=1e-4)
        pieces, past = [], graph.start()
        for piece in np.split(frames, [1, 2, 10]):
            out, past = graph.step(piece, level, past)
            pieces.append(out)
        np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5, rtol=1e-5)


# ---- bits


def laplace_mass(value: float, scale: float) -> float:
    """Probability of value - 0.5 .. value + 0.5, from the Laplace distribution function, in float64."""

    def below(x: float) -> float:
        return 0.5 * math.exp(x / scale) if x < 0 else 1 - 0.5 * math.exp(-x / scale)

    if value > 0.5:  # the same by symmetry, and exact far out
        value = -value
    return below(value + 0.5) - below(value - 0.5)


SCALES = [0.031, 0.1, 0.5, 1.0, 3.0, 20.0, 54.0]


@pytest.mark.parametrize("scale", SCALES)
def test_bits_are_a_distribution(scale):
    symbols = torch.arange(-2000, 2001).float()
    total = torch.exp2(-laplace_bits(symbols, torch.tensor(scale)).double()).sum()
    assert float(total) == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [0.0, 0.2, -0.49, 0.4999, 0.5, 0.5001, 1.0, -1.3, 4.0, 17.5, -63.0])
def test_bits_equal_the_distribution_function(scale, value):
    bits = float(laplace_bits(torch.tensor([value]), torch.tensor(scale)))
    mass = laplace_mass(value, scale)
    if mass > 1e-300:
        assert bits == pytest.approx(-math.log2(mass), rel=1e-4, abs=1e-5)


def test_bits_have_finite_gradients():
    values = torch.tensor([0.0, 0.3, 0.5, 0.7, 5.0, 300.0]).repeat(3, 1).requires_grad_()
    scale = torch.tensor([[-3.5], [0.0], [4.0]]).exp().requires_grad_()
    laplace_bits(values, scale).sum().backward()
    assert torch.isfinite(values.grad).all()
    assert torch.isfinite(scale.grad).all()
    assert (values.grad[:, 3:] > 0).all()  # larger symbols cost more


def test_quantiser_rounds_and_lets_gradients_through(net):
    wave = torch.from_numpy(np.random.default_rng(6).standard_normal((2, 6400)).astype(np.float32))
    level = torch.tensor([0, 3])
    latents, _ = net.encoder(net.analysis.spectra(wave), level)
    found = net.quantiser(latents, level)
    symbols = found.latents / net.quantiser.steps()[level].unsqueeze(1)
    torch.testing.assert_close(symbols, symbols.round(), atol=1e-4, rtol=0)
    assert (found.latents - latents).abs().max() <= net.quantiser.steps().max() / 2 + 1e-5
    assert found.noisy_bits.shape == found.rounded_bits.shape == (2, 20)
    assert not found.rounded_bits.requires_grad
    found.latents.square().sum().backward(retain_graph=True)
    through_rounding = [p.grad.clone() for p in net.encoder.parameters()]
    assert all(grad.abs().sum() > 0 for grad in through_rounding)
    net.zero_grad()
    found.noisy_bits.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.encoder.parameters())
    assert net.quantiser.log_scale.grad[1:3].abs().sum() == 0  # of levels that were not drawn
    assert (net.quantiser.log_scale.grad[[0, 3]] != 0).all()


def test_only_the_rate_sees_noise(net):
    latents, level = torch.randn(1, 50, 8), torch.tensor([2])
    first, second = net.quantiser(latents, level), net.quantiser(latents, level)
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.rounded_bits, second.rounded_bits)
    assert not torch.equal(first.noisy_bits, second.noisy_bits)


def test_finer_levels_have_smaller_steps():
    steps = ScalarQuantiser(CODEC).steps()
    assert steps.shape == (4, 8)
    assert (steps[1:] < steps[:-1]).all()


def test_rates_reach_their_targets():
    targets = torch.tensor([20.0, 50.0, 130.0, 320.0])
    control = RateControl(targets, 1e-4)
    costs = torch.tensor([1.0, 1.7, 3.0, 6.0])  # bits = cost * weight ** -0.5

    def bits(level: torch.Tensor) -> torch.Tensor:
        return costs[level] * control.weight(level) ** -0.5

    levels = torch.arange(4)
    assert (bits(levels) / targets > 1.5).any()
    generator = torch.Generator().manual_seed(7)
    for _ in range(4000):
        level, before = torch.randint(4, (16,), generator=generator), control.log_weight.clone()
        noise = torch.exp(0.2 * torch.randn(16, generator=generator))
        control.update(level, bits(level) * noise)
        assert (control.log_weight - before).abs().max() < 2 * control.climb + 1e-6
    rates = bits(levels)
    assert (rates[1:] > rates[:-1]).all()
    assert (control.log_weight[1:] < control.log_weight[:-1]).all()
    torch.testing.assert_close(rates, targets, rtol=0.1, atol=0)


def test_held_weights_stay_whatever_the_rate():
    control = RateControl(torch.tensor([10.0, 20.0]), 1e-3, hold=True)
    before = control.log_weight.clone()
    control.update(torch.tensor([0, 1]), torch.tensor([100.0, 1.0]))
    assert torch.equal(control.log_weight, before)


def test_levels_of_the_same_steps_are_one_level():
    assert start_room.distinct(torch.tensor([[1.0, 2], [3, 4], [1, 2], [5, 6], [3, 4]])) == ([0, 1, 3], [0, 1, 0, 2, 1])


def test_weights_stay_inside_their_range():
    control = RateControl(torch.tensor([10.0, 20.0]), 1e-3)
    for _ in range(2000):
        control.update(torch.tensor([0, 1]), torch.tensor([1e4, 0.0]))
    ends = [HIGHEST_WEIGHT, math.exp(control.lowest)]
    assert control.weight(torch.tensor([0, 1])).tolist() == pytest.approx(ends, rel=0.2)


def test_smoothing_keeps_straight_lines_and_single_levels():
    line = torch.tensor([1.0, 3.0, 5.0, 7.0])
    torch.testing.assert_close(smooth(line), line)
    assert smooth(torch.tensor([4.0])).tolist() == [4.0]
    assert smooth(torch.tensor([4.0, 5.0])).tolist() == [4.0, 5.0]


def test_targets_are_spaced_evenly_on_a_log_scale():
    targets = codec_run.level_targets(tiny_recipe("rate.lowest_kbps=1.0", "rate.highest_kbps=8.0"))
    assert targets.tolist() == pytest.approx([20, 40, 80, 160])  # bits a frame, 50 frames a second


# ---- losses


def test_loss_is_zero_for_equals_and_per_item(speech):
    loss = SpectralLoss(LossConfig(), 16_000)
    wave = torch.from_numpy(np.stack([speech[:8000], speech[8000:16_000]]))
    distortion, parts = loss(wave, wave)
    assert distortion.tolist() == [0, 0]
    other = wave.clone()
    other[1] *= 0.5
    distortion, parts = loss(other, wave)
    assert distortion[0] == 0 < distortion[1]
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), distortion)
    assert set(parts) == {"magnitude", "log_mel", "complex"}


def test_loss_of_silence_has_a_finite_gradient(speech):
    loss = SpectralLoss(LossConfig(), 16_000)
    for wave in (torch.zeros(1, 4000), torch.from_numpy(speech[None, :4000].copy())):
        silence = torch.zeros(1, 4000, requires_grad=True)
        loss(silence, wave)[0].sum().backward()
        assert torch.isfinite(silence.grad).all()


@pytest.mark.parametrize(("bands", "bins"), [(80, 513), (64, 257), (40, 129), (80, 65)])
def test_every_mel_band_hears_something(bands, bins):
    filters = mel_filters(bands, bins, 16_000)
    torch.testing.assert_close(filters.sum(0), torch.ones(bands))


# ---- stages


def test_frozen_parts_stay_as_they_are(corpus):
    recipe = dataclasses.replace(tiny_recipe(*RARELY), stage=TWO_STAGES)
    trainer = trainer_of(recipe, corpus)
    run, net = trainer.run, trainer.run.net
    for index, stage in enumerate(recipe.stage):
        before, olds = {k: v.clone() for k, v in net.state_dict().items()}, run.optimisers
        for _ in range(stage.steps):
            figures = trainer.step()
        assert run.stage == index
        assert not {id(old) for old in olds} & {id(new) for new in run.optimisers}
        held = {id(p) for o in run.optimisers for group in o.param_groups for p in group["params"]}
        for name, parameter in net.named_parameters():
            trained = name.split(".")[0] in stage.train
            assert parameter.requires_grad == trained == (id(parameter) in held), name
            assert (parameter.grad is not None) == trained, name
            assert torch.equal(parameter, before[name]) != trained, name
        assert figures["gradient"] > 0


def test_gradients_of_an_earlier_stage_do_not_count(corpus):
    stages = tuple(StageConfig(part, 2, (part,), 1e-3, 0) for part in ("decoder", "encoder"))
    trainer = trainer_of(dataclasses.replace(tiny_recipe(*RARELY), stage=stages), corpus)
    figures = [trainer.step() for _ in range(3)][-1]
    grads = [p.grad for p in trainer.run.net.encoder.parameters()]
    norm = float(torch.stack([grad.norm() for grad in grads]).norm())
    assert norm == pytest.approx(min(10.0, figures["gradient"]), rel=1e-4)


def test_every_parameter_has_one_optimiser(net):
    parts = ("encoder", "decoder", "quantiser")
    adam, muon = codec_run.optimisers(net, StageConfig("all", 1, parts))
    held = [id(p) for o in (adam, muon) for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    assert all(p.dim() == 2 for p in muon.param_groups[0]["params"])
    (alone,) = codec_run.optimisers(net, StageConfig("steps", 1, ("quantiser",)))
    assert len(alone.param_groups[0]["params"]) == 2


def test_learning_rate_warms_up_and_decays():
    stage = StageConfig("s", 100, learning_rate=1.0, warmup_steps=10, decay_share=0.4)
    rates = [codec_run.learning_rate(stage, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:61] == [1.0] * 52
    assert rates[80] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.025)
    flat = StageConfig("s", 10, learning_rate=1.0, warmup_steps=0, decay_share=0.0)
    assert {codec_run.learning_rate(flat, step) for step in range(10)} == {1.0}


# ---- steps


def test_a_tiny_network_learns(corpus):
    trainer = trainer_of(tiny_recipe(*RARELY), corpus)
    distortions = [trainer.step()["distortion"] for _ in range(30)]
    assert np.isfinite(distortions).all()
    assert np.mean(distortions[-5:]) < 0.95 * np.mean(distortions[:5])


def test_the_same_seed_gives_the_same_figures(corpus):
    first, second = (trainer_of(tiny_recipe(*RARELY), corpus) for _ in range(2))
    assert [first.step() for _ in range(4)] == [second.step() for _ in range(4)]
    other = trainer_of(tiny_recipe(*RARELY, "seed=2"), corpus)
    assert other.step() != trainer_of(tiny_recipe(*RARELY), corpus).step()


def test_every_step_and_process_hears_other_sound(corpus):
    heard = []
    for rank in range(2):
        trainer = trainer_of(tiny_recipe(*RARELY), corpus)
        trainer.fabric.strategy.global_rank = rank
        draw = trainer.sampler.draw

        def listening(*arguments, draw=draw):
            heard.append(draw(*arguments).waves)
            return draw(*arguments)

        trainer.sampler.draw = listening
        for _ in range(2):
            trainer.step()
    assert len({wave.tobytes() for waves in heard for wave in waves}) == 4 * 4


@pytest.mark.parametrize("stop", [0, 3, 4, 5])  # 4 is where the second stage begins
def test_resumption_is_exact(corpus, tmp_path, stop):
    recipe = dataclasses.replace(tiny_recipe(*RARELY), stage=TWO_STAGES)
    straight = trainer_of(recipe, corpus)
    figures = [straight.step() for _ in range(8)]
    first = trainer_of(recipe, corpus)
    for _ in range(stop):
        first.step()
    first.run.save(tmp_path)
    torch.manual_seed(99)  # whatever else the process drew in the meantime
    run = codec_run.new_run(recipe, torch.device("cpu"))
    run.load(tmp_path / "checkpoint.safetensors")
    second = trainer_of(recipe, corpus, run)
    assert [second.step() for _ in range(stop, 8)] == figures[stop:]
    assert_same(everything(run), everything(straight.run))
    assert (run.step, run.stage, run.seconds_seen) == (8, 1, straight.run.seconds_seen)


def test_one_level_will_do(corpus):
    trainer = trainer_of(tiny_recipe(*RARELY, "codec.levels=1"), corpus)
    assert all(math.isfinite(trainer.step()["loss"]) for _ in range(2))
    judge = validate_room.Judge(trainer.recipe, corpus, corpus, items=1, seconds=1)
    (figures,) = judge.figures(trainer.run, trainer.loss)
    assert figures.level == 0


def test_the_average_follows_the_weights(corpus):
    trainer = trainer_of(tiny_recipe(*RARELY), corpus)
    start = {k: v.clone() for k, v in trainer.run.mean.items()}
    trainer.step()
    name = "decoder.outward.weight"
    weight = trainer.run.net.state_dict()[name]
    torch.testing.assert_close(trainer.run.mean[name], 0.1 * start[name] + 0.9 * weight)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(corpus, accumulate):
    changes = (*RARELY, "stage.0.bottleneck=bypassed")  # no noise is drawn
    whole, parts = (trainer_of(tiny_recipe(*changes, f"data.accumulate={count}"), corpus) for count in (1, accumulate))
    first, second = whole.step(), parts.step()
    assert second.keys() == first.keys()
    assert second["gradient"] == pytest.approx(first["gradient"], rel=0.02)  # bfloat16 rounds, where it is used
    assert second["distortion"] == pytest.approx(first["distortion"], rel=0.01)
    for name, parameter in parts.run.net.named_parameters():
        if parameter.requires_grad and parameter.grad.any():
            other = whole.run.net.get_parameter(name).grad
            assert torch.nn.functional.cosine_similarity(parameter.grad.flatten(), other.flatten(), 0) > 0.98, name


def test_a_batch_has_whole_parts():
    with pytest.raises(TrainError, match=r"data\.accumulate is 3; it must be a divisor of batch, 4"):
        tiny_recipe("data.accumulate=3")


# ---- whole runs


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until a file is there; fails if the process ends first."""
    deadline = time.monotonic() + HUNG_S
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.002)


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, environment):
    changes = (
        "validate_steps=100000",
        "checkpoint_steps=4",
        "stage.0.steps=100000",
        "data.batch=1",
        "data.excerpt_s=0.2",
    )
    killed, checkpoint = tmp_path / "killed", tmp_path / "killed" / "checkpoint.safetensors"
    command = [sys.executable, "-m", "nacre", "train", RECIPE, "--data", CLIPS, "--out", killed, "--resume"]
    for change in changes:
        command += ["--set", change]
    settings = {
        "env": environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen(command, **settings) as process:
        wait_for(checkpoint, process)
        process.kill()
    facts, _ = run_room.read_checkpoint(checkpoint)
    before = checkpoint.stat().st_mtime_ns
    with subprocess.Popen(command, **settings) as process:
        while process.poll() is None and checkpoint.stat().st_mtime_ns == before:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=HUNG_S)
    assert process.returncode == 130, errors
    assert "Traceback" not in out + errors
    after, _ = run_room.read_checkpoint(checkpoint)
    assert f"step {after['step']} is saved" in out
    assert 4 <= facts["step"] < after["step"]
    recipe, last = tiny_recipe(*changes), after["step"] + 3
    resumed = codec_trainer.train(recipe, CLIPS, killed, resume=True, max_steps=last, quiet=True)
    straight = codec_trainer.train(recipe, CLIPS, tmp_path / "straight", max_steps=last, quiet=True)
    assert resumed.step == straight.step == last
    assert_same(everything(resumed), everything(straight))


@pytest.mark.slow
def test_processes_train_as_one_and_stop_at_the_same_step(tmp_path, environment):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "nacre", "train", RECIPE, "--data", CLIPS, "--out", out, "--processes", "2"]
    for change in ("validate_steps=100000", "checkpoint_steps=1", "stage.0.steps=100000", "data.batch=2"):
        command += ["--set", change]
    settings = {"env": environment | {"CUDA_VISIBLE_DEVICES": ""}, "text": True, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings) as process:
        wait_for(out / "checkpoint.safetensors", process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        text, errors = process.communicate(timeout=HUNG_S)
    assert process.returncode == 130, errors
    assert "Traceback" not in text + errors
    facts, tensors = run_room.read_checkpoint(out / "checkpoint.safetensors")
    assert f"step {facts['step']} is saved" in text
    assert facts["seconds_seen"] == facts["step"] * 2 * 2 * 0.5
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    alone = codec_trainer.train(tiny_recipe("data.batch=2"), CLIPS, tmp_path / "alone", max_steps=1, quiet=True)
    assert alone.seconds_seen == 1


@pytest.mark.parametrize("world", [1, 2])
def test_a_process_that_is_gone_is_told_in_one_line(world):
    fabric = processes.alone(torch.device("cpu"))
    fabric.strategy.world_size = world
    with pytest.raises(TrainError if world > 1 else RuntimeError) as told, processes.together(fabric):
        raise RuntimeError("Read error [127.0.0.1]:56517: Connection reset by peer.")
    assert ("go on with --resume" in str(told.value)) == (world > 1)
    with pytest.raises(RuntimeError, match="shapes"), processes.together(fabric):
        raise RuntimeError("shapes differ")


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainError, match="2 processes are more than the 1 GPUs"):
        processes.start(2)


def test_first_interrupt_asks_second_insists():
    before = signal.getsignal(signal.SIGINT)
    with loop.interrupted() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_saves_the_step_it_finished(tmp_path, monkeypatch):
    step = codec_trainer.CodecTrainer.step

    def interrupting(self):
        if self.run.step == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    monkeypatch.setattr(codec_trainer.CodecTrainer, "step", interrupting)
    with pytest.raises(KeyboardInterrupt):
        codec_trainer.train(tiny_recipe(*RARELY), CLIPS, tmp_path, quiet=True)
    assert run_room.read_checkpoint(tmp_path / "checkpoint.safetensors")[0]["step"] == 3


def test_max_steps_and_resume(tmp_path):
    recipe = tiny_recipe(*RARELY)
    assert codec_trainer.train(recipe, CLIPS, tmp_path, max_steps=2, quiet=True).step == 2
    assert codec_trainer.train(recipe, CLIPS, tmp_path, resume=True, max_steps=3, quiet=True).step == 3
    assert codec_trainer.train(recipe, CLIPS, tmp_path, resume=True, max_steps=1, quiet=True).step == 3


def test_a_run_that_has_begun_is_not_overwritten(trained):
    before = (trained / "checkpoint.safetensors").read_bytes()
    with pytest.raises(TrainError, match=r"a run that has begun.*--resume"):
        codec_trainer.train(tiny_recipe(), CLIPS, trained, quiet=True)
    assert (trained / "checkpoint.safetensors").read_bytes() == before


def test_run_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(TrainError, match="cannot be made for the run"):
            codec_trainer.train(tiny_recipe(), CLIPS, out, quiet=True)


@pytest.fixture
def brief(monkeypatch):
    """Validation on two seconds of sound."""
    monkeypatch.setattr(codec_trainer, "Judge", functools.partial(validate_room.Judge, items=2, seconds=1))


@pytest.mark.usefixtures("brief")
def test_a_run_tells_how_it_goes(tmp_path, capsys):
    recipe = tiny_recipe("validate_steps=2", "checkpoint_steps=1", "data.batch=1")
    codec_trainer.train(recipe, CLIPS, tmp_path, noise=CLIPS, valid=CLIPS, max_steps=2)
    out = capsys.readouterr().out
    assert "2/2" in out
    assert re.search(r"step 2, validation distortion at( +[\d.]+ kb/s: [\d.]+){4}\n", out)
    assert list((tmp_path / "events").iterdir())


@pytest.mark.usefixtures("brief")
def test_quiet_is_quiet(tmp_path, capsys):
    codec_trainer.train(tiny_recipe("validate_steps=1", "data.batch=1"), CLIPS, tmp_path, max_steps=1, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert list((tmp_path / "events").iterdir())


def test_a_run_that_diverges_stops_and_keeps_its_checkpoint(tmp_path, monkeypatch):
    forward, calls = SpectralLoss.forward, []

    def poisoned(self, decoded, wave, lengths=None):
        distortion, parts = forward(self, decoded, wave, lengths)
        calls.append(1)
        return (distortion * math.nan if len(calls) > 5 else distortion), parts

    monkeypatch.setattr(SpectralLoss, "forward", poisoned)
    recipe = tiny_recipe("checkpoint_steps=2", "validate_steps=1000")
    with pytest.raises(TrainError, match=r"step 5: the gradient is nan.*last checkpoint is kept"):
        codec_trainer.train(recipe, CLIPS, tmp_path, quiet=True)
    facts, tensors = run_room.read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert facts["step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    monkeypatch.undo()
    assert codec_trainer.train(recipe, CLIPS, tmp_path, resume=True, max_steps=6, quiet=True).step == 6


# ---- checkpoints


@pytest.fixture
def checkpoint(trained, tmp_path) -> Path:
    """A copy of a checkpoint, to be harmed."""
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes((trained / "checkpoint.safetensors").read_bytes())
    return path


def load(path: Path, *changes: str) -> None:
    recipe = tiny_recipe(*changes)
    codec_run.new_run(recipe, torch.device("cpu")).load(path)


@pytest.mark.parametrize("keep", [0, 5, 100, 5000, -1])
def test_truncated_checkpoints(checkpoint, keep):
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(TrainError, match="is no checkpoint written by"):
        load(checkpoint)


def test_damaged_checkpoints(checkpoint):
    whole = checkpoint.read_bytes()
    rng = np.random.default_rng(8)
    for _ in range(30):  # harm to the head is found; numbers themselves carry no check
        harmed = bytearray(whole)
        harmed[int(rng.integers(2000))] ^= int(rng.integers(1, 256))
        checkpoint.write_bytes(harmed)
        with contextlib.suppress(TrainError):
            load(checkpoint)


class Mine:
    """Unpickling this would leave a mark."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_checkpoints_are_never_unpickled(checkpoint, tmp_path):
    mark = tmp_path / "mark"
    checkpoint.write_bytes(pickle.dumps({"net": Mine(mark)}))
    with pytest.raises(TrainError):
        load(checkpoint)
    torch.save({"net": Mine(mark)}, checkpoint)
    with pytest.raises(TrainError):
        load(checkpoint)
    assert not mark.exists()


def test_no_source_unpickles():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        found = re.findall(r"import (?:pickle|joblib|dill|marshal|shelve)|torch\.load\(|allow_pickle=True", text)
        assert found == [], path


def test_checkpoints_of_something_else(checkpoint, tmp_path):
    tensors = load_file(checkpoint)
    with pytest.raises(TrainError, match="other parts or sizes"):
        load(checkpoint, "net.width=8")
    with pytest.raises(TrainError, match="the recipe has another stage"):
        load(checkpoint, "stage.0.steps=20", 'stage=[{name="a", steps=3}, {name="b", steps=90}]')
    with pytest.raises(TrainError, match="other parts"):
        load(checkpoint, 'stage.0.train=["encoder"]')
    save_file(tensors, checkpoint)
    with pytest.raises(TrainError, match="is no checkpoint written by"):
        load(checkpoint)
    facts = {"run": json.dumps({"step": 1, "stage": 0, "seconds_seen": 1.0})}
    save_file({k: v for k, v in tensors.items() if k != "control"}, checkpoint, facts)
    with pytest.raises(TrainError, match="other parts or sizes"):
        load(checkpoint)
    save_file(tensors, checkpoint, {"run": '{"step": 1'})
    with pytest.raises(TrainError):
        load(checkpoint)
    with pytest.raises(TrainError, match="absent"):
        load(tmp_path / "absent.safetensors")


def test_a_disk_that_refuses(corpus, tmp_path):
    with pytest.raises(TrainError, match="cannot save"):
        codec_run.new_run(tiny_recipe(), torch.device("cpu")).save(tmp_path / "absent")


# ---- recordings


def tone(path: Path, value: float, samples: int = 16_000, rate_hz: int = 16_000, channels: int = 1) -> Path:
    """A file of one value in its middle half, and minus that value before and after: no offset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sign = np.where(np.abs(np.arange(samples) - samples / 2) < samples / 4, 1, -1)
    audio.write(path, np.tile(np.float32(value) * sign, (channels, 1)), rate_hz, overwrite=True)
    return path


@pytest.fixture
def recordings(tmp_path) -> Path:
    """A folder with sound of several shapes."""
    folder = tmp_path / "recordings"
    tone(folder / "a" / "one.wav", 0.1, 3000)
    tone(folder / "a" / "deep" / "er" / "two.flac", 0.1, 2000)
    tone(folder / "b" / "three.wav", 0.2, 9600, 48_000, 2)
    (folder / "notes.txt").write_text("no sound")
    return folder


def test_every_depth_format_and_rate(recordings, tmp_path):
    found = load_corpus(recordings, tmp_path / "cache", 16_000, quiet=True)
    assert {s.name: len(s.samples) for s in found.sources} == {"a": 5000, "b": 3200}
    assert (found.files, found.skipped) == (3, [])
    assert found.seconds == 8200 / 16_000
    assert found.sources[1].samples[1600] == pytest.approx(0.2 * 32767, rel=0.01)


def test_several_folders_are_one_corpus(recordings, tmp_path):
    tone(tmp_path / "more" / "b" / "five.wav", 0.3, 1000)
    found = load_corpus([recordings, tmp_path / "more"], tmp_path / "cache", 16_000, quiet=True)
    assert {s.name: len(s.samples) for s in found.sources} == {"a": 5000, "b": 4200}
    with pytest.raises(TrainError, match="none is no folder"):
        load_corpus([recordings, tmp_path / "none"], tmp_path / "cache", 16_000, quiet=True)


def test_recordings_with_noise_of_their_own_are_left_out(tmp_path):
    rng, folder, cache = np.random.default_rng(0), tmp_path / "data", tmp_path / "cache"
    speech = np.sin(np.arange(32_000) * 0.2) * (np.arange(32_000) % 16_000 < 12_000) * 0.3
    (folder / "voice").mkdir(parents=True)
    for name, noise in {"0": 1e-3, "1": 3e-2, "2": 1e-3}.items():
        sf.write(folder / "voice" / f"{name}.wav", speech + rng.normal(0, noise, len(speech)), 16_000)
    sf.write(folder / "voice" / "3.wav", np.zeros(10), 16_000)
    strict = load_corpus(folder, cache, 16_000, quiet=True, range_db=36)
    whole = load_corpus(folder, tmp_path / "whole", 16_000, quiet=True)
    assert len(whole.sources[0].samples) == 3 * 32_000 + 10
    (voice,) = strict.sources
    assert voice.stops.tolist() == [32_000, 64_000]
    first, _, third = whole.sources[0].samples[: 3 * 32_000].reshape(3, -1)
    np.testing.assert_array_equal(voice.samples, np.concatenate([first, third]))
    assert "1.wav has noise only 17 dB below its speech; the recipe's range_db wants 36" in strict.skipped[0]
    assert "3.wav" in strict.skipped[1]
    assert len(load_corpus(folder, cache, 16_000, quiet=True).sources[0].samples) == 3 * 32_000 + 10
    with pytest.raises(TrainError, match=r"no recording can be used; the first: .*0\.wav has noise only"):
        load_corpus(folder, cache, 16_000, quiet=True, range_db=90)


def test_sources_do_not_mix(recordings, tmp_path):
    tone(recordings / "0.wav", 0.3, 1000)
    tone(recordings / "aa.wav", 0.3, 1000)
    tone(recordings / "z.wav", 0.3, 1000)
    found = load_corpus(recordings, tmp_path / "cache", 16_000, quiet=True)
    assert {s.name: len(s.samples) for s in found.sources} == {".": 3000, "a": 5000, "b": 3200}
    values = {s.name: {round(abs(v) / 32767, 2) for v in s.samples[100:-100].tolist()} for s in found.sources}
    assert (values["."], values["a"]) == ({0.3}, {0.1})


def test_sound_of_any_suffix_is_data(tmp_path):
    folder = tmp_path / "data"
    (folder / "one").mkdir(parents=True)
    sf.write(folder / "one" / "a.AIFF", np.zeros(1600), 16_000, format="AIFF")
    (folder / "b.m4a").write_bytes(b"no film")
    corpus = load_corpus(folder, tmp_path / "cache", 16_000, quiet=True)
    assert [source.name for source in corpus.sources] == ["one"]
    assert ["b.m4a" in line for line in corpus.skipped] == [True]


@pytest.mark.parametrize("case", ["missing", "file", "empty", "bad"])
def test_data_that_is_none(tmp_path, case):
    folder = tmp_path / "data"
    if case == "file":
        folder.write_text("x")
    elif case != "missing":
        folder.mkdir()
    if case == "bad":
        (folder / "a.wav").write_bytes(b"RIFF....WAVE")
        (folder / "b.flac").touch()
    with pytest.raises(TrainError, match=rf"{folder} (is no folder|holds no sound files)|can be used") as caught:
        codec_trainer.train(tiny_recipe(), folder, tmp_path / "run", quiet=True)
    assert (case == "bad") == ("a.wav" in str(caught.value))
    assert not (tmp_path / "run" / "corpus.json").exists()


def test_sound_too_short_to_train_on(tmp_path):
    tone(tmp_path / "data" / "a.wav", 0.1, 100)
    with pytest.raises(TrainError, match=r"0\.006 s of recordings"):
        codec_trainer.train(tiny_recipe(), tmp_path / "data", tmp_path / "run", quiet=True)


def test_bad_files_are_skipped_and_counted(recordings, tmp_path, capsys):
    whole = (recordings / "a" / "one.wav").read_bytes()
    (recordings / "a" / "empty.wav").touch()
    (recordings / "b" / "text.mp3").write_text("not sound at all")
    cut = recordings / "b" / "cut.flac"
    flac = (CLIPS / "dutch.flac").read_bytes()
    cut.write_bytes(flac[:100])  # no sound before the cut
    assert whole
    out, recipe = tmp_path / "run", tiny_recipe(*RARELY, "data.batch=1")
    codec_trainer.train(recipe, recordings, out, max_steps=1)
    assert f"3 of 6 files skipped, listed in {out / 'skipped.txt'}" in capsys.readouterr().out
    lines = (out / "skipped.txt").read_text("utf-8").splitlines()
    assert [Path(line.split(" ")[0].rstrip(":")).name for line in lines] == ["empty.wav", "cut.flac", "text.mp3"]
    found = open_cache(out / "corpus")
    assert {s.name: len(s.samples) for s in found.sources} == {"a": 5000, "b": 3200}
    codec_trainer.train(recipe, recordings, out, resume=True, max_steps=2, quiet=True)
    assert capsys.readouterr().out == ""
    for name in ("a/empty.wav", "b/text.mp3", "b/cut.flac"):
        (recordings / name).unlink()
    codec_trainer.train(recipe, recordings, out, resume=True, max_steps=3, quiet=True)
    assert not (out / "skipped.txt").exists()


def test_recordings_are_decoded_once(recordings, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = load_corpus(recordings, cache, 16_000, quiet=True)
    decoded = []
    blocks = recordings_room._blocks
    monkeypatch.setattr(
        recordings_room, "_blocks", lambda path, rate_hz: decoded.append(path.name) or blocks(path, rate_hz)
    )
    again = load_corpus(recordings, cache, 16_000, quiet=True)
    assert decoded == []
    assert [len(s.samples) for s in again.sources] == [len(s.samples) for s in first.sources]
    tone(recordings / "b" / "four.wav", 0.1, 1000)
    assert load_corpus(recordings, cache, 16_000, quiet=True).files == 4
    assert len(decoded) == 4
    assert load_corpus(recordings, cache, 8_000, quiet=True).rate_hz == 8_000
    assert len(decoded) == 8


def test_a_cache_of_an_earlier_version_is_read(recordings, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    whole = load_corpus(recordings, cache, 16_000, quiet=True)
    index = json.loads(cache.with_suffix(".json").read_text())
    paths = [recordings / name for name in ("a/deep/er/two.flac", "a/one.wav", "b/three.wav")]
    index["listing"] = [[str(path), path.stat().st_size] for path in paths]
    del index["files"], index["digest"]
    cache.with_suffix(".json").write_text(json.dumps(index))
    monkeypatch.setattr(recordings_room, "_decode", None)
    for found in (open_cache(cache), load_corpus(recordings, cache, 16_000, quiet=True)):
        assert (found.files, found.seconds) == (3, whole.seconds)


def test_long_recordings_wait_in_a_file(recordings, tmp_path, monkeypatch):
    whole = load_corpus(recordings, tmp_path / "whole", 16_000, quiet=True)
    monkeypatch.setattr(recordings_room, "SPOOL_BYTES", 100)
    parts = load_corpus(recordings, tmp_path / "parts", 16_000, quiet=True)
    for one, two in zip(whole.sources, parts.sources, strict=True):
        np.testing.assert_array_equal(one.samples, two.samples)


@pytest.mark.parametrize("harm", ["index", "samples", "no samples"])
def test_a_cache_that_a_kill_left_unfinished_is_made_again(recordings, tmp_path, harm):
    cache, whole = tmp_path / "cache", load_corpus(recordings, tmp_path / "cache", 16_000, quiet=True)
    index, samples = cache.with_suffix(".json"), cache.with_suffix(".i16")
    if harm == "index":
        index.write_text(index.read_text()[:40])
    elif harm == "samples":
        samples.write_bytes(samples.read_bytes()[:-100])
    else:
        samples.unlink()
    with pytest.raises(TrainError, match="holds no recordings decoded by"):
        open_cache(cache)
    again = load_corpus(recordings, cache, 16_000, quiet=True)
    assert [len(s.samples) for s in again.sources] == [len(s.samples) for s in whole.sources]


ROUGH = DegradeConfig(1.0, (0.7, 1.4), 6.0, 0.5, 1.0, 1.0, (0.0, 10.0), 1.0, 1.0, 1.0)


@pytest.mark.parametrize("degrade", [NOTHING, DegradeConfig(), ROUGH], ids=["still", "usual", "rough"])
def test_excerpts_come_from_the_seed(corpus, degrade):
    sampler = Sampler(corpus, CODEC, degrade, corpus, 0.6)
    first, again = sampler.batch(6, 8000, (1, 2, 0)), sampler.batch(6, 8000, (1, 2, 0))
    assert first.shape == (6, 8000)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert np.array_equal(sampler.batch(3, 8000, (1, 2, 0)), first[:3])
    assert len({wave.tobytes() for wave in [*first, *sampler.batch(6, 8000, (1, 2, 1))]}) == 12


def test_a_narrow_band_keeps_what_lies_inside():
    place = np.arange(16_000)
    tones = {hz: np.sin(2 * np.pi * hz * place / 16_000).astype(np.float32) for hz in (50, 1000, 5000)}
    found = narrow(np.sum(list(tones.values()), 0), 300, 3400, 16_000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tones[1000], atol=1e-5)


@pytest.mark.parametrize("name", ["room", "band", "talker"])
def test_what_speech_goes_through_is_in_the_target_too(name):
    rng = np.random.default_rng(0)
    speech = Source("s", (3000 * rng.standard_normal(50_000)).astype(np.int16), np.array([50_000]))
    response = Source("rir", np.array([0, 20_000, 0, 0, 9000, 4000], np.int16), np.array([6]))
    corpora = (Corpus([kind], [], 16_000, 1) for kind in (speech, response))
    degrade = dataclasses.replace(NOTHING, **{f"{name}_probability": 1.0})
    spoken, noise = corpora
    plain, changed = (Sampler(spoken, CODEC, d, noise, 1.0).draw(1, 8000, (4,)) for d in (NOTHING, degrade))
    assert np.array_equal(changed.waves, changed.targets)
    assert np.array_equal(plain.waves, plain.targets)
    assert np.abs(np.corrcoef(changed.waves[0], plain.waves[0])[0, 1]) < 0.999


def test_short_recordings_are_padded():
    source = Source("x", np.full(500, 3276, np.int16), np.array([500]))
    sampler = Sampler(Corpus([source], [], 16_000, 1), CODEC, NOTHING, None, 1.0)
    wave, _ = sampler.item(4000, np.random.default_rng(0))
    assert (wave[:500] != 0).all()
    assert (wave[500:] == 0).all()


# ---- figures


def test_figures_come_from_coded_bytes(corpus, monkeypatch):
    trainer = trainer_of(tiny_recipe(*RARELY), corpus)
    trainer.step()
    judge = validate_room.Judge(trainer.recipe, corpus, corpus, items=2, seconds=1)
    sizes, encode = [], validate_room.range_coder.encode

    def counting(symbols, tables):
        data = encode(symbols, tables)
        assert np.array_equal(validate_room.range_coder.decode(data, len(symbols), tables), symbols)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(validate_room.range_coder, "encode", counting)
    figures = judge.figures(trainer.run, trainer.loss)
    assert [item.level for item in figures] == [0, 1, 2, 3]
    assert len(sizes) == 8
    for index, item in enumerate(figures):
        assert item.kbps == pytest.approx(8 * sum(sizes[2 * index : 2 * index + 2]) / 2 / 1000, abs=1e-3)
        assert item.kbps > 0
        assert 0 < item.distortion < 100
    assert judge.figures(trainer.run, trainer.loss) == figures


def test_figures_leave_the_run_alone(corpus):
    trainer = trainer_of(tiny_recipe(*RARELY), corpus)
    before = everything(trainer.run)
    validate_room.Judge(trainer.recipe, corpus, corpus, items=1, seconds=1).figures(trainer.run, trainer.loss)
    assert_same(everything(trainer.run), before)
    assert trainer.run.net.training
    assert all(p.requires_grad for p in trainer.run.net.parameters())


# ---- export


def test_the_bundle_codes_sound(exported, speech):
    codec = nacre.load(exported)
    assert codec.config == CODEC
    assert codec.bundle.name == "trial"
    for quality in (0, 100):
        data = codec.encode(speech, 16_000, quality=quality)
        wave, rate_hz = codec.decode(data)
        assert (wave.shape, rate_hz) == ((1, len(speech)), 16_000)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 1e-3
    assert codec.latents(speech, 16_000).sounding.shape == (math.ceil(len(speech) / 320), 8)


def test_tables_of_the_bundle(exported):
    codec = nacre.load(exported)
    assert codec.model.static_prior.counts.shape[:2] == (4, 8)
    assert (codec.model.static_prior.counts.sum(2) == TOTAL).all()
    assert (codec.model.quantiser.steps > 0).all()


def test_rates_of_the_bundle_are_those_of_its_files(exported, speech):
    codec = nacre.load(exported)
    for level, rate_kbps in enumerate(codec.bundle.rates_kbps):
        size = len(codec.encode(speech, 16_000, quality=100 * level / 3))
        assert size * 8 / len(speech) * 16 == pytest.approx(rate_kbps, rel=0.4)


def test_the_bundle_says_how_it_was_made(exported, trained):
    facts = json.loads((exported / "model.json").read_text())
    assert facts["licence"] == "CC0-1.0"
    assert facts["training"]["steps"] == 40
    assert facts["training"]["audio_seconds_seen"] == 80
    assert facts["training"]["recipe"] == json.loads((trained / "recipe.json").read_text())
    names = {path.name for path in exported.iterdir()}
    assert {"decoder.onnx", "encoder.onnx", "model.json", "prior.safetensors"} <= names
    for path in exported.iterdir():  # nothing of the machine it was made on
        data = path.read_bytes()
        assert not [
            word for word in (b"site-packages", str(PACKAGE).encode(), str(Path.home()).encode()) if word in data
        ]


def test_export_takes_a_new_folder_only(trained, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(TrainError, match="a folder that is not empty"):
        export_room.export_run(trained, tmp_path / "full")
    with pytest.raises(TrainError, match="is a file"):
        export_room.export_run(trained, tmp_path / "full" / "thesis.txt")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_failed_export_leaves_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export_room, "write_graph", lambda net, part, path, bits: path.write_bytes(b"x"))

    def fail(*_: object) -> None:
        raise TrainError("the tables met with an accident")

    monkeypatch.setattr(export_room, "fit_prior", fail)
    (tmp_path / "empty").mkdir()
    for name in ("model", "empty"):
        with pytest.raises(TrainError, match="an accident"):
            export_room.export_run(trained, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_export_of_what_is_no_run(trained, tmp_path):
    with pytest.raises(TrainError, match="is no folder written by `nacre train`"):
        export_room.export_run(tmp_path / "absent", tmp_path / "model")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text((trained / "recipe.json").read_text())
    with pytest.raises(TrainError, match="is no checkpoint written by"):
        export_room.export_run(folder, tmp_path / "model")
    (folder / "checkpoint.safetensors").write_bytes((trained / "checkpoint.safetensors").read_bytes())
    with pytest.raises(TrainError, match="holds no recordings decoded by"):
        export_room.export_run(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_takes_over_the_denoiser_of_another(run, trained, exported, tmp_path):
    done = run("export", trained, "-o", "made", "--denoiser", "speech-16k")
    assert done.rc == 0, done.stderr
    released, made = bundles.find("speech-16k"), bundles.load(tmp_path / "made")
    assert made.denoiser == released.denoiser
    assert made.part("denoiser.onnx").read_bytes() == released.part("denoiser.onnx").read_bytes()
    assert made.fingerprint == bundles.load(exported).fingerprint
    section = (tmp_path / "made" / "README.md").read_text().split("## Denoiser")[1]
    assert "CC BY" in section  # whose recordings it learnt from goes with it
    done = run("export", trained, "-o", "none", "--denoiser", exported)
    assert (done.rc, "has no denoiser" in done.stderr) == (1, True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(TrainError, match="16000 Hz, and the denoiser of 8000 Hz"):
        export_room.check_rates("made", 16_000, 8000)


def test_the_command_line_speaks_in_one_line(run, tmp_path):
    done = run("export", tmp_path, "-o", tmp_path / "model")
    assert done.rc == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
