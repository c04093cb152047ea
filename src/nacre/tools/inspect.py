"""What is inside a `.nacre` file as one picture: sound, bits, latents, quality levels and damage over time.

    sound file -> encode --+
    .nacre file -----------+-> packets -> symbols -> bits (integer tables), latents -> Seen -> picture | page

The picture needs matplotlib; nothing here is needed to decode.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nacre.codec import packets
from nacre.codec.codec import Codec
from nacre.codec.stream import StreamDecoder
from nacre.core.errors import NacreError, StreamError, UsageError
from nacre.core.types import Array
from nacre.core.units import clock, kbps
from nacre.dsp.gain import GAIN_STEP_DB, GAIN_ZERO
from nacre.format.file import Contents, Packet, pack_packet
from nacre.io import audio
from nacre.io.stdio import printable
from nacre.tools.html import ONE_PLAYER, RANGE_DB, data_uri, palette, sound_uri, spectrum_db, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_COLUMNS = 1600  # of a heat map or line; frames beyond are averaged
MOST_PLAYER_S = 900.0  # longer sound is left out of the page
INK, SOFT, MARK, BLUE, WARN = "#221f26", "#a59fac", "#96336f", "#3a6ea8", "#e8a33d"
DIVERGING = "10457f 4a86c5 b3d0ea f7f5f3 efbb9b cf6242 7f1526"
PAD_INCHES = 0.03
MOST_NOTES = 16  # groups whose bytes are written out
WIDTH_INCHES, DPI = 13.0, 110
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>{style}
table {{ border-collapse: collapse; margin: 14px 0; }}
td {{ padding: 3px 18px 3px 0; vertical-align: top; }}
.players {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 16px; margin: 14px 0; }}
.picture {{ display: block; width: 100%; border: 1px solid var(--line); border-radius: 4px; background: #fff; }}
</style>
<header><h1>{name}</h1><table>{facts}</table></header>
<main><div class="players">{players}</div>
<img class="picture" alt="{spoken}" src="{picture}"></main>
<footer><p class="soft">{notes}</p></footer>
<script>{one_player}</script></html>
"""
NOTES = (
    "Bits are those of each symbol by the model's integer tables; the range coder, heads and checks add a few bytes a "
    "group. Latents are what the decoder network is given. Dimensions are in order of what they cost."
)


@dataclass(frozen=True)
class Group:
    """One packet, opened: T frames, K symbols a frame, D latents. `level` is None where it is silent or lost."""

    level: int | None
    gain_db: float
    size_bytes: int
    bits: Array  # [T, K] float32
    fine_bits: Array  # [T] float32, of the refinement
    latents: Array  # [T, D] float32


@dataclass(frozen=True)
class Seen:
    """One channel of a file, opened."""

    name: str
    facts: dict[str, str]
    rate_hz: int
    original: Array | None  # [N], where the input was sound
    decoded: Array  # [N]
    groups: list[Group]
    lost: list[tuple[float, float]]  # seconds
    damaged: bool  # this channel or another, or the end
    levels: int  # that the model has
    frame_s: float
    group_s: float

    @property
    def duration_s(self) -> float:
        """Length of the sound."""
        return len(self.decoded) / self.rate_hz

    @property
    def bits(self) -> Array:
        """[T, K] float32; 0 where silent or lost."""
        return np.concatenate([group.bits for group in self.groups])

    @property
    def fine_bits(self) -> Array:
        """[T] float32 of the refinement; 0 at levels that have none, and where silent or lost."""
        return np.concatenate([group.fine_bits for group in self.groups])

    @property
    def latents(self) -> Array:
        """[T, D] float32; 0 where silent or lost."""
        return np.concatenate([group.latents for group in self.groups])


def look_at_sound(codec: Codec, path: str | Path, channel: int = 0, **rate: Any) -> Seen:
    """Encode a sound file and look inside; `rate` is bitrate_kbps or quality, as for `codec.encode`."""
    wave, rate_hz = audio.read(path)
    _check_channel(channel, len(wave))
    contents = codec.parse(codec.encode(wave, rate_hz, **rate))
    return look(codec, contents, Path(path).name, channel, wave[channel])


