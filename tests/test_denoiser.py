"""The denoiser: windows, engine, training, export, and what it must not change: files, fingerprints, clean sound."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch
from conftest import PACKAGE

import nacre
from nacre import recipes
from nacre.codec.denoiser import StreamDenoiser, denoise_frames, start_denoiser
from nacre.core.config import DenoiserConfig
from nacre.core.errors import BundleError, TrainError, UsageError
from nacre.dsp.low_delay import LowDelay, follow_level, windows
from nacre.io import audio
from nacre.model import bundle as bundles
from nacre.tools.denoise import denoise, high_band
from nacre.train import processes
from nacre.train.degrade import NOTHING, NoiseMixConfig, clipped
from nacre.train.denoise_export import export_denoiser
from nacre.train.denoise_loss import DenoiseLoss
from nacre.train.denoise_net import DenoiseNet, DenoiseNetConfig
from nacre.train.denoise_recipe import DenoiseRecipe, load_denoise_recipe
from nacre.train.denoise_run import DenoiseRun, DenoiseTrainer, train_denoiser
from nacre.train.loop import Sounds
from nacre.train.post.adapt import add_context
from nacre.train.post.context import ContextConfig
from nacre.train.recordings import Corpus, load_corpus
from nacre.train.run import CHECKPOINT

SETTINGS = DenoiserConfig(320, 160)
SMALL = DenoiseNetConfig(8, 1, ((4, 4), (4, 8), (4, 28)), whole=2)
RECIPE = DenoiseRecipe(
    "small", 12, batch=2, excerpt_s=0.5, denoiser=SETTINGS, net=SMALL, warmup_steps=5, checkpoint_steps=100
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return load_corpus(PACKAGE / "clips", tmp_path_factory.mktemp("corpus") / "corpus", 16_000, quiet=True)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run of twelve steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run") / "run"
    train_denoiser(RECIPE, PACKAGE / "clips", folder, quiet=True)
    return folder


def trainer_of(recipe: DenoiseRecipe, sounds: Sounds) -> DenoiseTrainer:
    """A trainer on the CPU, from the start."""
    fabric = processes.alone(torch.device("cpu"))
    return DenoiseTrainer(recipe, DenoiseRun.new(recipe, fabric.device), sounds, fabric)


@pytest.fixture(scope="module")
def model(run_folder, tiny_model, tmp_path_factory) -> Path:
    """The tiny model with that denoiser."""
    folder = tmp_path_factory.mktemp("model") / "denoising"
    export_denoiser(run_folder, tiny_model, folder)
    return folder


@pytest.fixture(scope="module")
def codec(model) -> nacre.Codec:
    return nacre.load(model)


@pytest.fixture
def changed(model, tmp_path):
    """A function that writes the model anew with other settings of its denoiser, and gives its folder."""

    def write(settings: object) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(model, folder)
        facts = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(facts | {"denoiser": settings}))
        return folder

    return write


@pytest.mark.parametrize(("size", "step"), [(320, 160), (512, 160), (640, 80)])
def test_masks_of_one_give_the_sound_back_a_step_later(size, step):
    frames, wave = LowDelay(size, step), np.random.default_rng(1).standard_normal(20 * step).astype(np.float32)
    past, tail = frames.start()
    heard = []
    for piece in np.split(wave, [step, 7 * step]):
        spectra, past = frames.analyse(piece, past)
        out, tail = frames.synthesise(spectra, tail)
        heard.append(out)
    np.testing.assert_allclose(np.concatenate(heard)[step:], wave[:-step], atol=1e-5)
    assert np.mean(np.abs(spectra) ** 2) == pytest.approx(1, abs=0.2)


def test_the_level_follows_the_loudest_as_it_falls():
    got = follow_level(np.array([1.0, 0.1, 0.1, 2.0]), 0.5, 0.5)
    np.testing.assert_allclose(got, [1, 0.5, 0.25, 2])
    assert follow_level(np.array([0.1]), 3.0, 0.5)[0] == 1.5


@pytest.mark.slow
def test_training_sees_what_the_engine_sees(run_folder, codec, speech):
    wave = np.concatenate([speech[:8000], 0.01 * speech[8000:16_000]]) / np.float32(speech.std())
    run = DenoiseRun.new(RECIPE, torch.device("cpu"))
    run.load(run_folder / f"{CHECKPOINT}.safetensors")
    run.net.load_state_dict(run.mean)
    loss = DenoiseLoss(SETTINGS, 16_000, 0.7)
    noisy = loss.spectra(torch.from_numpy(wave[None]))
    masks = run.net(loss.ready(noisy))[0][0].detach().numpy()
    heard, _ = denoise_frames(codec.model.denoiser, start_denoiser(codec.model.denoiser), wave, 16_000)
    frames = LowDelay(320, 160)
    spectra, _ = frames.analyse(wave, frames.start()[0])
    mask = masks[:, :161] + 1j * masks[:, 161:]
    wanted, _ = frames.synthesise(spectra * mask, frames.start()[1])
    np.testing.assert_allclose(heard, wanted, atol=5e-3 * np.abs(wanted).max())


def test_pieces_of_any_size_give_the_same(codec, speech):
    wave = np.stack([speech[:9001], speech[-9001:]])
    whole = StreamDenoiser(codec.model, 2)
    wanted = np.concatenate([whole.push(wave), whole.flush()], 1)
    assert wanted.shape == wave.shape
    for size in (1, 159, 160, 1000, 9001):
        if size == 1:
            part, stream = wave[:, :400], StreamDenoiser(codec.model, 2)
            whole = StreamDenoiser(codec.model, 2)
            first = np.concatenate([whole.push(part), whole.flush()], 1)
        else:
            part, stream, first = wave, StreamDenoiser(codec.model, 2), wanted
        pieces = [stream.push(part[:, at : at + size]) for at in range(0, part.shape[1], size)]
        np.testing.assert_array_equal(np.concatenate([*pieces, stream.flush()], 1), first)


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 319, 320, 321, 16_001])
def test_any_length(codec, speech, samples):
    heard = denoise(codec, speech[:samples], 16_000)
    assert heard.shape == (samples,)
    assert np.isfinite(heard).all()


def test_any_rate_and_channels(codec, speech):
    wave = np.stack([speech[:9001], speech[-9001:]])
    for rate_hz in (8000, 16_000, 44_100, 192_000):
        both = denoise(codec, wave, rate_hz)
        assert both.shape == wave.shape
        np.testing.assert_array_equal(both[1], denoise(codec, wave[1], rate_hz))
    assert not denoise(codec, np.zeros(8000, np.float32), 16_000).any()


def test_loudness_makes_no_difference(codec, speech):
    for gain in (0.01, 4.0):
        got = denoise(codec, np.float32(gain) * speech[:16_000], 16_000) / gain
        np.testing.assert_allclose(got, denoise(codec, speech[:16_000], 16_000), atol=1e-4)


def test_strength(codec, speech):
    wave = speech[:9000]
    clean = denoise(codec, wave, 16_000)
    assert np.abs(clean - wave).max() > 0.01
    np.testing.assert_array_equal(denoise(codec, wave, 16_000, strength=0), wave)
    np.testing.assert_allclose(denoise(codec, wave, 16_000, strength=0.5), (wave + clean) / 2, atol=1e-6)
    half = StreamDenoiser(codec.model, 1, 0.5)
    mixed = np.concatenate([half.push(wave[None]), half.flush()], 1)[0]
    np.testing.assert_allclose(mixed, (wave + clean) / 2, atol=1e-5)
    for wrong in (-0.1, 1.1, float("nan"), True, "1"):
        with pytest.raises(UsageError, match="strength"):
            denoise(codec, wave, 16_000, strength=wrong)


def test_files_are_as_before_and_denoised_on_request(codec, tiny, speech):
    assert codec.bundle.fingerprint == tiny.bundle.fingerprint
    wave = speech[:20_000]
    assert codec.encode(wave, 16_000, quality=50) == tiny.encode(wave, 16_000, quality=50)
    asked = codec.encode(wave, 16_000, quality=50, denoise=True)
    assert asked == codec.encode(denoise(codec, wave, 16_000), 16_000, quality=50)
    assert tiny.decode(asked)[0].shape == (1, 20_000)
    stream = codec.encoder(16_000, quality=50, denoise=True)
    packets = [packet for at in range(0, 20_000, 777) for packet in stream.push(wave[None, at : at + 777])]
    packets += stream.flush()
    assert [packet.payload for packet in packets] == [packet.payload for packet in codec.parse(asked).packets]


def test_the_card_tells_of_the_denoiser_once(run_folder, model, tmp_path):
    again = export_denoiser(run_folder, model, tmp_path / "again")
    text = (again.folder / "README.md").read_text()
    assert text.count("## Denoiser") == 1
    assert "12 steps" in text
    made = again.facts.values["denoiser"]["training"]
    assert (made["steps"], made["audio_seconds_seen"]) == (12, 12 * 2 * 0.5)
    assert again.part("denoiser.onnx").read_bytes() == (model / "denoiser.onnx").read_bytes()


@pytest.mark.slow
def test_a_model_with_a_denoiser_keeps_it_when_it_learns_more(model, tmp_path):
    config = ContextConfig(hidden=16, small=8, shares=(0.5, 1.0), steps=2, batch=2, frames=10, fast=False)
    found = add_context(model, PACKAGE / "clips", tmp_path / "better", hours=0.003, config=config, quiet=True)
    assert found.denoiser == SETTINGS
    assert (found.folder / "README.md").read_text().count("## Denoiser") == 1


def test_live_speech_is_denoised_at_its_place(codec, speech):
    wave = speech[:16_000]
    asked = codec.live_encoder(16_000, denoise=True, source=1)
    plain = codec.live_encoder(16_000, source=1)
    packets = asked.push(wave[:5000]) + asked.push(wave[5000:]) + asked.flush()
    clean = denoise(codec, wave, 16_000)
    wanted = plain.push(clean) + plain.flush()
    assert len(packets) == len(wanted)
    assert sum(a != b for a, b in zip(packets, wanted, strict=True)) <= 2  # rounding, by blocks of other sizes


def test_models_without_a_denoiser(tiny, speech):
    with pytest.raises(UsageError, match="denoise"):
        denoise(tiny, speech[:4000], 16_000)
    with pytest.raises(UsageError, match="denoise"):
        tiny.live_encoder(16_000, denoise=True)
    cleaning = nacre.load()
    if cleaning.model.denoiser is None:
        with pytest.raises(UsageError, match=r"strength 0\.5"):
            denoise(cleaning, speech[:4000], 16_000, strength=0.5)


def test_above_the_band_sound_goes_where_the_octave_below_goes():
    """A tone at 12 kHz over noise that is cleaned away in the first half and kept in the second."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    clean = noise * np.repeat(np.float32([0, 1]), 8_000)
    wave = audio.resampled(noise, 16_000, 48_000)
    wave += 0.1 * np.sin(2 * np.pi * 12_000 / 48_000 * np.arange(48_000, dtype=np.float32))
    high = high_band(wave, 48_000, noise, clean, 16_000)
    sizes = np.abs(high.reshape(4, -1)).max(1)
    assert sizes[0] < 1e-3
    assert sizes[3] == pytest.approx(0.1, rel=0.2)
    spectrum = np.abs(np.fft.rfft(high))
    assert spectrum[:7_000].max() < 0.01 * spectrum.max()


