"""All there is to see of a file as one PNG. Needs matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from nacre.core.errors import NacreError
from nacre.core.types import Array
from nacre.tools.html import RANGE_DB, palette, spectrum_db
from nacre.tools.inspect.seen import MOST_COLUMNS, Seen, averaged, order_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, ACCENT, BLUE, WARN = "#221f26", "#a59fac", "#96336f", "#3a6ea8", "#e8a33d"
DIVERGING = "10457f 4a86c5 b3d0ea f7f5f3 efbb9b cf6242 7f1526"
PAD_INCHES = 0.03
MOST_NOTES = 16  # groups whose bytes are written out
WIDTH_INCHES, DPI = 13.0, 110


def picture(seen: Seen) -> bytes:
    """A PNG file of all there is to see. Raises NacreError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        lacks = "pictures need the package matplotlib, which is not installed"
        raise NacreError(f"{lacks}; run pip install 'nacre[plot]'") from error

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
    figure.suptitle(f"{seen.name}: {seen.metadata['file']}", x=0.01, ha="left", color=INK)
    return _png(figure)


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
    waves = [(seen.decoded, ACCENT, "decoded")]
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
    bits = seen.bits.sum(1) + seen.layer_bits  # [T]
    means, edges_s = averaged(np.stack([bits, seen.layer_bits], 1), seen.frame_s)
    main.stairs(means[:, 0], edges_s, fill=True, color=ACCENT, alpha=0.75)
    if means[:, 1].any():
        main.stairs(means[:, 1], edges_s, fill=True, color=SOFT, label="layers on top")
        main.legend(loc="upper right", fontsize=8, frameon=False)
    main.axhline(bits.mean(), color=INK, linewidth=0.8, linestyle="--")
    main.set_ylabel("bits a frame", fontsize=9)
    main.set_ylim(0, max(1.0, float(means.max()) * 1.05))
    note = f"mean {bits.mean():.0f} bits\n{bits.mean() / seen.frame_s / 1000:.2f} kb/s\nmost {bits.max():.0f} bits"
    side.text(0, 0.5, note, va="center", fontsize=8, color=INK, transform=side.transAxes)


def _column_bits(seen: Seen, main: Axes, side: Axes) -> None:
    order = order_of(seen)
    means, edges_s = averaged(seen.bits[:, order], seen.frame_s)
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
    side.barh(np.arange(len(mean)) + 0.5, mean, height=1.0, color=ACCENT, alpha=0.75)
    side.set_ylim(len(mean), 0)
    side.set_yticks([])
    side.tick_params(labelsize=7)
    side.set_title("mean bits", fontsize=8)
    side.spines[["top", "right"]].set_visible(False)


def _latents(seen: Seen, main: Axes, side: Axes) -> None:
    latents = seen.latents
    order = order_of(seen) if latents.shape[1] == seen.bits.shape[1] else np.arange(latents.shape[1])
    means, edges_s = averaged(latents[:, order], seen.frame_s)
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
    main.stairs(levels, edges_s, color=ACCENT, linewidth=2.5, baseline=None)
    main.set_ylim(-0.8, seen.levels - 0.2)
    main.set_yticks(np.unique([0, seen.levels // 3, 2 * seen.levels // 3, seen.levels - 1]))
    main.set_ylabel("quality level", fontsize=9, color=ACCENT)
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