def look(codec: Codec, contents: Contents, name: str, channel: int = 0, original: Array | None = None) -> Seen:
    """One channel of a parsed file; what is damaged stays empty. Raises UsageError for a channel that is not there."""
    channels, config = contents.header.channels, codec.config
    _check_channel(channel, channels)
    stream = codec.decoder(contents)
    decoded = np.concatenate([np.zeros((channels, 0), np.float32), *stream.blocks()], 1)[channel]
    packets = contents.packets[channel::channels]
    if not packets:
        raise StreamError(name, found="no group of sound", wanted="at least one", next="see `nacre verify`")
    group_s = config.group_samples / config.rate_hz
    lost = [(item.start_s, item.stop_s) for item in stream.damage if item.channel == channel]
    if contents.truncated and contents.samples:  # the sound goes on where the file ends
        lost.append((len(packets) * group_s, contents.samples / contents.header.rate_hz))
    frames = [stream.group_frames(index) for index in range(len(packets))]
    read = stream.coder.unpack(packets, frames)
    groups = [_open(stream, *each) for each in zip(packets, frames, read, strict=True)]
    damaged = bool(stream.damage) or contents.truncated
    facts = _facts(codec, contents, decoded.shape[-1] / stream.rate_hz, groups, damaged)
    frame_s = config.hop_samples / config.rate_hz
    size = (config.levels, frame_s, group_s)
    return Seen(printable(name), facts, stream.rate_hz, original, decoded, groups, lost, damaged, *size)


def _check_channel(channel: int, channels: int) -> None:
    if not 0 <= channel < channels:
        raise UsageError("channel", found=channel, wanted=f"0 to {channels - 1}")


def _open(stream: StreamDecoder, packet: Packet | None, frames: int, held: packets.Group | StreamError) -> Group:
    model, size_bytes = stream.model, len(pack_packet(packet)) if packet else 0
    if isinstance(held, StreamError) or held.symbols is None:
        bits, latents = (np.zeros((frames, n), np.float32) for n in (model.quantiser.columns, model.config.latent_dims))
        return Group(None, np.nan, size_bytes, bits, bits[:, 0], latents)
    bits = stream.coder.costs(held.symbols, held.level)
    fine = stream.coder.fine_costs(held.fine, frames)
    latents = model.quantiser.latents(held.symbols, held.level)
    return Group(held.level, (held.code - GAIN_ZERO) * GAIN_STEP_DB, size_bytes, bits, fine, latents)


def _facts(codec: Codec, contents: Contents, duration_s: float, groups: list[Group], damaged: bool) -> dict[str, str]:
    header, levels = contents.header, [group.level for group in groups if group.level is not None]
    fine = sum(float(group.fine_bits.sum()) for group in groups) / 8
    paid = sum(float(group.bits.sum()) for group in groups) / 8 + fine
    silent = sum(group.level is None and group.size_bytes > 0 for group in groups)
    state = "cut short" if contents.truncated else "damaged" if damaged else "whole"
    return {
        "model": f"{codec.bundle.name} ({header.fingerprint.hex()})",
        "sound": f"{duration_s:.2f} s, {header.rate_hz} Hz, {header.channels} channel(s)",
        "file": f"{contents.size_bytes} bytes, {kbps(contents.size_bytes, duration_s):.2f} kb/s, {state}",
        "this channel": f"{kbps(paid, duration_s):.2f} kb/s by the tables, "
        f"{kbps(sum(group.size_bytes for group in groups), duration_s):.2f} kb/s in packets",
        **({"refinement": f"{kbps(fine, duration_s):.2f} kb/s of these"} if fine else {}),
        "groups": f"{len(groups)}, levels {min(levels)} to {max(levels)}" if levels else f"{len(groups)}, silent",
        "groups without bits of their own": f"{silent}" if silent else "none",
    }


