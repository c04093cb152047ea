"""How much a linear model finds in the features: keywords, speakers, a keyword in another corpus. Needs scikit-learn.

Runs on the corpus of the project (manifest.csv, train/, valid/). Sound is taken as it is and as decoded from files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ, wide_console, workers
from rich.progress import track
from rich.table import Table

KEYWORDS = ("computer", "jarvis", "smart mirror", "snowboy", "view glass")  # alexa is from another collection
OTHER_WORDS = ("computer", "Athena", "Amelia", "Hey, Chatterbox")
PIECE_SAMPLES = RATE_HZ  # of a speaker's utterance
VOICES = 60  # clusters of background noise that stand in for the unnamed speakers
FOLDS = 5
STRENGTH = 0.01  # C of logistic regression, one for all features; chosen on these tasks, 0.1 does about as well
RESAMPLES = 2000


@dataclass
class Item:
    """A clip or piece: its label, what it must not be parted from, its features by `Column.key` and pool."""

    label: str
    group: str
    rows: dict[tuple[str, str, str], np.ndarray]
    floor: np.ndarray


@dataclass(frozen=True)
class Column:
    """One column of features: the sound they are of, their kind, and the rate whose quality level they are for."""

    sound: str
    kind: str
    level: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.sound, self.kind, self.level


def columns(rates: list[str]) -> list[Column]:
    plain = [Column(sound, kind) for sound in ("original", *rates) for kind in ("mfcc", "logmel", "latent")]
    return plain + [Column("original", kind, rate) for rate in rates for kind in ("latent", "tokens")]


def ways(column: Column, pools: list[str]) -> list[str]:
    """The first pool for all, the others for the usual features of original sound only."""
    return pools if (column.sound, column.level) == ("original", "") else pools[:1]


def corpus(data: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of the manifest for each task."""
    with open(data / "manifest.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    readings: dict[str, int] = {}
    for row in rows:
        readings[row["speaker"]] = readings.get(row["speaker"], 0) + (row["source"] == "librispeech")
    return {
        "keywords": [row for row in rows if row["source"] == "picovoice_wakeword" and row["text"] in KEYWORDS],
        "other": [row for row in rows if row["source"] == "mycroft_precise" and row["text"] in OTHER_WORDS],
        "speakers": [row for row in rows if row["source"] == "librispeech" and readings[row["speaker"]] >= 10],
    }


def features_of(job: tuple[str, Path, dict[str, str], str, list[str], list[str]]) -> list[Item]:
    """The items of one recording."""
    from nacre.dsp import mel
    from nacre.io import audio
    from nacre.tools import features

    task, data, row, model, rates, pools = job
    codec = features._codec(model)
    wave = audio.read(data / row["path"])[0][0]  # the corpus is 16 kHz mono
    sounds = {"original": wave}
    for rate in rates:
        sounds[rate] = codec.decode(codec.encode(wave, RATE_HZ, bitrate_kbps=float(rate)))[0][0]
    levels = {rate: codec.rate_plan(1, float(rate), None).level for rate in rates} | {"": None}
    starts = range(0, len(wave) - PIECE_SAMPLES + 1, PIECE_SAMPLES) if task == "speakers" else [0]
    size = PIECE_SAMPLES if task == "speakers" else len(wave)
    items = []
    for start in starts:
        values = {}
        for column in columns(rates):
            piece = sounds[column.sound][start : start + size]
            frames = features.extract(piece, RATE_HZ, column.kind, model=model, level=levels[column.level])
            for pool in ways(column, pools):
                values[(*column.key, pool)] = features.pooled(frames, pool)
        floor = np.percentile(mel.log_mel(wave, range_db=None), 10, axis=0)
        items.append(Item(row["text"] if task != "speakers" else row["speaker"], row["path"], values, floor))
    return items


def voices(items: list[Item]) -> None:
    """Group keyword clips by the noise behind the voice, which depends on room and microphone, not on words."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.decomposition import PCA

    floors = PCA(12, whiten=True, random_state=0).fit_transform(np.stack([item.floor for item in items]))
    for item, cluster in zip(items, AgglomerativeClustering(VOICES).fit_predict(floors), strict=True):
        item.group = str(cluster)


def linear():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000))


def by_folds(items: list[Item], key: tuple[str, ...]) -> np.ndarray:
    """Right or wrong, of each item, by a model that has seen nothing of its group, [n] bool."""
    from sklearn.model_selection import GroupKFold, cross_val_predict

    rows, labels = np.stack([item.rows[key] for item in items]), np.array([item.label for item in items])
    groups = [item.group for item in items]
    return cross_val_predict(linear(), rows, labels, groups=groups, cv=GroupKFold(FOLDS)) == labels


def elsewhere(items: list[Item], others: list[Item], key: tuple[str, ...]) -> np.ndarray:
    """Scores for "computer" of clips of another corpus, [n] float."""
    model = linear().fit(np.stack([item.rows[key] for item in items]), [item.label == "computer" for item in items])
    return model.decision_function(np.stack([item.rows[key] for item in others]))


def area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Share of pairs, one positive and one not, that the scores put in the right order."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores))


def interval(values: Iterator[float]) -> str:
    low, high = np.percentile([value for value in values if np.isfinite(value)], [2.5, 97.5])
    return f"{low:.3f}-{high:.3f}"


def accuracy(right: np.ndarray, items: list[Item], key: tuple[str, ...]) -> dict[str, str]:
    """Mean, and its bootstrap interval over groups."""
    groups = sorted({item.group for item in items})
    sums = np.array([[sum(part), len(part)] for part in (right[[i.group == g for i in items]] for g in groups)], float)
    random = np.random.default_rng(0)
    draws = (sums[random.integers(0, len(sums), len(sums))].sum(0) for _ in range(RESAMPLES))
    return {"value": f"{right.mean():.3f}", "interval": interval(hit / count for hit, count in draws)}


def ordering(scores: np.ndarray, others: list[Item]) -> dict[str, str]:
    """Area under the curve, and its bootstrap interval over clips of either kind."""
    positive = np.array([item.label == "computer" for item in others])
    yes, no = np.flatnonzero(positive), np.flatnonzero(~positive)
    random = np.random.default_rng(0)
    draws = (np.concatenate([random.choice(part, len(part)) for part in (yes, no)]) for _ in range(RESAMPLES // 4))
    value = area(scores, positive)
    return {"value": f"{value:.3f}", "interval": interval(area(scores[at], positive[at]) for at in draws)}


def main(
    data: Annotated[Path, typer.Option(help="folder with manifest.csv, train and valid")],
    out: Annotated[Path, typer.Option(help="CSV of all figures")] = Path("probe.csv"),
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
    rates: Annotated[str, typer.Option(help="kb/s, with commas")] = "6,1.5",
    pools: Annotated[
        str, typer.Option(help="ways to pool; but for the first only on original sound")
    ] = "parts,stats,mean",
    jobs: Annotated[int, typer.Option(help="processes")] = 2,
    limit: Annotated[int, typer.Option(help="only so many recordings a task, for a quick look")] = 0,
) -> None:
    """Features of every clip, then logistic regression on them, one row of the table for each kind of features."""
    asked_rates, asked_pools = rates.split(","), pools.split(",")
    items: dict[str, list[Item]] = {}
    with workers(jobs) as pool:
        for task, rows in corpus(data).items():
            step = max(1, len(rows) // limit) if limit else 1
            work = [(task, data, row, model, asked_rates, asked_pools) for row in rows[::step]]
            done = track(pool.map(features_of, work, chunksize=4), task, total=len(work))
            items[task] = [item for part in done for item in part]
    voices(items["keywords"])
    lines = []
    for column in track(columns(asked_rates), "models"):
        for way in ways(column, asked_pools):
            key = (*column.key, way)
            line = {"sound": column.sound, "kind": column.kind, "level": column.level or "highest", "pool": way}
            for task in ("keywords", "speakers"):
                figures = accuracy(by_folds(items[task], key), items[task], key)
                line |= {task: figures["value"], f"{task}_interval": figures["interval"]}
            figures = ordering(elsewhere(items["keywords"], items["other"], key), items["other"])
            line |= {"elsewhere": figures["value"], "elsewhere_interval": figures["interval"]}
            lines.append(line)
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    counts = ", ".join(f"{task} {len(some)} ({len({i.group for i in some})} groups)" for task, some in items.items())
    table = Table(title=f"{model}: {counts}", caption="accuracy, accuracy, area under the ROC curve; 95 % intervals")
    for head in ("sound", "kind", "level", "pool", "keywords", "speakers", "elsewhere"):
        table.add_column(head)
    for line in lines:
        cells = [f"{line[task]} ({line[task + '_interval']})" for task in ("keywords", "speakers", "elsewhere")]
        table.add_row(line["sound"], line["kind"], line["level"], line["pool"], *cells)
    wide_console().print(table)


if __name__ == "__main__":
    typer.run(main)
