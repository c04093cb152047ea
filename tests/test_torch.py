"""The codec as a torch module gives what the numpy codec gives, in batches, with masks and gradients."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("onnx")
pytest.importorskip("safetensors")

import torch
from test_residual import residual_model  # noqa: F401

import nacre
from nacre.codec.frames import SILENT
from nacre.core.errors import AudioError, BundleError, UsageError
from nacre.torch import NacreCodec, NacreProcessor
from nacre.torch import weights as weights_of

CLOSE = 1e-4
ROUNDED = 0.05  # of the largest: graphs with matrices of 8 bits round what goes through them


@pytest.fixture(scope="module")
def net(tiny_model) -> NacreCodec:
    torch.set_num_threads(1)
    return NacreCodec.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def paused(speech) -> np.ndarray:
    """Speech, digital silence, speech 40 dB down on an offset, [N]."""
    parts = speech[16_000:29_000], np.zeros(8000), 0.01 * speech[20_000:36_345] + 0.05
    return np.concatenate(parts).astype(np.float32)


def batch_of(*waves: np.ndarray) -> tuple[torch.Tensor, list[int]]:
    """Waves padded with noise, which must not be heard, and their lengths."""
    rng = np.random.default_rng(3)
    found = rng.standard_normal((len(waves), max(map(len, waves)) + 77)).astype(np.float32)
    for row, wave in zip(found, waves, strict=True):
        row[: len(wave)] = wave
    return torch.from_numpy(found), [len(wave) for wave in waves]


@pytest.mark.parametrize("level", [0, 3])
def test_a_batch_equals_the_numpy_codec(net, tiny, paused, speech, level):
    waves = [paused, speech[16_000:20_001], speech[:3200]]
    given, lengths = batch_of(*waves)
    with torch.no_grad():
        found = net(given, lengths, level)
    encoded = found.encoded
    for index, wave in enumerate(waves):
        latents, tokens = tiny.latents(wave, 16_000, level), tiny.tokens(wave, 16_000, level)
        count, groups = len(latents), len(latents.gains)
        assert encoded.frame_mask[index].tolist() == [True] * count + [False] * (encoded.frame_mask.shape[1] - count)
        np.testing.assert_array_equal(encoded.gains[index, :groups].numpy(), latents.gains)
        assert (encoded.gains[index, groups:] == SILENT).all()
        np.testing.assert_allclose(encoded.latents[index, :count].numpy(), latents.latents, atol=CLOSE)
        assert not encoded.latents[index, count:].any()
        same = found.quantised.tokens[index, :count].numpy() == tokens.tokens
        assert same.mean() > 0.999  # the others lie on the edge between two
        if same.all():
            heard = tiny.from_tokens(tokens)
            np.testing.assert_allclose(found.wave[index, : len(wave)].numpy(), heard, atol=CLOSE)
        bare = net.decode(encoded).detach()[index, : len(wave)].numpy()
        np.testing.assert_allclose(bare, tiny.from_latents(latents), atol=CLOSE)
        assert not found.wave[index, len(wave) :].any()
    assert found.wave.shape == (3, len(paused))


def test_levels_with_a_residual_layer_equal_the_numpy_codec(residual_model, paused, speech):  # noqa: F811
    codec, net = nacre.load(residual_model), NacreCodec.from_pretrained(residual_model)
    waves = [paused, speech[16_000:20_001]]
    given, lengths = batch_of(*waves)
    for level in (2, 3):
        with torch.no_grad():
            found = net(given, lengths, level)
        for index, wave in enumerate(waves):
            tokens = codec.tokens(wave, 16_000, level)
            count = len(tokens)
            fine = found.quantised.fine[index, :count].numpy()
            assert fine.any()
            assert (fine == tokens.fine).mean() > 0.999
            if (found.quantised.tokens[index, :count].numpy() == tokens.tokens).all() and (fine == tokens.fine).all():
                np.testing.assert_allclose(found.wave[index, : len(wave)], codec.from_tokens(tokens), atol=CLOSE)
            assert not found.quantised.fine[index, count:].any()
        plain = net.decode(found.encoded, found.quantised.latents)
        assert (plain - found.wave).abs().max() > 0.01
    assert net(given, lengths, 1).quantised.fine is None
    with pytest.raises(UsageError, match="fine is"):
        net.decode(found.encoded, found.quantised.latents, found.quantised.fine[:, 1:])


def test_gradients_pass_the_residual_layer(residual_model, speech):  # noqa: F811
    net = NacreCodec.from_pretrained(residual_model)
    wave = torch.from_numpy(speech[None, 16_000:19_200].copy()).requires_grad_()
    (net(wave, level=3).wave - wave.detach()).square().mean().backward()
    assert wave.grad.abs().max() > 0


def test_tokens_alone_lead_back(net, tiny, paused):
    tokens = tiny.tokens(paused, 16_000, 2)
    latents = net.latents_of(torch.from_numpy(tokens.tokens)[None], 2)
    gains = torch.from_numpy(tokens.gains)[None]
    found = net.render(latents, gains, [len(paused)], 2)
    np.testing.assert_allclose(found[0].detach().numpy(), tiny.from_tokens(tokens), atol=CLOSE)


def test_gradients_reach_everything(net, speech):
    wave = torch.from_numpy(speech[None, 16_000:22_400].copy()).requires_grad_()
    net.zero_grad()
    found = net(wave)
    (found.wave - wave.detach()).square().mean().backward()
    assert wave.grad is not None
    assert wave.grad.abs().max() > 0
    for name, value in net.networks.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
        if not name.endswith("film"):  # of the level that was used
            assert value.grad.any(), name
    net.zero_grad()


def test_gradients_of_latents(net, speech):
    with torch.no_grad():
        encoded = net.encode(torch.from_numpy(speech[None, 16_000:18_500].copy()))
    latents = encoded.latents.clone().requires_grad_()
    net.decode(encoded, latents).square().sum().backward()
    assert latents.grad.abs().sum(2).gt(0).all()


def test_weights_are_saved_and_loaded(net, tiny_model, tmp_path, monkeypatch):
    net.save_pretrained(tmp_path / "m")
    monkeypatch.setattr(weights_of, "_from_graphs", None)
    again = NacreCodec.from_pretrained(tmp_path / "m")
    for one, two in zip(net.networks.parameters(), again.networks.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(UsageError, match="not empty"):
        net.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / weights_of.FILE
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BundleError, match="weights"):
        NacreCodec.from_pretrained(tmp_path / "m")
    path.unlink()
    weights_of.save_file({"a": torch.zeros(1)}, path, {"graphs": "{}"})
    with pytest.raises(BundleError, match="weights of other graphs"):
        NacreCodec.from_pretrained(tmp_path / "m")
    shutil.copytree(tiny_model, tmp_path / "n")
    text = (tmp_path / "n" / "model.json").read_text().replace('"net": {', '"nets": {')
    (tmp_path / "n" / "model.json").write_text(text)
    with pytest.raises(BundleError, match=r"sizes of its networks"):
        NacreCodec.from_pretrained(tmp_path / "n")


def test_processor(net, speech):
    process = NacreProcessor(16_000)
    batch = process([speech[:8000], np.stack([speech[:4410]] * 2)], 16_000)
    assert batch.input_values.shape == batch["padding_mask"].shape == (2, 8000)
    assert batch.lengths.tolist() == [8000, 4410]
    np.testing.assert_array_equal(batch.input_values[1, :4410], speech[:4410])
    assert not batch.input_values[1, 4410:].any()
    assert net.encode(batch.input_values, batch.lengths).latents.shape == (2, 27, 8)
    assert process(speech[:9000], 48_000).input_values.shape == (1, 3000)
    assert process(speech[:9000].tolist(), 48_000, return_tensors="np").input_values.shape == (1, 3000)
    assert isinstance(process(speech[:90], 48_000).to("cpu").padding_mask, torch.Tensor)
    for given, error, message in [
        ([speech[:9], np.zeros(0, np.float32)], AudioError, "item 1: .*no samples"),
        ([], UsageError, "empty list"),
        (np.zeros(9, int), AudioError, "item 0: .*int64"),
    ]:
        with pytest.raises(error, match=message):
            process(given, 16_000)
    with pytest.raises(UsageError, match="return_tensors"):
        process(speech, 16_000, return_tensors="tf")


def test_what_does_not_fit(net, speech):
    wave = torch.from_numpy(speech[None, :3200].copy())
    encoded = net.encode(wave)
    for call, message in [
        (lambda: net.encode(wave[0]), r"wave is torch.float32 \[3200\]"),
        (lambda: net.encode(wave, [3201]), "lengths has 3201, and the wave only 3200"),
        (lambda: net.encode(wave, [0]), "lengths"),
        (lambda: net.encode(wave, [1, 2]), "lengths"),
        (lambda: net.encode(wave, level=4), "level"),
        (lambda: net.render(encoded.latents[:, :4], encoded.gains, [3200]), "latents is"),
        (lambda: net.render(encoded.latents, encoded.gains[:, :1], [3200]), "gains is"),
    ]:
        with pytest.raises(UsageError, match=message):
            call()


def test_the_released_model(speech):
    """Weights out of the graphs of the model in the package; noise of the decoder included."""
    import nacre

    codec, net = nacre.load(), NacreCodec.from_pretrained()
    wave = speech[16_000:48_000]
    latents = codec.latents(wave, 16_000)
    with torch.no_grad():
        encoded = net.encode(torch.from_numpy(wave[None].copy()))
        heard = net.decode(encoded, torch.from_numpy(latents.latents)[None])[0].numpy()
    far = ROUNDED * np.abs(latents.latents).max()
    np.testing.assert_allclose(encoded.latents[0].numpy(), latents.latents, atol=far)
    np.testing.assert_allclose(heard, codec.from_latents(latents), atol=ROUNDED * np.abs(heard).max())


def test_the_guide_runs():
    guide = (Path(__file__).parent.parent / "docs" / "guides" / "torch.md").read_text()
    examples = re.findall(r"<!-- tested -->\n```python\n(.*?)```", guide, re.DOTALL)
    assert len(examples) == 2
    exec("\n".join(examples), {})
