"""Noise beside what a decoder predicts: in any pieces, at its level, where it belongs, the same in numpy and torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nacre.core.config import CodecConfig
from nacre.core.errors import BundleError
from nacre.dsp.noise import CYCLE_STEPS, NoiseSynthesiser, noise
from nacre.dsp.stft import COMPRESSION, Analyser, Synthesiser

PLAIN = CodecConfig(latent_dims=8, levels=4)
CODEC = replace(PLAIN, noise=True)


def decoder_output(steps: int, level: float = 0.0, hz: float = 160.0) -> np.ndarray:
    """[S, 3 * bins]: a tone as predicted, and the compressed level of noise beside it."""
    at = np.arange(steps * CODEC.step_samples) / CODEC.rate_hz
    tone = 0.1 * np.sin(2 * np.pi * hz * at)
    spectra = once(Analyser(PLAIN), tone.astype(np.float32)).reshape(steps, -1)
    levels = np.full((steps, CODEC.bins), np.log1p(COMPRESSION * level))
    return np.concatenate([spectra, levels], 1).astype(np.float32)


def once(station: Analyser | Synthesiser, values: np.ndarray) -> np.ndarray:
    """One step from the start."""
    return station.step(values, station.start())[0]


def test_without_noise_the_low_band_is_what_was_predicted():
    found = decoder_output(40)
    plain = once(Synthesiser(PLAIN), found[:, : PLAIN.step_width])
    np.testing.assert_allclose(once(NoiseSynthesiser(CODEC), found)[2000:], plain[2000:], atol=1e-4)  # behind the onset


def test_nothing_is_predicted_at_the_top():
    found = once(NoiseSynthesiser(CODEC), decoder_output(40, hz=6000.0))
    assert np.abs(found[2000:]).max() < 1e-3


def test_noise_has_its_level_and_its_band():
    found = decoder_output(800, level=0.05)
    found[:, : CODEC.step_width] = 0
    wave = once(NoiseSynthesiser(CODEC), found)[2000:]
    power = np.abs(np.fft.rfft(wave, norm="ortho")) ** 2
    hz = np.fft.rfftfreq(len(wave), 1 / CODEC.rate_hz)
    assert power[hz > 3000].mean() == pytest.approx(2 * 0.05**2, rel=0.05)  # windows of half the power
    assert power[hz < 1200].mean() < 1e-4 * 0.05**2
    frame = wave[: len(wave) // 320 * 320].reshape(-1, 320)
    assert abs((frame[1:] * frame[:-1]).sum() / (frame**2).sum()) < 0.05


def test_pieces_do_not_matter():
    found = decoder_output(60, 0.02)
    whole = once(NoiseSynthesiser(CODEC), found)
    stream, pieces = NoiseSynthesiser(CODEC), []
    state = stream.start()
    for at in range(0, 60, 2):
        piece, state = stream.step(found[at : at + 2], state)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)


def test_parts_make_up_the_whole():
    found, stream = decoder_output(60, 0.02), NoiseSynthesiser(CODEC)
    predicted, added, _ = stream.parts(found, stream.start())
    np.testing.assert_allclose(predicted + added, once(stream, found), atol=1e-6)
    assert added.std() > 0.01


def test_a_restart_forgets_sound_but_not_where_noise_stands():
    found, stream = decoder_output(60, 0.02), NoiseSynthesiser(CODEC)
    _, whole, _ = stream.parts(found, stream.start())
    _, _, state = stream.parts(found[:20], stream.start())
    _, later, _ = stream.parts(found[30:], stream.restart(state, 10))
    np.testing.assert_allclose(later[480:], whole[30 * 160 + 480 :], atol=1e-6)


def test_the_cycle_of_noise_is_seamless_and_white():
    once, later = noise(CODEC, 0, CYCLE_STEPS), noise(CODEC, CYCLE_STEPS + 5, 10)
    np.testing.assert_array_equal(later, once[5:15])
    power = (np.abs(once[:, 1:-1]) ** 2).mean()
    assert power == pytest.approx(1.0, rel=0.03)
    np.testing.assert_allclose((np.abs(once) ** 2).mean(0)[1:-1], 1.0, atol=0.25)


def test_settings_at_rest_are_not_written():
    assert "noise" not in PLAIN.to_dict()
    assert CodecConfig.from_dict(CODEC.to_dict()) == CODEC
    with pytest.raises(BundleError, match="log-mel frames have no noise"):
        replace(CODEC, mel_bands=20)


def test_torch_does_the_same():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from nacre.train.nets.transforms import Analysis

    found = decoder_output(60, hz=3500.0)
    theirs = Analysis(CODEC).sound(torch.from_numpy(found[None]))[0].numpy()
    np.testing.assert_allclose(theirs, once(NoiseSynthesiser(CODEC), found)[CODEC.delay_samples :], atol=2e-4)
    noisy = torch.from_numpy(decoder_output(800, 0.05)[None])
    noisy[..., : CODEC.step_width] = 0
    first, second = (wave[0, 2000:] for wave in Analysis(CODEC).sounds(noisy, 2))
    ours = once(NoiseSynthesiser(CODEC), noisy[0].numpy())[2000:]
    assert float(first.std()) == pytest.approx(float(ours.std()), rel=0.05)
    assert abs(float((first * second).sum() / first.square().sum())) < 0.1


def test_energy_distance_keeps_the_level_of_noise():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from nacre.train.losses import LossConfig, SpectralLoss

    loss = SpectralLoss(LossConfig((512, 256), (20, 20), complex=1.0), 16_000)
    torch.manual_seed(0)
    true, first, second = 0.1 * torch.randn(3, 8, 8000)

    def best(energy: bool) -> float:
        """The gain on decoded noise that the loss likes best."""
        gains = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25]
        costs = [float(loss(g * first, true, None, g * second if energy else None)[0].mean()) for g in gains]
        return gains[int(np.argmin(costs))]

    assert best(energy=True) in (1.0, 1.1)
    assert best(energy=False) < 1.0
