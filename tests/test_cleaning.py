"""Noise to leave out, training from a model that is there, and a context prior learned for it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch
from test_train import CLIPS, CODEC, NOTHING, RARELY, tiny_recipe, trainer_of

import nacre
from nacre.codec.codec import Codec
from nacre.core.errors import AudioError, BundleError, TrainError, UsageError
from nacre.io import audio
from nacre.model import bundle as bundles
from nacre.tools.denoise import denoise
from nacre.train import codec_trainer, start, synthetic_noise
from nacre.train import export as export_room
from nacre.train import sampler as sampler_room
from nacre.train.degrade import NoiseMixConfig
from nacre.train.nets.codec_net import CodecNet
from nacre.train.post import adapt
from nacre.train.post.context import ContextConfig
from nacre.train.recordings import Corpus, Source, load_corpus
from nacre.train.sampler import Sampler
from nacre.train.synthetic_noise import clicks, hum, synthetic

pytestmark = pytest.mark.slow

CLEANING = (*RARELY, "codec.cleans=true", "stage.0.cleaning=0.5", "data.excerpt_s=0.3")
SMALL = ContextConfig(hidden=16, small=8, shares=(0.5, 1.0), steps=30, batch=4, frames=20, fast=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return load_corpus(CLIPS, tmp_path_factory.mktemp("corpus") / "corpus", CODEC.rate_hz, quiet=True)


@pytest.fixture(scope="module")
def cleaner(corpus, tmp_path_factory) -> Path:
    """Model folder of a tiny network after a few steps with cleaning."""
    torch.set_num_threads(1)
    trainer = trainer_of(tiny_recipe(*CLEANING), corpus)
    for _ in range(12):
        trainer.step()
    folder = tmp_path_factory.mktemp("cleaner") / "cleaner"
    facts = export_room.making(trainer.recipe, trainer.run, corpus)
    export_room.export(trainer.run, trainer.sampler.batch(4, 6400, (1,)), folder, "cleaner", facts)
    return folder


def snr_db(wave: np.ndarray, target: np.ndarray) -> float:
    return float(10 * np.log10((target**2).sum() / ((wave - target) ** 2).sum()))


def test_noise_is_in_what_goes_in_and_not_in_what_shall_come_out(corpus):
    mix = NoiseMixConfig((3.0, 3.0), room_probability=0.0)
    sampler = Sampler(corpus, CODEC, NOTHING, None, 1.0, noise_mix=mix)
    drawn = sampler.draw(40, 16_000, (1,), 0.5)
    assert 8 < drawn.denoised.sum() < 32
    for wave, target, denoised in zip(drawn.waves, drawn.targets, drawn.denoised, strict=True):
        assert np.array_equal(wave, target) == (not denoised)
        if denoised:
            assert snr_db(wave, target) == pytest.approx(3.0, abs=0.01)
    again = sampler.draw(40, 16_000, (1,), 0.5)
    assert np.array_equal(again.waves, drawn.waves)


def test_rooms_are_no_noise(corpus):
    response = np.zeros(900, np.int16)
    response[[100, 700]] = 20_000, 8_000
    noise = Corpus([Source("rir", np.tile(response, 2), np.array([900, 1800]))], [], 16_000, 2)
    sampler = Sampler(corpus, CODEC, NOTHING, noise, 1.0, noise_mix=NoiseMixConfig((90.0, 90.0), room_probability=1.0))
    assert not sampler.noises
    assert [len(room) for room in sampler.rooms] == [900, 900]
    drawn = sampler.draw(2, 8000, (4,), 1.0)
    echo = drawn.waves[0] - drawn.targets[0]
    np.testing.assert_allclose(echo[600:], 0.4 * drawn.targets[0][:-600], atol=0.02)


@pytest.mark.parametrize("make", [synthetic_noise.coloured, hum, clicks, *synthetic_noise.KINDS, synthetic])
@pytest.mark.parametrize("samples", [700, 16_000])
def test_made_noise_has_unit_power(make, samples):
    rate = () if make is synthetic_noise.coloured else (16_000,)
    for seed in range(8):
        wave, again = (make(samples, *rate, np.random.default_rng(seed)) for _ in range(2))
        assert wave.dtype == np.float32
        assert wave.shape == (samples,)
        assert wave.std() == pytest.approx(1, abs=0.01)
        np.testing.assert_array_equal(wave, again)


@pytest.mark.parametrize("kind", ["babble", "coloured", "synthetic"])
def test_the_kind_of_noise_is_the_one_asked_for(kind, corpus, monkeypatch):
    asked = []
    monkeypatch.setattr(sampler_room, "synthetic", lambda n, hz, rng: asked.append("synthetic") or rng.normal(size=n))
    monkeypatch.setattr(sampler_room, "coloured", lambda n, rng: asked.append("coloured") or rng.normal(size=n))
    chances = {f"{name}_probability": float(name == kind) for name in ("babble", "coloured", "synthetic")}
    noises = Corpus([Source("rain", np.zeros(9000, np.int16), np.array([9000]))], [], 16_000, 1)
    mix = NoiseMixConfig((0.0, 0.0), **chances)
    sampler = Sampler(corpus, CODEC, NOTHING, noises, 1.0, noise_mix=mix)
    drawn = sampler.draw(3, 4000, (1,), 1.0)
    assert asked == ([kind] * 3 if kind != "babble" else [])
    assert np.abs(drawn.waves - drawn.targets).max(1).min() > 0  # a recording of silence would add nothing


def test_a_constant_stretch_of_a_recording_is_no_noise(corpus):
    still = Corpus([Source("still", np.full(9000, 7, np.int16), np.array([9000]))], [], 16_000, 1)
    mix = NoiseMixConfig((0.0, 0.0), 0.0, 0.0, hum_probability=0.0, clicks_probability=0.0, speechless_probability=1.0)
    drawn = Sampler(corpus, CODEC, NOTHING, still, 1.0, noise_mix=mix).draw(2, 4000, (1,), 1.0)
    assert np.abs(drawn.waves).max() < 1e-3
    behind = dataclasses.replace(NOTHING, noise_probability=1.0, noise_snr_db=(0.0, 0.0))
    found, plain = (Sampler(corpus, CODEC, degrade, still, 1.0).batch(1, 4000, (2,)) for degrade in (behind, NOTHING))
    assert np.abs(found.mean() - plain.mean()) < 1e-3


def test_levels_for_cleaning_begin_as_copies(corpus):
    trainer = trainer_of(tiny_recipe(*CLEANING), corpus)
    for name, value in trainer.run.net.state_dict().items():
        if name.endswith("film"):
            value[: CODEC.levels].normal_()
    trainer.run.enter(0)
    films = [v for k, v in trainer.run.net.state_dict().items() if k.startswith("encoder") and k.endswith("film")]
    assert films
    for film in films:
        assert len(film) == 8
        assert torch.equal(film[4:], film[:4])
    films[0][5] += 1
    trainer.run.enter(0)
    assert not torch.equal(films[0][4:], films[0][:4])


def test_cleaning_learns_and_rates_are_steered_by_plain_items_only(corpus):
    trainer = trainer_of(tiny_recipe(*CLEANING), corpus)
    heard = []
    trainer.run.control.update = lambda level, bits: heard.append((len(level), len(bits)))
    denoised = 0
    for _ in range(6):
        step = trainer.run.step
        trainer.step()
        drawn = trainer.sampler.draw(4, 4800, (trainer.recipe.seed, step, 0), 0.5)
        denoised += drawn.denoised.sum()
    assert sum(items for items, _ in heard) == 24 - denoised
    assert all(items == bits for items, bits in heard)
    film = trainer.run.net.encoder.stack.blocks[0].film.detach()
    assert not torch.equal(film[4:], film[:4])


@pytest.mark.parametrize(
    "changes", [("stage.0.cleaning=0.5",), ("codec.cleans=true", "stage.0.cleaning=1.5"), ("dirt.snr_db=[5, 0]",)]
)
def test_recipes_that_cannot_clean(changes):
    with pytest.raises(TrainError):
        tiny_recipe(*changes)


def test_denoise_keeps_the_shape(cleaner, speech):
    codec = nacre.load(cleaner)
    wave = np.stack([speech[:9001], speech[-9001:]])
    for given in (wave, wave[0], wave[:, :1]):
        assert denoise(codec, given, 16_000).shape == given.shape
    assert denoise(codec, wave[0], 44_100).shape == (9001,)
    assert not denoise(codec, np.zeros(8000, np.float32), 16_000).any()


def test_sound_is_cleaned_as_far_as_it_is_unlike_clean_speech(cleaner, speech):
    codec = nacre.load(cleaner)
    plain = codec.encode(speech[:20_000], 16_000, quality=100)
    found = []
    for span in ((0.0, 1e-9), (0.0, 1.0), (50.0, 51.0)):
        codec = Codec(dataclasses.replace(codec.model, cleaning_span=span))
        found.append(codec.encode(speech[:20_000], 16_000, quality=100, denoise=True))
        assert codec.decode(found[-1])[0].shape == (1, 20_000)
    assert found[2] == plain != found[0]
    sized = codec.encode(speech[:20_000], 16_000, packet_bytes=300, denoise=True)
    assert codec.decode(sized)[0].shape == (1, 20_000)


@pytest.mark.parametrize("span", [None, [0.2], [0.3, 0.2], [-1, 2], ["a", "b"], [0.1, float("inf")]])
def test_a_model_that_does_not_say_what_is_clean(cleaner, tmp_path, span):
    folder = tmp_path / "bad"
    shutil.copytree(cleaner, folder)
    facts = json.loads((folder / "model.json").read_text())
    facts["cleaning_span"] = span
    (folder / "model.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match="cleaning_span"):
        bundles.load(folder)


def test_denoise_of_a_model_that_never_learned_it(tiny, cleaner, speech):
    with pytest.raises(UsageError, match="cannot denoise"):
        denoise(tiny, speech[:4000], 16_000)
    with pytest.raises(AudioError):
        denoise(nacre.load(cleaner), np.zeros(0, np.float32), 16_000)


def test_denoise_commands(run, cleaner, speech, tmp_path):
    audio.write(tmp_path / "a.wav", speech[None, :9000], 16_000)
    done = run("denoise", "a.wav", "-o", "b.wav", "--model", cleaner)
    assert done.rc == 0, done.stderr
    assert audio.read(tmp_path / "b.wav")[0].shape == (1, 9000)
    assert run("encode", "a.wav", "-o", "a.nacre", "--denoise", "--quality", 50, "--model", cleaner).rc == 0
    (tmp_path / "no.wav").write_bytes(b"no sound")
    bad = run("denoise", "no.wav", "a.wav", "-o", "out", "--model", cleaner)
    assert bad.rc == 1
    assert (tmp_path / "out" / "a.wav").exists()
    assert "Traceback" not in bad.stderr


def test_a_run_starts_from_a_model(cleaner, corpus):
    recipe = tiny_recipe(*CLEANING, "seed=9")
    trainer = trainer_of(recipe, corpus)
    bundle = bundles.load(cleaner)
    start.start_from(bundle)(trainer)
    codec, net = nacre.load(cleaner), trainer.run.net.eval()
    wave = trainer.sampler.batch(1, 6400, (5,))
    spectra = net.analysis.spectra(torch.from_numpy(wave))[0]
    for level in (0, 6):
        theirs, _ = codec.model.encoder_net.step(spectra.numpy(), level, codec.model.encoder_net.start())
        ours = net.encoder(spectra[None], torch.tensor([level]))[0][0].detach().numpy()
        np.testing.assert_allclose(ours, theirs, atol=0.01 * np.abs(theirs).max())
    np.testing.assert_allclose(net.quantiser.steps().numpy(), bundle.quantiser().steps, rtol=1e-5)
    for name, value in net.state_dict().items():
        assert torch.equal(value, trainer.run.mean[name])
    weights = trainer.run.control.log_weight
    assert (weights.diff() <= 0).all()
    trainer.step()


def test_a_model_without_cleaning_gets_its_levels(tiny_model, corpus):
    bundle = bundles.load(tiny_model)
    codec = dataclasses.asdict(bundle.config)
    net = bundle.facts.training["recipe"]["net"]
    recipe = tiny_recipe(*CLEANING, *(f"net.{key}={value}" for key, value in net.items()))
    assert recipe.codec.levels == codec["levels"]
    trainer = trainer_of(recipe, corpus)
    start.start_from(bundle)(trainer)
    trainer.step()


def test_start_from_what_does_not_fit(cleaner, corpus):
    for change in ("net.width=24", "codec.levels=3", "kind=gaussian"):
        changes = [*RARELY, "data.excerpt_s=0.3", "codec.cleans=true", change]
        with pytest.raises(TrainError):
            start.start_from(bundles.load(cleaner))(trainer_of(tiny_recipe(*changes), corpus))


def test_levels_for_denoising_can_be_left_behind(cleaner, corpus):
    bundle = bundles.load(cleaner)
    trainer = trainer_of(tiny_recipe(*RARELY, "data.excerpt_s=0.3"), corpus)
    start.start_from(bundle)(trainer)
    read = CodecNet(bundle.config, trainer.recipe.net, "scalar")
    start.read_graph(read, "encoder", bundle.part("encoder.onnx"))
    for name, value in trainer.run.net.encoder.state_dict().items():
        torch.testing.assert_close(value, read.encoder.state_dict()[name][: len(value)])
    trainer.step()


def test_a_model_learns_a_context_prior(cleaner, tmp_path, speech):
    found = adapt.add_context(cleaner, CLIPS, tmp_path / "better", hours=0.003, config=SMALL, quiet=True)
    before, after = nacre.load(cleaner), nacre.load(tmp_path / "better")
    assert found.has_context
    assert sorted(path.name for path in (tmp_path / "better").iterdir()) == sorted(
        {path.name for path in cleaner.iterdir()} | {"context.safetensors", "README.md"}
    )
    assert found.fingerprint.hex() in (tmp_path / "better" / "README.md").read_text()
    assert found.static_rates_kbps.tolist() == before.bundle.rates_kbps.tolist()
    data = before.encode(speech[:20_000], 16_000, quality=50)
    np.testing.assert_array_equal(after.decode(data)[0], before.decode(data)[0])
    small = after.encode(speech[:20_000], 16_000, quality=50)
    np.testing.assert_array_equal(after.decode(small)[0], before.decode(data)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["better"]


def test_what_cannot_learn_a_context_prior(cleaner, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(TrainError, match="not empty"):
        adapt.add_context(cleaner, CLIPS, tmp_path / "full", config=SMALL, quiet=True)
    with pytest.raises(TrainError, match="is no folder"):
        adapt.add_context(cleaner, tmp_path / "none", tmp_path / "out", config=SMALL, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    with pytest.raises(TrainError, match="frames"):
        adapt.add_context(cleaner, CLIPS, tmp_path / "out", config=dataclasses.replace(SMALL, frames=99), quiet=True)


def test_finetune_goes_on_by_the_models_own_recipe(cleaner, tmp_path):
    recipe = start.recipe_from(bundles.load(cleaner), 3, 1e-3, ("data.batch=2",))
    assert (recipe.codec.cleans, recipe.steps, recipe.data.batch) == (True, 3, 2)
    assert recipe.stage[0].cleaning == 0.5
    run = codec_trainer.train(
        recipe, CLIPS, tmp_path / "run", quiet=True, begin=start.start_from(bundles.load(cleaner))
    )
    assert run.step == 3
    assert export_room.export_run(tmp_path / "run", tmp_path / "model").config.cleans


def test_finetune_of_a_model_that_does_not_say_how_it_was_made(cleaner):
    found = bundles.load(cleaner)
    silent = dataclasses.replace(found, facts=dataclasses.replace(found.facts, training={}))
    with pytest.raises(TrainError, match="no recipe inside"):
        start.recipe_from(silent, 3, 1e-3)
