"""Quality over the loss of a line, drawn: calls with copies of earlier frames and without. Needs matplotlib."""

from __future__ import annotations

from dataclasses import replace

from nacre.audio import resampled
from nacre.codec.codec import Codec
from nacre.codec.live import LiveSettings
from nacre.core.types import Array
from nacre.evaluate.measures import RATE_HZ
from nacre.evaluate.metrics import METRICS, available, pieces, require, score
from nacre.io.files import Name, output_file
from nacre.line import Line, call

LOSSES = (0.0, 0.05, 0.1, 0.2, 0.3)
WAYS = {"with copies": True, "without": False}
DEPTH_MS = 80.0  # long enough for copies
SHOWN = ("pesq_wb", "estoi")


def draw(
    codec: Codec, wave: Array, rate_hz: int, settings: LiveSettings, line: Line, target: Name, force: bool
) -> None:
    """A PNG of quality over loss for wave [N]. Raises NacreError where a package is missing."""
    require(["matplotlib"])
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = available(SHOWN, [])
    figure = Figure(figsize=(4.2 * len(names), 3.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    with output_file(target, force) as file:
        for way, redundant in WAYS.items():
            rows = [scores(codec, wave, rate_hz, replace(settings, redundant=redundant), line, at) for at in LOSSES]
            for panel, name in zip(panels, names, strict=True):
                panel.plot([100 * at for at in LOSSES], [row.get(name) for row in rows], marker="o", label=way)
        for panel, name in zip(panels, names, strict=True):
            panel.set(xlabel="packets lost, %", ylabel=METRICS[name].label)
            panel.grid(alpha=0.3)
            panel.legend()
        figure.suptitle(f"{settings.bitrate_kbps:g} kb/s, bursts of {line.burst:g}", fontsize=10)
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png")


def scores(
    codec: Codec, wave: Array, rate_hz: int, settings: LiveSettings, line: Line, loss: float
) -> dict[str, float]:
    """Figures of one call at a loss, for which the sender is ready."""
    burst = line.burst if loss else 1.0
    found = call(codec, wave, rate_hz, replace(settings, loss=loss), replace(line, loss=loss, burst=burst), DEPTH_MS)
    before, after = (resampled(sound, rate_hz, RATE_HZ) for sound in (wave, found.wave))
    figures, _ = score(pieces(before), after, available(SHOWN, []))
    return figures
