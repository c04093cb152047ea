"""Rate-distortion curves as one picture, from the JSON of `nacre evaluate --json`. Needs matplotlib."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def main(
    results: Annotated[Path, typer.Argument(help="JSON of nacre evaluate")],
    out: Annotated[Path, typer.Argument(help="picture, PNG or SVG")],
    metrics: Annotated[str, typer.Option(help="names with commas, one panel each")] = "pesq_wb,estoi",
    systems: Annotated[str, typer.Option(help="names with commas; all by default")] = "",
    most_kbps: Annotated[float, typer.Option(help="right end of the axis")] = 18,
) -> None:
    """Mean and 95 % interval over clips against the measured rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    run = json.loads(results.read_text())
    names = metrics.split(",")
    chosen = systems.split(",") if systems else sorted({point["system"] for point in run["points"]})
    figure, panels = pyplot.subplots(
        1, len(names), figsize=(5.5 * len(names), 4.5), layout="constrained", squeeze=False
    )
    for panel, name in zip(panels[0], names, strict=True):
        about = run["metrics"][name]
        for number, system in enumerate(chosen):
            line = [point for point in run["points"] if point["system"] == system and name in point["metrics"]]
            line.sort(key=lambda point: point["rate_kbps"])
            rates = [point["rate_kbps"] for point in line]
            means, lows, highs = ([point["metrics"][name][key] for point in line] for key in ("mean", "low", "high"))
            panel.plot(rates, means, "os^Dv"[number % 5] + "-", color=f"C{number}", label=system)
            panel.fill_between(rates, lows, highs, color=f"C{number}", alpha=0.2, linewidth=0)
        title = f"{about['title']}, {about['better']} is better"
        panel.set(
            xlabel="measured rate, kb/s", ylabel=about["unit"] or about["title"], title=title, xlim=(0, most_kbps)
        )
        panel.grid(alpha=0.3)
        panel.legend(loc="best")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    typer.run(main)