def test_sound_of_a_high_rate_keeps_its_band(codec, speech):
    """Cleaning that changes nothing leaves a tone above the model's band as it was."""
    wave = audio.resampled(speech[:16_000], 16_000, 48_000)
    tone = (0.05 * np.sin(2 * np.pi * 12_000 / 48_000 * np.arange(len(wave)))).astype(np.float32)
    plain, both = denoise(codec, wave, 48_000), denoise(codec, wave + tone, 48_000)
    added = np.abs(np.fft.rfft(both - plain))
    assert added.argmax() == 12_000
    assert added.max() > 0.5 * np.abs(np.fft.rfft(tone)).max()


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {"window_samples": 320},
        {"window_samples": 321, "step_samples": 160, "release_db": 10},
        {"window_samples": 1 << 30, "step_samples": 160, "release_db": 10},
        {"window_samples": 320, "step_samples": True, "release_db": 10},
        {"window_samples": 320, "step_samples": 160, "release_db": float("nan")},
    ],
)
def test_settings_that_no_denoiser_has(changed, settings):
    with pytest.raises(BundleError, match="denoiser"):
        bundles.load(changed(settings))


def test_a_graph_of_other_sizes(changed, speech):
    codec = nacre.load(changed({"window_samples": 512, "step_samples": 160, "release_db": 10}))
    with pytest.raises(BundleError, match="sizes"):
        denoise(codec, speech[:4000], 16_000)


