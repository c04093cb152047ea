"""Learning curves of a run as a picture: validation distortion at a few rates over seconds of sound seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def main(
    run: Annotated[Path, typer.Argument(help="folder of a run of nacre train")],
    out: Annotated[Path, typer.Argument(help="picture, PNG or SVG")],
) -> None:
    """Read the TensorBoard events of the run. Needs nacre[train] and matplotlib."""
    import matplotlib
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    matplotlib.use("Agg")
    from matplotlib import pyplot

    events = EventAccumulator(str(run / "events"))
    events.Reload()
    levels = sorted(int(tag.rsplit("_", 1)[1]) for tag in events.Tags()["scalars"] if "distortion_level" in tag)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for level in levels:
        rates = events.Scalars(f"valid/kbps_level_{level}")
        points = events.Scalars(f"valid/distortion_level_{level}")
        label = f"{rates[-1].value:.1f} kb/s"
        left.plot([point.step for point in points], [point.value for point in points], "o-", label=label)
        right.plot([rate.step for rate in rates], [rate.value for rate in rates], "o-", label=f"level {level}")
    left.set(title="validation distortion", xlabel="step")
    right.set(title="rate by static tables, kb/s", xlabel="step")
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    typer.run(main)