def picture(seen: Seen) -> bytes:
    """A PNG file of all there is to see. Raises NacreError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        advice = "pip install 'nacre[plot]'"
        raise NacreError("package matplotlib", found="not installed", wanted="for pictures", next=advice) from error

    shows = [_wave, *([_spectrum_before] if seen.original is not None else []), _spectrum_after]
    shows += [_frame_bits, _column_bits, _latents, _levels]
    heights = {_wave: 0.8, _frame_bits: 1.1, _levels: 0.8}
    ratios = [heights.get(show, 1.6) for show in shows]
    layout = ConstrainedLayoutEngine(w_pad=PAD_INCHES, h_pad=PAD_INCHES, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=(WIDTH_INCHES, 1.0 + 1.15 * sum(ratios)), dpi=DPI, layout=layout)
    rows = figure.subplots(len(shows), 2, squeeze=False, width_ratios=[1, 0.085], height_ratios=ratios)
    for row, show in enumerate(shows):
        main, side = rows[row]
        side.axis("off")
        show(seen, main, side)
        main.set_xlim(0, max([seen.duration_s, seen.frame_s, *(stop_s for _, stop_s in seen.lost)]))
        main.tick_params(labelsize=8, labelbottom=row == len(shows) - 1)
        for start_s, stop_s in seen.lost:
            main.axvspan(start_s, stop_s, facecolor=WARN, alpha=0.45, edgecolor=INK, linewidth=0, zorder=4)
    rows[-1, 0].set_xlabel("seconds")
    for start_s, stop_s in seen.lost[:20]:
        rows[0, 0].text((start_s + stop_s) / 2, 1.02, "lost", ha="center", transform=_across(rows[0, 0]), fontsize=8)
    figure.suptitle(f"{seen.name}: {seen.facts['file']}", x=0.01, ha="left", color=INK)
    return _png(figure)


def page(seen: Seen) -> str:
    """One HTML file: facts, players, the picture. Needs no network."""
    sounds = {"as decoded": seen.decoded} | ({} if seen.original is None else {"original": seen.original})
    players = "".join(
        f"<div>{label}<audio controls preload='none' src='{sound_uri(wave[None], seen.rate_hz)}'></audio></div>"
        for label, wave in reversed(sounds.items())
        if 0 < len(wave) <= MOST_PLAYER_S * seen.rate_hz
    )
    facts = dict(seen.facts)
    if seen.lost:
        facts["lost"] = ", ".join(f"{clock(start_s)} to {clock(stop_s)}" for start_s, stop_s in seen.lost)
    return PAGE.format(
        name=escape(seen.name),
        style=style(),
        facts="".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items()),
        players=players,
        picture=data_uri("image/png", picture(seen)),
        spoken=escape(f"Waveform, spectrogram, bits, latents and levels of {seen.name}"),
        notes=NOTES,
        one_player=ONE_PLAYER,
    )


def write(seen: Seen, target: str, overwrite: bool = False) -> None:
    """The picture to a .png, the page to a .html, whole or not at all; raises UsageError for another suffix."""
    suffix = check_target(target)
    data = page(seen).encode() if suffix == ".html" else picture(seen)
    with audio.output_file(target, overwrite) as file:
        file.write(data)


def check_target(target: str) -> str:
    """Its suffix; raises UsageError for one that cannot be written."""
    suffix = Path(target).suffix.lower()
    if suffix not in (".png", ".html"):
        raise UsageError(f"{target}: suffix", found=suffix or "none", wanted=".png or .html", next="rename it")
    return suffix


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _across(axes: Axes) -> Any:
    """Seconds along, share of the height up."""
    return axes.get_xaxis_transform()


def _wave(seen: Seen, main: Axes, side: Axes) -> None:
    waves = [(seen.decoded, MARK, "decoded")]
    if seen.original is not None:
        waves.insert(0, (seen.original, SOFT, "original"))
    for wave, colour, label in waves:
        if not len(wave):
            continue
        columns = min(MOST_COLUMNS, len(wave))
        starts = np.arange(columns) * len(wave) // columns
        times_s = starts / seen.rate_hz
        low, high = np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts)
        main.fill_between(times_s, low, high, color=colour, linewidth=0.3, alpha=0.75, label=label)
    main.set_ylabel("wave", fontsize=9)
    _legend(main, side)


def _spectrum_before(seen: Seen, main: Axes, side: Axes) -> None:
    assert seen.original is not None
    _spectrum(seen, seen.original, "original, kHz", main, side)


def _spectrum_after(seen: Seen, main: Axes, side: Axes) -> None:
    _spectrum(seen, seen.decoded, "decoded, kHz", main, side)


def _spectrum(seen: Seen, wave: Array, label: str, main: Axes, side: Axes) -> None:
    reference = seen.decoded if seen.original is None else seen.original
    loudest_db = max(float(spectrum_db(reference).max()), -60.0)
    extent = (0.0, len(wave) / seen.rate_hz, 0.0, seen.rate_hz / 2000)
    colours = _colours(palette(shades=256))
    image = main.imshow(
        spectrum_db(wave, 1200) - loudest_db,
        aspect="auto",
        extent=extent,
        cmap=colours,
        vmin=-RANGE_DB,
        vmax=0,
    )
    main.set_ylabel(label, fontsize=9)
    _bar(image, side, "dB")


def _frame_bits(seen: Seen, main: Axes, side: Axes) -> None:
    bits = seen.bits.sum(1) + seen.fine_bits  # [T]
    means, edges_s = _averaged(np.stack([bits, seen.fine_bits], 1), seen.frame_s)
    main.stairs(means[:, 0], edges_s, fill=True, color=MARK, alpha=0.75)
    if means[:, 1].any():
        main.stairs(means[:, 1], edges_s, fill=True, color=SOFT, label="refinement")
        main.legend(loc="upper right", fontsize=8, frameon=False)
    main.axhline(bits.mean(), color=INK, linewidth=0.8, linestyle="--")
    main.set_ylabel("bits a frame", fontsize=9)
    main.set_ylim(0, max(1.0, float(means.max()) * 1.05))
    note = f"mean {bits.mean():.0f} bits\n{bits.mean() / seen.frame_s / 1000:.2f} kb/s\nmost {bits.max():.0f} bits"
    side.text(0, 0.5, note, va="center", fontsize=8, color=INK, transform=side.transAxes)


def _column_bits(seen: Seen, main: Axes, side: Axes) -> None:
    order = _order(seen)
    means, edges_s = _averaged(seen.bits[:, order], seen.frame_s)
    colours = _colours(palette("ffffff f3d3e4 d987b5 96336f 3c0f33", 256))
    shown = means.T
    main.imshow(
        shown,
        aspect="auto",
        extent=(0.0, edges_s[-1], len(shown), 0.0),
        cmap=colours,
        vmin=0,
        vmax=max(1.0, float(np.percentile(shown, 99.5))),
        interpolation="nearest",
    )
    main.set_ylabel("bits by dimension", fontsize=9)
    mean = seen.bits.mean(0)[order]
    side.axis("on")
    side.barh(np.arange(len(mean)) + 0.5, mean, height=1.0, color=MARK, alpha=0.75)
    side.set_ylim(len(mean), 0)
    side.set_yticks([])
    side.tick_params(labelsize=7)
    side.set_title("mean bits", fontsize=8)
    side.spines[["top", "right"]].set_visible(False)


def _latents(seen: Seen, main: Axes, side: Axes) -> None:
    latents = seen.latents
    order = _order(seen) if latents.shape[1] == seen.bits.shape[1] else np.arange(latents.shape[1])
    means, edges_s = _averaged(latents[:, order], seen.frame_s)
    limit = max(1e-6, float(np.percentile(np.abs(means), 99)))
    image = main.imshow(
        means.T,
        aspect="auto",
        extent=(0.0, edges_s[-1], means.shape[1], 0.0),
        cmap=_colours(palette(DIVERGING, 255)),
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
    )
    main.set_ylabel("latents", fontsize=9)
    _bar(image, side, "")


def _levels(seen: Seen, main: Axes, side: Axes) -> None:
    levels = np.array([np.nan if group.level is None else group.level for group in seen.groups])
    edges_s = np.arange(len(levels) + 1) * seen.group_s
    main.stairs(levels, edges_s, color=MARK, linewidth=2.5, baseline=None)
    main.set_ylim(-0.8, seen.levels - 0.2)
    main.set_yticks(np.unique([0, seen.levels // 3, 2 * seen.levels // 3, seen.levels - 1]))
    main.set_ylabel("quality level", fontsize=9, color=MARK)
    main.grid(axis="y", color=SOFT, alpha=0.3, linewidth=0.6)
    if len(levels) <= MOST_NOTES:
        for index, group in enumerate(seen.groups):
            place = (index + 0.5) * seen.group_s, 0.05
            if group.size_bytes and place[0] < seen.duration_s:
                note = f"{group.size_bytes} B"
                main.text(*place, note, ha="center", fontsize=7.5, transform=_across(main))
    gains = main.twinx()
    gains.stairs([group.gain_db for group in seen.groups], edges_s, color=BLUE, linewidth=1.2, baseline=None)
    gains.set_ylim(-40, 60)
    gains.set_yticks([-30, 0, 30])
    gains.tick_params(labelsize=8, colors=BLUE)
    side.text(0.12, 0.5, "gain, dB", va="center", fontsize=9, color=BLUE, transform=side.transAxes)


def _order(seen: Seen) -> Array:
    """Dimensions by what they cost, dearest first."""
    return np.argsort(-seen.bits.mean(0), kind="stable")


def _averaged(frames: Array, frame_s: float) -> tuple[Array, Array]:
    """Frames [T, F] as at most MOST_COLUMNS means [M, F], and the edges of their times in seconds [M + 1]."""
    columns = min(MOST_COLUMNS, len(frames))
    edges = np.arange(columns + 1) * len(frames) // columns
    sums = np.add.reduceat(frames.astype(np.float64), edges[:-1], axis=0)
    return sums / np.diff(edges)[:, None], edges * frame_s


def _colours(rows: Array) -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap(rows / 255)


def _bar(image: Any, side: Axes, label: str) -> None:
    bar = image.figure.colorbar(image, cax=side.inset_axes((0.0, 0.03, 0.16, 0.85)))
    bar.ax.yaxis.set_ticks_position("right")
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    bar.ax.set_title(label, fontsize=8)


def _legend(main: Axes, side: Axes) -> None:
    handles, labels = main.get_legend_handles_labels()
    side.legend(handles, labels, loc="center left", frameon=False, fontsize=8)