def test_a_damaged_graph(model, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(model, folder)
    (folder / "denoiser.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"denoiser\.onnx"):
        bundles.load(folder)


def test_training_learns_and_goes_on_where_it_stood(corpus, tmp_path):
    torch.set_num_threads(1)
    plain = {"degrade": NOTHING, "balance": 1.0, "dirt": NoiseMixConfig((0.0, 5.0))}
    trainer = trainer_of(dataclasses.replace(RECIPE, steps=40, learning_rate=1e-2, **plain), Sounds(corpus, None, None))
    _, before = trainer.validate()
    for _ in range(20):
        trainer.step()
    trainer.run.save(tmp_path)
    follower = trainer_of(trainer.recipe, trainer.sounds)
    follower.run.load(tmp_path / f"{CHECKPOINT}.safetensors")
    assert follower.run.step == 20
    for _ in range(20):
        assert trainer.step() == follower.step()
    text, after = trainer.validate()
    assert follower.validate() == (text, after)
    assert after["distance_left"] < min(before["distance_left"], 0.9)


def test_silence_and_noise_alone_are_learned_from_too(corpus):
    dirt = NoiseMixConfig(speechless_probability=1.0, varied_probability=1.0, coloured_probability=0.0)
    recipe = dataclasses.replace(RECIPE, degrade=NOTHING, dirt=dirt)
    trainer = trainer_of(recipe, Sounds(corpus, corpus, None))
    noisy, clean = trainer.drawn(trainer.sampler, (1,), 3, 1.0)
    assert not clean.any()
    assert noisy.square().sum(2).mean((1, 2)).numpy() == pytest.approx(1, abs=0.3)
    assert np.isfinite(trainer.step()["loss"])


def test_the_loss_hears_what_the_engine_makes(codec, speech):
    """Masks of one give the sound back, a step later: no distance."""
    loss = DenoiseLoss(SETTINGS, 16_000, 0.7, wave=0.02, sizes=(256, 1024))
    wave = torch.from_numpy(speech[:16_000] / speech[:16_000].std())[None]
    spectra = loss.spectra(wave)
    ones = torch.stack([torch.ones_like(spectra[:, :, 0]), torch.zeros_like(spectra[:, :, 0])], 2).flatten(2)
    torch.testing.assert_close(loss.heard(ones, spectra)[:, 160:], wave[:, :-160], atol=1e-4, rtol=1e-4)
    assert float(loss(ones, spectra, wave)) < 1e-5
    half = float(loss(0.5 * ones, spectra, wave))
    assert half > 0.02 * np.log10(0.25 / 1e-3)
    assert float(loss(0 * ones, spectra, wave)) > half
    assert float(loss(ones, loss.spectra(0 * wave), 0 * wave)) == 0


def test_faint_sound_counts_less_where_sizes_are_compressed_less(speech):
    wave = torch.from_numpy(speech[:16_000] / speech[:16_000].std())[None]
    gentle, strong = (DenoiseLoss(SETTINGS, 16_000, 0.7, compression=power) for power in (0.5, 0.25))
    torch.manual_seed(0)
    faint, loud = wave + 0.01 * torch.randn_like(wave), 0.5 * wave
    distances = [[float(loss.distance(ours, wave, 512)) for ours in (faint, loud)] for loss in (gentle, strong)]
    assert 1.5 * distances[0][0] / distances[0][1] < distances[1][0] / distances[1][1]


@pytest.mark.parametrize("whole", [0, SMALL.whole])
def test_a_run_begins_with_the_weights_of_a_smaller_one(run_folder, tmp_path, whole):
    """What is new adds nothing at first, and learns."""
    plain, more = (
        dataclasses.replace(RECIPE, net=dataclasses.replace(SMALL, whole=n)) for n in (whole, SMALL.whole + 2)
    )
    train_denoiser(plain, PACKAGE / "clips", tmp_path / "small", quiet=True, max_steps=2)
    small, grown = (DenoiseRun.new(recipe, torch.device("cpu")) for recipe in (plain, more))
    for run in (small, grown):
        run.begin_with(tmp_path / "small")
    frames = torch.randn(1, 5, 322)
    masks, _ = grown.net(frames)
    torch.testing.assert_close(masks, small.net(frames)[0])
    masks.square().sum().backward()
    assert all(block.whole.outward.weight.grad.abs().amax(0).min() > 0 for block in grown.net.blocks)


@pytest.mark.parametrize("changes", [{"whole": 0}, {"whole": 1}, {"width": 6, "whole": 4}])
def test_a_run_cannot_begin_with_another_network(run_folder, changes):
    plain = dataclasses.replace(RECIPE, net=dataclasses.replace(SMALL, **changes))
    with pytest.raises(TrainError, match="another network"):
        DenoiseRun.new(plain, torch.device("cpu")).begin_with(run_folder)


def test_clipped_sound_keeps_its_shape():
    got = clipped(np.array([0.1, -1.0, 0.4], np.float32), 0.5)
    np.testing.assert_allclose(got, [0.1, -0.5, 0.4])


def test_runs_in_use_and_other_networks(run_folder, tiny_model, tmp_path):
    with pytest.raises(TrainError, match="has begun"):
        train_denoiser(RECIPE, PACKAGE / "clips", run_folder, quiet=True)
    other = dataclasses.replace(RECIPE, net=dataclasses.replace(SMALL, width=6))
    with pytest.raises(TrainError, match="same network"):
        train_denoiser(other, PACKAGE / "clips", run_folder, resume=True, quiet=True)
    with pytest.raises(TrainError, match="not empty"):
        export_denoiser(run_folder, tiny_model, run_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kind=codec", "denoiser"),
        ("steps=0", "steps"),
        ("net.bands=[[4, 4]]", "256 bins"),
        ("net.bands=[[4]]", "2"),
        ("windows=[256, 40000]", "windows"),
    ],
)
def test_recipes_that_cannot_be(change, message):
    with pytest.raises(TrainError, match=message):
        load_denoise_recipe(recipes.find("denoiser"), (change,))


def test_the_network_takes_its_past_along():
    torch.manual_seed(1)
    net, frames = DenoiseNet(SMALL, SETTINGS).eval(), torch.randn(2, 9, 322)
    whole, end = net(frames)
    first, past = net(frames[:, :4])
    second, after = net(frames[:, 4:], past)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after, end, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_commands(run, run_folder, model, tiny_model, speech, tmp_path):
    audio.write(tmp_path / "a.wav", speech[None, :9000], 16_000)
    done = run("export", run_folder, "-o", "made", "--base", tiny_model)
    assert done.rc == 0, done.stderr
    assert "denoiser" in done.stderr + done.stdout.decode()
    assert run("denoise", "a.wav", "-o", "b.wav", "--strength", 0.8, "--model", "made").rc == 0
    assert audio.read(tmp_path / "b.wav")[0].shape == (1, 9000)
    assert run("denoise", "a.wav", "-o", "c.wav", "--strength", 2, "--model", "made").rc == 2
    assert not (tmp_path / "c.wav").exists()
    assert run("encode", "a.wav", "-o", "a.nacre", "--denoise", "--model", "made").rc == 0
    assert run("decode", "a.nacre", "-o", "d.wav", "--model", "made").rc == 0


def test_windows_look_back_and_hardly_ahead():
    analysis, synthesis = windows(512, 160)
    assert analysis.argmax() in range(350, 354)
    assert (len(analysis), len(synthesis)) == (512, 320)
