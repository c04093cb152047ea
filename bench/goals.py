"""The README's table of sound from the JSON of `nacre evaluate --json`, and which goals it reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

GOALS = {  # what a release is held to, by rate in kb/s
    1.5: {"distillmos": 3.1, "visqol": 2.9, "pesq_wb": 2.1, "estoi": 0.79},
    3: {"distillmos": 3.5, "visqol": 3.3, "pesq_wb": 2.8, "estoi": 0.87},
    6: {"distillmos": 3.75, "visqol": 3.75, "pesq_wb": 3.3, "estoi": 0.92},
    9: {"distillmos": 3.85, "visqol": 3.85, "pesq_wb": 3.6, "estoi": 0.935},
    16: {"distillmos": 3.9, "visqol": 4.0, "pesq_wb": 4.0, "estoi": 0.96},
}
TITLES = {"distillmos": "DistillMOS", "visqol": "ViSQOL", "pesq_wb": "PESQ-WB", "estoi": "ESTOI"}
PLACES = {"estoi": 3, "hiss_repeat": 2, "hiss_level_db": 1}
HISS = {"hiss_repeat": "hiss repeat", "hiss_level_db": "hiss level, dB"}


def shown(name: str, value: float) -> str:
    """A figure with as many places as it deserves, without a leading zero."""
    text = f"{value:.{PLACES.get(name, 2)}f}"
    return text if name == "hiss_level_db" else text.replace("0.", ".", 1) if abs(value) < 1 else text


def row(point: dict[str, Any]) -> str:
    """One line of the table."""
    figures, judged = point["metrics"], point["metrics"]["distillmos"]
    first = f"{judged['mean']:.2f} ({judged['low']:.2f}-{judged['high']:.2f})"
    rest = [shown(name, figures[name]["mean"]) for name in (*list(TITLES)[1:], *HISS) if name in figures]
    cells = [point["system"], f"{point['target_kbps']:g}", f"{point['rate_kbps']:.2f}", first, *rest]
    return "| " + " | ".join(cells) + " |"


def main(
    results: Annotated[Path, typer.Argument(help="JSON of nacre evaluate")],
    system: Annotated[str, typer.Option(help="Whose goals are counted.")] = "nacre",
) -> None:
    """Print the table of all systems, and the goals that one of them reaches and does not."""
    points = json.loads(results.read_text())["points"]
    points.sort(key=lambda point: (point["system"], point["target_kbps"]))
    names = ["codec", "target kb/s", "measured kb/s", *TITLES.values()]
    names += [title for name, title in HISS.items() if name in points[0]["metrics"]]
    print("| " + " | ".join(names) + " |\n|" + len(names) * "---|")
    print("\n".join(map(row, points)))
    ours = {point["target_kbps"]: point["metrics"] for point in points if point["system"].startswith(system)}
    pairs = [(kbps, name, goal) for kbps, goals in GOALS.items() for name, goal in goals.items() if kbps in ours]
    missed = [
        f"{TITLES[name]} at {kbps:g} kb/s ({shown(name, ours[kbps][name]['mean'])} for {shown(name, goal)})"
        for kbps, name, goal in pairs
        if ours[kbps][name]["mean"] < goal
    ]
    print(
        f"\n{len(pairs) - len(missed)} of {len(pairs)} goals are reached. Not reached: {'; '.join(missed) or 'none'}."
    )


if __name__ == "__main__":
    typer.run(main)
