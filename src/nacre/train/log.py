"""What a run tells: a progress line, lines in a log file, TensorBoard events."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nacre.core.units import clock
from nacre.train.run import Run
from nacre.train.validate import Validation


class Log:
    """Progress line and TensorBoard events of one process."""

    def __init__(self, out: Path | None, run: Run, last: int, quiet: bool, every: int = 20):
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.every, self.quiet = run, every, quiet
        self.writer = SummaryWriter(str(out / "events"), purge_step=run.step or None) if out else None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            disable=quiet,
        )
        self.task = self.bar.add_task("training", total=last, completed=run.step)
        self.sums: dict[str, list[float]] = {}
        self.count = 0
        self.mark = (time.perf_counter(), run.seconds_seen)

    def __enter__(self) -> Log:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.writer:
            self.writer.close()

    def note(self, figures: list[Validation]) -> None:
        """Show and log a validation."""
        for item in figures:
            if self.writer:
                self.writer.add_scalar(f"valid/kbps_level_{item.level}", item.kbps, self.run.step)
                self.writer.add_scalar(f"valid/distortion_level_{item.level}", item.distortion, self.run.step)
        pairs = "  ".join(f"{item.kbps:.2f} kb/s: {item.distortion:.3f}" for item in figures)
        if not self.quiet:
            text = f"step {self.run.step}, validation distortion at  {pairs}"
            self.bar.console.print(text, highlight=False, soft_wrap=True)

    def add(self, figures: dict[str, float]) -> None:
        """Take the figures of one step; show their mean every few steps."""
        for name, value in figures.items():  # some there are in some stages only
            self.sums.setdefault(name, []).append(value)
        self.count += 1
        self.bar.update(self.task, completed=self.run.step)
        if self.count < self.every:
            return
        now = time.perf_counter()
        mean = {name: sum(values) / len(values) for name, values in self.sums.items()}
        mean["audio_s_per_s"] = (self.run.seconds_seen - self.mark[1]) / (now - self.mark[0])
        self.sums, self.count, self.mark = {}, 0, (now, self.run.seconds_seen)
        if self.writer:
            for name, value in mean.items():
                self.writer.add_scalar(name, value, self.run.step)
            weights = self.run.control.weight(torch.arange(len(self.run.control.targets)))
            self.writer.add_histogram("rate_weight", weights, self.run.step)
        text = f"distortion {mean['distortion']:.3f}  bits/frame {mean['bits']:.0f}  {mean['audio_s_per_s']:.0f} x"
        if "codebook/mean_use" in mean:
            text += f"  codebooks {mean['codebook/mean_use']:.0%} used, {mean['codebook/dead']:.0%} dead"
        self.bar.update(self.task, description=text)
        if not self.quiet and not self.bar.console.is_terminal and self.run.step % (5 * self.every) == 0:
            parts = " ".join(f"{k} {v:.3f}" for k, v in mean.items())
            print(f"{clock(self.run.seconds_seen)} seen, step {self.run.step}: {parts}", flush=True)
