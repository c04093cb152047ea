"""What is inside a file, as numbers and as a picture: true bits, marked damage, clear errors."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from conftest import PACKAGE

from nacre.codec.packets import PacketCoder
from nacre.core.errors import NacreError, StreamError, UsageError
from nacre.format import file as container
from nacre.io import audio
from nacre.tools import inspect as view
from nacre.tools.inspect.seen import MOST_COLUMNS, averaged

ENGLISH = PACKAGE / "clips" / "english.flac"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def data(tiny, speech) -> bytes:
    """A file of 5.1 s in groups of 0.2 s, a second of digital silence in it."""
    wave = speech.copy()
    wave[32_000:48_000] = 0
    return tiny.encode(wave, 16_000, quality=100)


@pytest.fixture(scope="module")
def damaged(tiny, data) -> bytes:
    """Group 3 changed, the last fifth gone."""
    sizes = [len(container.pack_packet(packet)) for packet in tiny.parse(data).packets]
    broken = bytearray(data)
    broken[22 + sum(sizes[:4]) - 2] ^= 0x55
    return bytes(broken[: 22 + sum(sizes[:20])])


def test_bits_are_those_of_the_tables(tiny, data):
    contents = tiny.parse(data)
    seen = view.look(tiny, contents, "talk")
    bits, latents = seen.bits, seen.latents
    frames = len(bits)
    assert bits.shape == latents.shape == (frames, 8)
    assert frames * 320 >= len(seen.decoded) + 640 > (frames - 1) * 320
    assert sum(group.size_bytes for group in seen.groups) + container.HEADER_BYTES == len(data)
    coded = [group for group in seen.groups if group.level is not None]
    paid = sum(8 * (group.size_bytes - 6) for group in coded)  # head 3, check 2, gain 1
    assert 0 <= paid - bits.sum() <= 32 * len(coded)
    (first,) = PacketCoder.of(tiny.model).unpack(contents.packets[:1], [10])
    symbols = first.symbols
    assert bits[:10].sum() == pytest.approx(tiny.model.static_prior.bits(symbols, first.level), rel=1e-4)
    assert np.array_equal(latents[:10], tiny.model.quantiser.latents(symbols, first.level))


def test_silence_has_no_bits_and_is_no_damage(tiny, data):
    seen = view.look(tiny, tiny.parse(data), "talk")
    silent = [index for index, group in enumerate(seen.groups) if group.level is None]
    assert silent == [11, 12, 13, 14] or silent == [10, 11, 12, 13, 14]
    assert not seen.bits[10 * silent[0] : 10 * silent[-1] + 10].any()
    assert (seen.lost, seen.damaged) == ([], False)
    assert seen.metadata["silent or joint-stereo groups"] == f"{len(silent)}"


def test_damage_is_placed(tiny, damaged):
    seen = view.look(tiny, tiny.parse(damaged), "talk")
    (start_s, stop_s), (end_s, _) = seen.lost
    assert (start_s, stop_s, end_s) == (pytest.approx(0.6), pytest.approx(0.8), pytest.approx(4.0))
    assert seen.damaged
    assert seen.groups[3].level is None
    assert not seen.bits[30:40].any()
    assert "cut short" in seen.metadata["file"]


@pytest.mark.parametrize("samples", [1, 100, 5000])
@pytest.mark.parametrize("amplitude", [0.0, 0.3])
def test_silence_and_short_sound(tiny, tmp_path, samples, amplitude):
    audio.write(tmp_path / "a.wav", np.full((1, samples), amplitude, np.float32), 16_000)
    seen = view.look_at_sound(tiny, tmp_path / "a.wav", quality=50)
    assert len(seen.decoded) == len(seen.original) == samples
    assert view.picture(seen).startswith(PNG)


def test_channels(tiny, speech, tmp_path):
    audio.write(tmp_path / "a.wav", np.stack([speech, 0 * speech]), 16_000)
    one, two = (view.look_at_sound(tiny, tmp_path / "a.wav", channel, quality=50) for channel in (0, 1))
    assert one.bits.sum() > 0 == two.bits.sum()
    assert {group.size_bytes for group in two.groups} == {3}
    for channel in (-1, 2):
        with pytest.raises(UsageError, match=r"channel -?\d does not exist"):
            view.look_at_sound(tiny, tmp_path / "a.wav", channel)


def test_damage_belongs_to_its_channel(tiny, speech):
    data = bytearray(tiny.encode(np.stack([speech, speech[::-1]]), 16_000, quality=100))
    sizes = [len(container.pack_packet(packet)) for packet in tiny.parse(bytes(data)).packets]
    data[22 + sum(sizes[:8]) - 2] ^= 0x55  # group 3 of channel 1
    one, two = (view.look(tiny, tiny.parse(bytes(data)), "talk", channel) for channel in (0, 1))
    assert (one.lost, one.damaged, two.damaged) == ([], True, True)
    assert two.lost == [(pytest.approx(0.6), pytest.approx(0.8))]


def test_header_alone(tiny, data):
    with pytest.raises(StreamError, match="no group of sound"):
        view.look(tiny, tiny.parse(data[: container.HEADER_BYTES]), "talk")


def test_long_sound_is_averaged():
    frames = np.arange(10_000.0)[:, None] * [1, 2]
    means, edges_s = averaged(frames, 0.02)
    assert (means.shape, edges_s.shape) == ((MOST_COLUMNS, 2), (MOST_COLUMNS + 1,))
    assert np.average(means, axis=0, weights=np.diff(edges_s)) == pytest.approx(frames.mean(0))
    assert edges_s[-1] == pytest.approx(200)


def test_picture_shows_damage(tiny, damaged, data):
    import io

    from matplotlib import image

    def shades(some: bytes) -> int:
        seen = view.look(tiny, tiny.parse(some), "talk")
        pixels = image.imread(io.BytesIO(view.picture(seen)))[..., :3]
        blend = 0.45 * np.array([0xE8, 0xA3, 0x3D]) / 255 + 0.55
        return int((np.abs(pixels - blend).max(-1) < 0.02).sum())

    assert shades(damaged) > 5000 > 100 > shades(data)


def test_page_holds_everything(tiny, tmp_path):
    seen = view.look_at_sound(tiny, ENGLISH, quality=50)
    page = view.page(seen)
    assert page.count("<audio") == 2
    assert page.count("data:image/png;base64,") == 4  # two spectrograms, bits, latents
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert "http" not in re.sub(r"base64,[^'\"]*", "", page)
    hostile = view.look(tiny, tiny.parse(tiny.encode(seen.original, 16_000)), "<b>{x}")
    assert "<b>{x}" not in view.page(hostile)
    assert "&lt;b&gt;{x}" in view.page(hostile)


def test_page_tells_of_every_group(tiny, damaged):
    seen = view.look(tiny, tiny.parse(damaged), "talk")
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', view.page(seen), re.DOTALL)[1]
    data = json.loads(text)
    panels = {panel["name"]: panel for panel in data["panels"]}
    assert data["lost"] == [[start_s, stop_s] for start_s, stop_s in seen.lost]
    assert panels["packet bytes"]["bars"][0] == [group.size_bytes for group in seen.groups]
    assert panels["quality level"]["steps"][3] == -1
    assert panels["bits a frame"]["bars"][0] == pytest.approx(seen.bits.sum(1), abs=0.06)
    assert all(panel["words"] for panel in data["panels"])
    assert {path.name for path in (PACKAGE / "tools" / "inspect").glob("page.*")} >= {"page.html", "page.js"}


def test_without_matplotlib(tiny, data, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NacreError, match=r"matplotlib, which is not installed; .*nacre\[plot\]"):
        view.write(view.look(tiny, tiny.parse(data), "talk"), str(tmp_path / "a.png"))
    assert list(tmp_path.iterdir()) == []
    view.write(view.look(tiny, tiny.parse(data), "talk"), str(tmp_path / "a.html"))


# the command


def test_command(nacre, tiny_model, tmp_path, data):
    (tmp_path / "a.nacre").write_bytes(data)
    ran = nacre("inspect", "a.nacre", "-o", "a.png", "-m", tiny_model)
    code, said = ran.rc, ran.stderr
    assert (code, f"{len(data)} bytes" in said) == (0, True)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    ran = nacre("inspect", ENGLISH, "-o", "b.html", "-m", tiny_model, "--bitrate", 1, "-q")
    assert (ran.rc, ran.stderr) == (0, "")
    assert (tmp_path / "b.html").read_text().startswith("<!doctype html>")


def test_command_on_damage(nacre, tiny_model, tmp_path, damaged):
    (tmp_path / "a.nacre").write_bytes(damaged)
    ran = nacre("inspect", "a.nacre", "-o", "a.png", "-m", tiny_model)
    code, said = ran.rc, ran.stderr
    assert (code, "lost 0:00.6 to 0:00.8" in said) == (1, True)
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none.wav", "-o", "a.png"), 1, "none.wav cannot be read (No such file"),
        (("none.nacre", "-o", "a.png"), 1, "none.nacre cannot be read (No such file"),
        (("text.wav", "-o", "a.png"), 1, "not a sound file"),
        (("text.nacre", "-o", "a.png"), 1, "not a nacre file"),
        ((ENGLISH, "-o", "a.jpg"), 2, "--output a.jpg must end in .png or .html"),
        ((ENGLISH, "-o", "a"), 2, "--output a must end in"),
        ((ENGLISH, "-o", "a.png", "--channel", 1), 2, "channel 1 does not exist; the sound has channels 0 to 0"),
        ((ENGLISH, "-o", "a.png", "--quality", 101), 2, "quality must be 0 to 100, not 101"),
        (("text.nacre", "-o", "a.png", "--bitrate", 3), 2, "--bitrate is for sound files; leave it out"),
        ((ENGLISH, "-o", "text.png"), 1, "use --force"),
        ((ENGLISH, "-o", "no/a.png"), 1, "cannot be written"),
    ],
)
def test_bad_use(nacre, tiny_model, tmp_path, arguments, code, words):
    for name in ("text.wav", "text.nacre", "text.png"):
        (tmp_path / name).write_text("some text")
    ran = nacre("inspect", *arguments, "-m", tiny_model)
    found, said = ran.rc, ran.stderr
    assert (found, words in said) == (code, True), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.nacre", "text.png", "text.wav"]
    assert (tmp_path / "text.png").read_text() == "some text"
