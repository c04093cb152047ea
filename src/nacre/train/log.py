"""What a run tells: a progress line, lines in a log file, TensorBoard events."""

from __future__ import annotations

import time
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nacre.core.units import clock
from nacre.train.trainer import Trainer


class Log:
    """Progress line and TensorBoard events of one process."""

    def __init__(self, out: Path | None, trainer: Trainer, last: int, quiet: bool, every: int = 20):
        from torch.utils.tensorboard import SummaryWriter

        self.trainer, self.every, self.quiet, begun = trainer, every, quiet, trainer.run.step
        self.writer = SummaryWriter(str(out / "events"), purge_step=begun or None) if out else None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            disable=quiet,
        )
        self.task = self.bar.add_task("training", total=last, completed=begun)
        self.sums: dict[str, list[float]] = {}
        self.count = 0
        self.since = (time.perf_counter(), trainer.run.seconds_seen)

    def __enter__(self) -> Log:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.writer:
            self.writer.close()

    def note(self, text: str, figures: dict[str, float]) -> None:
        """Show and log a validation."""
        if self.writer:
            for name, value in figures.items():
                self.writer.add_scalar(f"valid/{name}", value, self.trainer.run.step)
        if not self.quiet:
            self.bar.console.print(f"step {self.trainer.run.step}, {text}", highlight=False, soft_wrap=True)

    def add(self, figures: dict[str, float]) -> None:
        """Take the figures of one step; show their mean every few steps."""
        for name, value in figures.items():  # some there are in some stages only
            self.sums.setdefault(name, []).append(value)
        self.count += 1
        self.bar.update(self.task, completed=self.trainer.run.step)
        if self.count < self.every:
            return
        now, step = time.perf_counter(), self.trainer.run.step
        mean = {name: sum(values) / len(values) for name, values in self.sums.items()}
        seen_s = self.trainer.run.seconds_seen
        mean["audio_s_per_s"] = (seen_s - self.since[1]) / (now - self.since[0])
        self.sums, self.count, self.since = {}, 0, (now, seen_s)
        if self.writer:
            for name, value in mean.items():
                self.writer.add_scalar(name, value, step)
            for name, values in self.trainer.histograms().items():
                self.writer.add_histogram(name, values, step)
        self.bar.update(self.task, description=self.trainer.headline(mean))
        if not self.quiet and not self.bar.console.is_terminal and step % (5 * self.every) == 0:
            parts = " ".join(f"{k} {v:.3f}" for k, v in mean.items())
            print(f"{clock(seen_s)} seen, step {step}: {parts}", flush=True)
