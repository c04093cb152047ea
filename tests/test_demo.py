"""The demo: all files and one page without the network, or nothing; pictures that decode to their pixels."""

from __future__ import annotations

import re
import struct
import zlib
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from nacre.core.errors import AudioError, UsageError
from nacre.io import audio
from nacre.tools import demo
from nacre.tools import html as page
from nacre.tools.demo import read_clips

FETCHING = ("src", "href", "srcset", "data", "poster", "action", "background")
INSIDE = ("data:", "#")


class Page(HTMLParser):
    """Elements of a page as (name, attributes); every one that opens must close."""

    VOID = ("meta", "link", "img", "input")

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def png_parts(data: bytes) -> dict[bytes, bytes]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    parts, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(name + body)
        parts[name] = body
        at += 12 + size
    assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    return parts


def png_pixels(data: bytes) -> np.ndarray:
    parts = png_parts(data)
    width, height, *form = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert form == [8, 3, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + width)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def tone(frequency_hz: float, peak: float = 0.5) -> np.ndarray:
    return peak * np.sin(2 * np.pi * frequency_hz * np.arange(16_000) / 16_000)  # [N]


@pytest.fixture(scope="module", autouse=True)
def clips():
    """Half a second of two of the clips, in place of all, to be quick."""
    cut = [clip.wave[:, 8_000:16_000] for clip in read_clips()[:2]]
    short = [
        demo.Clip(name, "<here>", page.flac(wave, 16_000), wave) for name, wave in zip(("one", "two"), cut, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "read_clips", lambda: short)
        yield short


@pytest.fixture(scope="module")
def made(clips, tiny, tiny_model, tmp_path_factory):
    """The folder of a demo at two rates the model has, and the rates."""
    rates_kbps = tiny.bundle.rates_kbps
    rates = [round(float(rate), 2) for rate in (rates_kbps[0], rates_kbps[-1])]
    out = tmp_path_factory.mktemp("demo") / "new" / "out"
    assert demo.run(out, [rates[1], *rates], str(tiny_model), False) == out / "index.html"
    return out, rates


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (160, 600)])
def test_png_decodes_to_its_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, page.SHADES, shape).astype(np.uint8)
    data = page.png(pixels, page.palette())
    assert np.array_equal(png_pixels(data), pixels)
    assert png_parts(data)[b"PLTE"] == page.palette().tobytes()


def test_palette_grows_brighter_from_black():
    brightness = page.palette().astype(int) @ [299, 587, 114]
    assert (np.diff(brightness) > 0).all()
    assert brightness[0] < 2_000
    assert brightness[-1] > 240_000


