"""Discriminators: what they learn, how hard they pull and on what, and when they stop a run."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch
from test_kinds import resumes
from test_train import RARELY, corpus, tiny_recipe, trainer_of  # noqa: F401
from torch import Tensor

from nacre.core.errors import TrainError
from nacre.train import processes
from nacre.train.adversary import Adversary, AdversaryConfig, Discriminator

SMALL = AdversaryConfig(windows=(256, 128), channels=8, layers=2, items=3, settle_steps=2, learning_rate=5e-3)
CRITICS = (
    "adversary.windows=[256, 128]",
    "adversary.channels=8",
    "adversary.layers=2",
    "adversary.items=2",
    "adversary.settle_steps=2",
)
ADVERSARIAL = (
    'stage=[{name="a", steps=2}, {name="b", steps=6, train=["decoder"], adversarial=[0.5, 0.25], warmup_steps=0}]'
)


def sounds(seed: int, items: int = 4) -> tuple[Tensor, Tensor]:
    """Noise, and a dull copy of it: waves [B, 4000]."""
    generator = torch.Generator().manual_seed(seed)
    wave = 0.2 * torch.randn(items, 4000, generator=generator)
    dull = torch.nn.functional.avg_pool1d(wave.unsqueeze(1), 5, 1, 2).squeeze(1)
    return wave, dull


def taught(steps: int = 150) -> Adversary:
    """Small discriminators that have seen noise and dull copies."""
    torch.manual_seed(0)
    adversary = Adversary(SMALL)
    optimiser = adversary.optimiser(SMALL.learning_rate)
    for step in range(steps):
        wave, dull = sounds(step)
        optimiser.zero_grad()
        adversary.learn(dull.requires_grad_(), wave, None, torch.ones(4))
        optimiser.step()
    return adversary


@pytest.fixture(scope="module")
def adversary() -> Adversary:
    """Discriminators that know a dull copy when they see it."""
    return taught()


def verdict(adversary: Adversary, wave: Tensor) -> float:
    """Mean verdict of all discriminators."""
    with torch.no_grad():
        return sum(float(discriminator(wave)[0].mean()) for discriminator in adversary.critics) / len(adversary.critics)


@pytest.mark.slow
def test_critics_learn_what_is_real(adversary):
    wave, dull = sounds(1000)
    _, figures = adversary.learn(dull.requires_grad_(), wave, None, torch.ones(4))
    assert figures["discriminators/right"] > 0.9
    assert verdict(adversary, wave) > 0.3 > -0.3 > verdict(adversary, dull)


def test_the_pull_leads_towards_the_recording(adversary):
    wave, dull = sounds(1001)
    pull, _ = adversary.learn(dull.requires_grad_(), wave, None, torch.full((4,), 0.5))
    assert verdict(adversary, (dull - pull)[:3].detach()) > verdict(adversary, dull[:3]) + 0.02


def test_the_pull_is_as_strong_as_asked(adversary):
    wave, dull = sounds(1002)
    strength = torch.tensor([0.0, 0.1, 2.0, 3.0])
    pull, _ = adversary.learn(dull.requires_grad_(), wave, None, strength)
    torch.testing.assert_close(pull.norm(dim=1), torch.tensor([0.0, 0.1, 2.0, 0.0]))  # the fourth item is not seen
    assert dull.grad is None  # what the discriminators learn leaves the sound alone


def test_what_lies_beyond_an_item_is_not_seen(adversary):
    wave, dull = sounds(1003)
    lengths = torch.tensor([2000, 3000, 4000, 4000])
    other = dull.clone()
    other[0, 2000:] += 1.0
    pulls = [
        adversary.learn(found.requires_grad_(), wave, lengths, torch.ones(4))[0] for found in (dull, other.detach())
    ]
    torch.testing.assert_close(pulls[0], pulls[1])
    assert not pulls[0][0, 2000:].any()
    assert pulls[0][0, :2000].any()


def test_silence_and_clipping_are_finite():
    for wave in (torch.zeros(4, 4000), torch.ones(4, 4000)):
        fresh = Adversary(SMALL)
        pull, figures = fresh.learn(wave.clone().requires_grad_(), wave, None, torch.ones(4))
        assert pull.isfinite().all()
        assert all(value.isfinite() for value in figures.values())
        assert all(p.grad.isfinite().all() for p in fresh.parameters())


def test_shape_of_verdicts():
    verdicts, features = Discriminator(256, 8, 2)(torch.zeros(3, 4000))
    assert verdicts.shape == (3, 1 + 4000 // 64, 16)
    assert [found.shape for found in features] == [(3, 16, 63, 16)] * 3


# ---- in a run


def test_only_the_decoder_and_the_critics_learn(corpus):  # noqa: F811
    trainer = trainer_of(tiny_recipe(*RARELY, *CRITICS, ADVERSARIAL), corpus)
    figures = [trainer.step() for _ in range(2)]
    before = {k: v.clone() for k, v in trainer.run.net.state_dict().items()}
    discriminators = {k: v.clone() for k, v in trainer.run.adversary.named_parameters()}
    figures += [trainer.step() for _ in range(4)]
    for name, value in trainer.run.net.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("decoder."), name
    assert not any(torch.equal(value, discriminators[name]) for name, value in trainer.run.adversary.named_parameters())
    assert "discriminators/right" not in figures[1]
    assert 0 <= figures[2]["discriminators/right"] <= 1


def test_critics_that_settle_change_nothing_else(corpus):  # noqa: F811
    plain, watched = (
        trainer_of(tiny_recipe(*RARELY, *CRITICS, ADVERSARIAL, f"stage.1.adversarial=[{share}, {share}]"), corpus)
        for share in (0.0, 0.5)
    )
    for _ in range(4):
        expected, found = plain.step(), watched.step()
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3)
    torch.testing.assert_close(watched.run.net.state_dict(), plain.run.net.state_dict(), rtol=1e-3, atol=1e-4)
    plain.step()
    watched.step()
    bias = "decoder.outward.bias"
    away = watched.run.net.state_dict()[bias] - plain.run.net.state_dict()[bias]
    assert away.abs().max() > 1e-4


def test_a_decoder_learns_the_level_of_noise(corpus):  # noqa: F811
    trainer = trainer_of(tiny_recipe(*RARELY, *CRITICS, ADVERSARIAL, "codec.noise=true"), corpus)
    before = trainer.run.net.decoder.noise.bias.detach().clone()
    figures = [trainer.step() for _ in range(6)]
    assert (trainer.run.net.decoder.noise.bias - before).abs().max() > 1e-4
    assert all(np.isfinite(value) for values in figures for value in values.values())


@pytest.mark.parametrize("stop", [2, 3, 5])  # 2 is where the adversarial stage begins
def test_an_adversarial_run_resumes_exactly(corpus, tmp_path, stop):  # noqa: F811
    resumes(tiny_recipe(*RARELY, *CRITICS, ADVERSARIAL), corpus, tmp_path, stop, 8)


def test_a_run_that_turns_to_noise_is_stopped():
    adversary = Adversary(SMALL)
    for step in range(2):
        adversary.watch(step, 1.0)
    for step in range(2, 50):
        adversary.watch(step, 1.2)  # below the limit for ever
    adversary.smoothed.fill_(1.299)
    with pytest.raises(TrainError, match=r"step 50 of the adversarial stage.*1\.33 times.*lower adversarial share"):
        adversary.watch(50, 3.0)


def test_the_watch_begins_anew_with_a_stage():
    adversary = Adversary(SMALL)
    for step in range(2):
        adversary.watch(step, 1.0)
    for step in range(2):
        adversary.watch(step, 4.0)
    assert adversary.settled == pytest.approx(4.0)
    adversary.watch(2, 4.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("adversary.windows=[]",), "adversary.windows is"),
        (("adversary.windows=[100]",), "adversary.windows is"),
        (("adversary.channels=0",), "adversary.channels is 0; it must be above 0"),
        (
            ("stage.0.adversarial=[0, 1]", "stage.0.steps=100"),
            "steps is 100; it must be more than adversary.settle_steps, 100",
        ),
        (("adversary.limit=1.0",), "adversary.limit is 1.0; it must be above 1"),
        (("stage.0.adversarial=[0, -1]",), "it must be two numbers, 0 or more"),
        (("stage.0.adversarial=[0.5]",), "stage[0].adversarial is [0.5]; it must be 2 values"),
        (
            ("stage.0.adversarial=[0, 0.5]", "stage.0.steps=101", 'stage.0.train=["encoder"]'),
            "no decoder that learns to make sound",
        ),
    ],
)
def test_recipes_that_cannot_be(changes, message):
    with pytest.raises(TrainError, match=re.escape(message)):
        tiny_recipe(*RARELY, *changes)


def test_gradients_are_those_of_the_mean_over_processes(monkeypatch):
    adversary = Adversary(dataclasses.replace(SMALL, windows=(256,)))
    for parameter in adversary.parameters():
        parameter.grad = torch.ones_like(parameter)
    fabric = processes.alone(torch.device("cpu"))
    monkeypatch.setattr(fabric, "all_reduce", lambda joined: joined * 1.5)
    processes.share_gradients(fabric, adversary)
    assert all((p.grad == 1.5).all() for p in adversary.parameters())
