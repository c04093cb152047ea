"""Quality over time: a dated row for each rate of nacre, from the JSON of `nacre evaluate --json`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import typer

HISTORY = Path(__file__).with_name("history.csv")
METRICS = ("pesq_wb", "stoi", "estoi", "si_sdr_db", "logmel_db", "f0_cents", "voicing_percent", "dnsmos", "wer")
SPEEDS = ("encode_x", "decode_x")
MEMORY = ("encode_mb", "decode_mb")  # of the programs on the longest clip
HEAD = ("date", "model", "fingerprint", "clips", "asked_kbps", "kbps", *METRICS, *SPEEDS, *MEMORY)


def main(
    results: Annotated[Path, typer.Argument(help="JSON of nacre evaluate")],
    history: Annotated[Path, typer.Option(help="table to add to")] = HISTORY,
) -> None:
    """Add the rows of one evaluation to the history; rows of before get the columns that they lack, empty."""
    run = json.loads(results.read_text())
    rows = [row(point, run) for point in run["points"] if point["system"].startswith("nacre")]
    before: list[dict[str, str]] = []
    if history.exists():
        with history.open(newline="") as file:
            before = list(csv.DictReader(file))
    if unknown := sorted({name for old in before for name in old} - set(HEAD)):
        raise SystemExit(f"{history} has a column {unknown[0]}; the known ones are {', '.join(HEAD)}")
    with history.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEAD, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*before, *rows])
    print(f"{history}: {len(rows)} rows added")


def row(point: dict, run: dict) -> dict[str, object]:
    """One rate of one model."""
    facts = run["facts"]
    model = point["system"].removeprefix("nacre ")
    figures = {name: f"{point['metrics'][name]['mean']:.4f}" for name in METRICS if name in point["metrics"]}
    speeds = {name: f"{point[name]:.0f}" for name in SPEEDS}
    peaks = [peak for peak in run["memory"] if peak["system"] == point["system"]]
    memory = {name: f"{peak[name]:.0f}" for peak in peaks for name in MEMORY}
    return {
        "date": facts["date"].split()[0],
        "model": model,
        "fingerprint": facts[f"model {model}"].split(",")[0].removeprefix("fingerprint "),
        "clips": point["clips"],
        "asked_kbps": f"{point['target_kbps']:g}",
        "kbps": f"{point['rate_kbps']:.3f}",
        **figures,
        **speeds,
        **memory,
    }


if __name__ == "__main__":
    typer.run(main)