@pytest.mark.parametrize("frequency_hz", [1_000, 4_000, 7_500])
def test_spectrogram_shows_a_tone_in_its_place(frequency_hz):
    wave = tone(frequency_hz)
    loudest_db = page.spectrum_db(wave).max()
    pixels = png_pixels(page.spectrogram(page.spectrum_db(wave), loudest_db))
    assert pixels.shape == (page.ROWS, page.COLUMNS)
    middle = pixels[:, page.COLUMNS // 2]
    assert abs((page.ROWS - 0.5 - middle.argmax()) * 50 - frequency_hz) <= 50
    assert middle.max() >= page.SHADES - 2
    assert np.median(middle) == 0
    quiet = png_pixels(page.spectrogram(page.spectrum_db(wave / 100), loudest_db))  # 40 dB down is half of the range
    assert abs(int(quiet.max()) - page.SHADES // 2) <= 1


@pytest.mark.parametrize("samples", [1, 2, 639, 16_000])
def test_spectrogram_of_any_length_and_of_silence(samples):
    assert not png_pixels(page.spectrogram(page.spectrum_db(np.zeros(samples, np.float32)), 0.0)).any()


def test_clips_are_all_attributed():
    whole = read_clips()
    assert [clip.name for clip in whole] == ["dutch", "english", "german", "spanish"]
    for clip in whole:
        assert clip.origin
        assert clip.pcm_bytes == 2 * clip.wave.shape[1]
        assert 3 < clip.duration_s < 10


def test_files_are_what_the_codec_makes(made, clips, tiny):
    out, rates = made
    wanted = {"index.html"}
    for clip in clips:
        wanted |= {f"{clip.name}.flac", f"{clip.name}-opus.ogg"} | {
            f"{clip.name}-{rate:g}{end}" for rate in rates for end in (".nacre", ".wav")
        }
        assert (out / f"{clip.name}.flac").read_bytes() == clip.flac
        for rate in rates:
            data = (out / f"{clip.name}-{rate:g}.nacre").read_bytes()
            assert data == tiny.encode(clip.wave, 16_000, bitrate_kbps=rate)
            wave, rate_hz = audio.read(out / f"{clip.name}-{rate:g}.wav")
            assert rate_hz == 16_000
            assert wave.shape == clip.wave.shape
            assert np.abs(wave - tiny.decode(data)[0].clip(-1, 1)).max() <= 2**-15
    assert {path.name for path in out.iterdir()} == wanted


def test_page_has_a_player_and_a_picture_in_each_row(made, tmp_path):
    out, rates = made
    text = (out / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    rows = 2 * (2 + len(rates))
    players, pictures = page.all("audio"), page.all("img")
    assert len(page.all("li")) == len(players) == len(pictures) == rows
    for players_of, name in ((players, "aria-label"), (pictures, "alt")):
        assert len({item[name] for item in players_of}) == rows
    assert all("controls" in player for player in players)
    assert len(page.all("button")) == rows
    for player, picture in zip(players, pictures, strict=True):
        if player["aria-label"].endswith("Opus"):
            continue
        name, _, what = player["aria-label"].partition(", ")
        rate = "" if what == "original" else "-" + what.removeprefix("coded at ").removesuffix(" kb/s")
        sound = tmp_path / "sound.flac"
        sound.write_bytes(b64decode(player["src"].removeprefix("data:audio/flac;base64,")))
        wave, _ = audio.read(sound)
        assert np.array_equal(wave, audio.read(out / f"{name}{rate}{'.wav' if rate else '.flac'}")[0])
        pixels = png_pixels(b64decode(picture["src"].removeprefix("data:image/png;base64,")))
        assert pixels.shape == (int(picture["height"]), int(picture["width"]))
    for path in out.glob("*.nacre"):
        assert f"{path.stat().st_size:,} bytes" in text


def test_opus_keeps_time_and_length(clips):
    for clip in clips:
        rival = demo.opus(clip)
        assert rival.data[:4] == b"OggS"
        assert rival.wave.shape == clip.wave.shape
        assert 0 < rival.rate_kbps < 24  # of half a second, most of it Ogg's
        assert np.corrcoef(rival.wave[0], clip.wave[0])[0, 1] > 0.5


def test_page_needs_no_network(made):
    text = (made[0] / "index.html").read_text(encoding="utf-8")
    assert len(text) < 6_000_000
    assert not re.search(r"https?://|url\(|@import|//\w+\.\w+/", re.sub(r'base64,[^"]*', "", text))
    for _, attributes in Page(text).elements:
        for name in FETCHING:
            assert attributes.get(name, "#").startswith(INSIDE), attributes[name][:80]
    assert "$" not in re.sub(r'base64,[^"]*', "", text)


def test_table_tells_each_file(made, clips, tiny_model, tmp_path, capsys):
    out, rates = made
    demo.run(tmp_path, rates[:1], str(tiny_model), False)
    said = capsys.readouterr()
    assert not said.err
    lines = [line.split() for line in said.out.splitlines()]
    for clip in clips:
        size = (out / f"{clip.name}-{rates[0]:g}.nacre").stat().st_size
        row = next(line for line in lines if line[:1] == [clip.name])
        assert row[1:4] == [f"{rates[0]:g}", str(size), f"{8 * size / clip.duration_s / 1000:.2f}"]


def test_folder_in_use_is_left_alone_without_force(made, tiny_model, tmp_path):
    rates = made[1][:1]
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "index.html").write_text("old")
    with pytest.raises(AudioError, match=r"is not empty; choose a new one with --out, or .*--force"):
        demo.run(tmp_path, rates, str(tiny_model), False)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "index.html"}
    page = demo.run(tmp_path, rates, str(tiny_model), True)
    assert mine.read_text() == "mine"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_file_in_place_of_the_folder(made, tiny_model, tmp_path):
    path = tmp_path / "out"
    path.write_text("mine")
    for out in (path, path / "below"):
        with pytest.raises(AudioError, match=re.escape(str(out))):
            demo.run(out, made[1][:1], str(tiny_model), True)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("bitrates", [[], [0.0], [-3.0], [1e9], [float("nan")], [float("inf")]])
def test_bad_rates_write_nothing(made, tiny_model, tmp_path, bitrates):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="bitrate"):
        demo.run(out, bitrates and [made[1][0], *bitrates], str(tiny_model), False)
    assert not out.exists()


def test_unknown_model_writes_nothing(tmp_path):
    with pytest.raises(UsageError, match="no such model"):
        demo.run(tmp_path / "out", [3.0], "nothing-like-it", False)
    assert not (tmp_path / "out").exists()


def test_failure_while_coding_writes_nothing(made, tiny_model, tmp_path, monkeypatch):
    def fail(wave, rate_hz):
        raise AudioError("wave")

    monkeypatch.setattr(demo, "flac", fail)
    with pytest.raises(AudioError):
        demo.run(tmp_path / "out", made[1][:1], str(tiny_model), False)
    assert not (tmp_path / "out").exists()


def test_names_are_escaped(clips, tiny, monkeypatch):
    monkeypatch.setitem(tiny.bundle.facts.__dict__, "name", '<b onclick="x">&')
    clip = replace(clips[0], name='a"<i>', origin="<script>$name")
    text = demo._page(tiny, [clip], [], [demo.opus(clip)])
    assert "<b onclick" not in text
    assert "<i>" not in text
    assert "<script>$" not in text
    assert "&lt;script&gt;$name" in text
    assert "&lt;b onclick=&quot;x&quot;&gt;&amp;" in text
