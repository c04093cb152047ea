"""The training loop that all networks share: folders, steps, checkpoints, validation, Ctrl-C."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from lightning_fabric import Fabric

from nacre.core.errors import TrainError, reason
from nacre.train.log import Log
from nacre.train.processes import any_of, start, together
from nacre.train.recordings import Corpus, Given, load_corpus
from nacre.train.run import CHECKPOINT, Run
from nacre.train.trainer import Trainer

AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass(frozen=True)
class Sounds:
    """Recordings, noises and recordings to validate on, as far as there are folders of them."""

    speech: Corpus
    noise: Corpus | None
    valid: Corpus | None

    @classmethod
    def load(
        cls,
        given: tuple[Given | None, ...],
        out: Path,
        rate_hz: int,
        fabric: Fabric,
        quiet: bool,
        range_db: float = 0.0,
    ) -> Sounds:
        """Decode recordings into `out`, where all processes see it; the first process does it for all.

        Speech whose noise lies less than `range_db` below it is skipped. Raises TrainError for a folder that is none,
        or that has no sound.
        """
        kinds = ("corpus", range_db), ("noise", 0.0), ("valid", range_db)
        with fabric.rank_zero_first():
            speech, noise, valid = (
                load_corpus(data, out / name, rate_hz, quiet or not fabric.is_global_zero, least_db) if data else None
                for data, (name, least_db) in zip(given, kinds, strict=True)
            )
        assert speech is not None
        if fabric.is_global_zero:
            report_skipped([corpus for corpus in (speech, noise, valid) if corpus], out / "skipped.txt", quiet)
        return cls(speech, noise, valid)


def open_run(
    given: tuple[Given | None, ...],
    out: Path,
    rate_hz: int,
    new: Callable[[torch.device], AnyRun],
    resume: bool,
    quiet: bool,
    processes: int,
    range_db: float = 0.0,
) -> tuple[AnyRun, Sounds, Fabric]:
    """The run in the folder `out`, a new one or that of its checkpoint, with sounds of speech, noise and validation.

    Speech whose noise lies less than `range_db` below it is skipped.

    Raises TrainError for a folder in use or sounds that are none; see also `processes.start`.
    """
    checkpoint = _claim(out, resume)
    fabric = start(processes)
    sounds = Sounds.load(given, out, rate_hz, fabric, quiet, range_db)
    run = new(fabric.device)
    if resume and checkpoint.exists():
        run.load(checkpoint)
    return run, sounds, fabric


def _claim(out: Path, resume: bool) -> Path:
    """The checkpoint of the run folder `out`, which is made. Raises TrainError where it is in use."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{out} cannot be made for the run: {reason(error)}; choose another") from error
    checkpoint = out / f"{CHECKPOINT}.safetensors"
    if checkpoint.exists() and not resume:
        raise TrainError(f"{out} holds a run that has begun; give a new folder, or go on with --resume")
    return checkpoint


def run_steps(trainer: Trainer, out: Path, max_steps: int | None, quiet: bool) -> None:
    """Train to the end of the recipe or to `max_steps`, with checkpoints in `out`.

    Raises KeyboardInterrupt after Ctrl-C, when all processes have finished the same step and it is saved.
    """
    run, recipe, fabric = trainer.run, trainer.recipe, trainer.fabric
    first, last = fabric.is_global_zero, min(recipe.steps, max_steps or recipe.steps)
    silent = quiet or not first
    if first:
        (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    with Log(out if first else None, trainer, last, silent) as log, interrupted() as stop, together(fabric):
        stopped = False
        while run.step < last and not stopped:
            log.add(trainer.step())
            if first and run.step % recipe.validate_steps == 0:
                log.note(*trainer.validate())
            if first and run.step % recipe.checkpoint_steps == 0:
                run.save(out)
            stopped = any_of(fabric, stop.is_set())
        if first:
            run.save(out)
    if stopped:
        if not silent:
            print(f"step {run.step} is saved, --resume goes on from it", flush=True)
        raise KeyboardInterrupt


def report_skipped(corpora: list[Corpus], path: Path, quiet: bool) -> None:
    """Say how many files could not be read; write which, and why, to `path`."""
    skipped = [line for corpus in corpora for line in corpus.skipped]
    path.unlink(missing_ok=True)
    if not skipped:
        return
    path.write_text("\n".join(skipped) + "\n", "utf-8")
    if not quiet:
        total = sum(corpus.files for corpus in corpora)
        print(f"{len(skipped)} of {total} files skipped, listed in {path}", flush=True)


@contextmanager
def interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step is finished and saved whole; a second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
