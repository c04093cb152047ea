"""Quality over time: a dated row for each rate of nacre, from the JSON of `nacre evaluate --json`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import typer

HISTORY = Path(__file__).with_name("history.csv")
METRICS = ("pesq_wb", "stoi", "estoi", "si_sdr_db", "logmel_db", "f0_cents", "voicing_percent")
HEAD = ("date", "model", "fingerprint", "clips", "asked_kbps", "kbps", *METRICS, "encode_x", "decode_x")


def main(
    results: Annotated[Path, typer.Argument(help="JSON of nacre evaluate")],
    history: Annotated[Path, typer.Option(help="table to add to")] = HISTORY,
) -> None:
    """Add the rows of one evaluation to the history."""
    found = json.loads(results.read_text())
    rows = [row(point, found["facts"]) for point in found["points"] if point["system"].startswith("nacre")]
    new = not history.exists()
    with history.open("a", newline="") as file:
        writer = csv.DictWriter(file, HEAD, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
    print(f"{history}: {len(rows)} rows added")


def row(point: dict, facts: dict[str, str]) -> dict[str, object]:
    """One rate of one model."""
    model = point["system"].removeprefix("nacre ")
    figures = {name: f"{point['metrics'][name]['mean']:.4f}" for name in METRICS if name in point["metrics"]}
    speeds = {name: f"{point[name]:.0f}" for name in ("encode_x", "decode_x")}
    return {
        "date": facts["date"].split()[0],
        "model": model,
        "fingerprint": facts[f"model {model}"].split(",")[0].removeprefix("fingerprint "),
        "clips": point["clips"],
        "asked_kbps": f"{point['target_kbps']:g}",
        "kbps": f"{point['rate_kbps']:.3f}",
        **figures,
        **speeds,
    }


if __name__ == "__main__":
    typer.run(main)
