"""One page about a run: words, curves, tables, sound and a blind listening test, all in a single HTML file.

rows -> stats -> sentences, curves, cells -> report.html with report.css and report.js inside -> one file
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from nacre.evaluate import charts, listening, stats, words
from nacre.evaluate.listening import Example, Picture, Sounds
from nacre.evaluate.metrics import METRICS, Metric
from nacre.evaluate.results import Run, Score
from nacre.evaluate.stats import BdRate, Interval, Point, is_nacre
from nacre.evaluate.words import Cell, Grid, figure, percent, span
from nacre.io import audio
from nacre.tools.html import ONE_PLAYER, RANGE_DB, ROWS, style

LIMIT_BYTES = 14_500_000  # of the page; examples that do not fit are left out, and it says so
SCRIPT_BYTES = 20_000  # of the blind test, which comes with the first example
WORST = 3  # clips for each metric


def write_page(run: Run, sounds: Sounds, path: Path) -> None:
    """Write the page about `run`; `sounds` are the waves [N] of its examples, by (clip, system, target kb/s).

    The original has system "original" and target 0. Raises AudioError where `path` cannot be written.
    """
    text = render(run, sounds, LIMIT_BYTES).encode()
    with audio.output_file(path, overwrite=True) as file:
        file.write(text)


def render(run: Run, sounds: Sounds, limit_bytes: int) -> str:
    """The page as text; examples are shown as long as it stays below `limit_bytes`."""
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    made = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    template = made.get_template("report.html")

    def fill() -> str:
        return template.render(page=page, style=style(), one_player=ONE_PLAYER)

    page = View(run)
    room_bytes = limit_bytes - len(fill().encode()) - SCRIPT_BYTES
    page.examples, page.notes = listening.examples(run, sounds, page.order, room_bytes)
    return fill()


def _order(run: Run) -> list[str]:
    """Systems: ours first, otherwise as they came."""
    systems = dict.fromkeys(score.system for score in run.scores)
    return sorted(systems, key=lambda system: not is_nacre(system))


class View:
    """What the template needs, each computed once."""

    near_percent = round(100 * (stats.NEAR - 1))
    columns, rows = listening.COLUMNS, ROWS
    range_db, difference_db = f"{RANGE_DB:g}", f"{listening.DIFFERENCE_DB:g}"

    def __init__(self, run: Run):
        self.run = run
        self.examples: list[Example] = []
        self.notes: list[str] = []  # about examples that are not shown
        self.order = _order(run)
        self.points = sorted(stats.points(run.scores), key=lambda point: self.order.index(point.system))
        measured = {name for point in self.points for name in point.metrics}
        self.measured = [metric for metric in METRICS.values() if metric.name in measured]
        self.skipped = run.skipped
        self.facts = list(run.facts.items())
        self.looks = {system: charts.look(number) for number, system in enumerate(self.order)}

    @cached_property
    def title(self) -> str:
        """Heading."""
        ours = [system for system in self.order if is_nacre(system)]
        others = [system for system in self.order if not is_nacre(system)]
        return " against ".join(filter(None, [words.listed(ours), words.listed(others)])) or "nothing was coded"

    @cached_property
    def scope(self) -> str:
        """What was coded, in one line."""
        seconds = {score.clip: score.seconds for score in self.run.scores}
        total_s = math.fsum(seconds.values())
        count = "1 clip" if len(seconds) == 1 else f"{len(seconds)} clips"
        length = f"{total_s:.0f} seconds" if total_s < 120 else f"{total_s / 60:.1f} minutes"
        return f"{count}, {length} of sound, {len(self.run.scores)} codings"

    @cached_property
    def summary(self) -> list[str]:
        """The run in words."""
        return words.summary(self.run, self.points, self.savings_payload, self.savings_file)

    @cached_property
    def judges(self) -> Grid:
        """Means of the judges by system and rate, and which way each is good."""
        chosen = self._judges
        head = ["system", "target kb/s", "file kb/s", "payload kb/s", *(metric.label for metric in chosen)]
        rows = [
            [*_setting(point), *(_mean(metric, point.metrics.get(metric.name)) for metric in chosen)]
            for point in self.points
        ]
        return Grid("Judges", head, [[replace(cell, small="") for cell in row] for row in rows] if chosen else [])

    @cached_property
    def deaf(self) -> list[tuple[str, str, str]]:
        """Of each judge its title, which way is good, and what it cannot hear."""
        return [(metric.title, words.better(metric), metric.blind) for metric in self._judges]

    @property
    def _judges(self) -> list[Metric]:
        return [metric for metric in self.measured if metric.name in words.JUDGES]

    @cached_property
    def savings_payload(self) -> list[BdRate]:
        """BD-rates by payload."""
        return stats.bd_rates(self.run.scores)

    @cached_property
    def savings_file(self) -> list[BdRate]:
        """BD-rates by whole files."""
        return stats.bd_rates(replace(score, payload_bytes=score.file_bytes) for score in self.run.scores)

    @cached_property
    def systems(self) -> list[tuple[str, charts.Look]]:
        """The legend."""
        return list(self.looks.items())

    @cached_property
    def by_file(self) -> list[charts.Panel]:
        """Curves over the rate of whole files."""
        return self._panels(lambda point: point.file_kbps)

    @cached_property
    def by_payload(self) -> list[charts.Panel]:
        """Curves over the rate without other containers."""
        return self._panels(lambda point: point.rate_kbps)

    def _panels(self, rate_of: Callable[[Point], float]) -> list[charts.Panel]:
        panels = []
        for metric in self.measured:
            curves = [
                charts.Curve(system, self.looks[system], self._curve(system, metric, rate_of)) for system in self.order
            ]
            panels.append(charts.panel(metric.label, words.better(metric), curves))
        return [panel for panel in panels if panel is not None]

    def _curve(self, system: str, metric: Metric, rate_of: Callable[[Point], float]) -> list[charts.Point]:
        mine = [point for point in self.points if point.system == system and metric.name in point.metrics]
        return [_mark(rate_of(point), metric, point.metrics[metric.name]) for point in mine if rate_of(point) > 0]

    @cached_property
    def quality(self) -> Grid:
        """Means by system and rate."""
        head = ["target kb/s", "file kb/s", "payload kb/s", *(metric.label for metric in self.measured)]
        rows = [
            [
                *_setting(point),
                *(_mean(metric, point.metrics.get(metric.name), of=point.clips) for metric in self.measured),
            ]
            for point in self.points
        ]
        return Grid("Quality by system and rate", ["system", *head], rows)

    @cached_property
    def speed(self) -> Grid:
        """Times real time, and what failed."""
        head = "system,target kb/s,file kb/s,payload kb/s,encode,to nacre,decode,to nacre,coded,failed,delay"
        rows = [[*_setting(point), *self._speed(point)] for point in self.points]
        return Grid("Rate, speed and failures", head.split(","), rows)

    def _speed(self, point: Point) -> list[Cell]:
        ours = [other for other in self.points if other.system == self.reference]
        near = min(ours, key=lambda other: abs(other.target_kbps - point.target_kbps), default=None)
        lag = "-" if point.lag_samples is None else f"{point.lag_samples:g}".replace("-", words.MINUS)
        return [
            Cell(words.times(point.encode_x)),
            Cell(_ratio(point.encode_x, near.encode_x if near else 0)),
            Cell(words.times(point.decode_x)),
            Cell(_ratio(point.decode_x, near.decode_x if near else 0)),
            Cell(str(point.clips)),
            Cell(str(point.failed)),
            Cell(lag),
        ]

    @cached_property
    def memory(self) -> Grid:
        """Peak memory of each system's programs."""
        peaks = {peak.system: peak for peak in self.run.memory}
        ours = peaks.get(self.reference)
        head = ["system", "target kb/s", "encode, MB", "to nacre", "decode, MB", "to nacre"]
        rows = []
        for peak in (peaks[system] for system in self.order if system in peaks):
            pairs = (peak.encode_mb, ours.encode_mb if ours else 0), (peak.decode_mb, ours.decode_mb if ours else 0)
            cells = [cell for mb, our_mb in pairs for cell in (Cell(f"{mb:.1f}"), Cell(_ratio(mb, our_mb)))]
            rows.append([Cell(peak.system), Cell(f"{peak.target_kbps:g}"), *cells])
        return Grid("Peak memory of the programs", head, rows)

    @property
    def memory_seconds(self) -> str:
        """Length of the clip that the memory is for."""
        return f"{self.run.memory[0].seconds:.0f}"

    @cached_property
    def reference(self) -> str:
        """The system that speeds are compared with."""
        return next(iter(self.order), "nacre")

    @cached_property
    def savings(self) -> list[Grid]:
        """A table of BD-rates for each nacre."""
        return [self._saving(system) for system in dict.fromkeys(saving.system for saving in self.savings_payload)]

    def _saving(self, system: str) -> Grid:
        kinds = ("", self.savings_payload), (", whole files", self.savings_file)
        saving = {
            (rate.peer + kind, rate.metric): rate for kind, rates in kinds for rate in rates if rate.system == system
        }
        peers = [peer + kind for peer in self.order for kind, _ in kinds]
        measured = [metric for metric in self.measured if metric.aim is None]
        rows = [
            [Cell(peer), *(_saved(metric, saving.get((peer, metric.name))) for metric in measured)]
            for peer in peers
            if any(name == peer for name, _ in saving)
        ]
        return Grid(f"Bits of {system} at equal quality", ["against", *(metric.title for metric in measured)], rows)

    @cached_property
    def differences(self) -> list[Grid]:
        """A table for each nacre: minus a peer, clip by clip."""
        differences = stats.differences(self.run.scores)
        return [self._difference(system, differences) for system in dict.fromkeys(one.system for one in differences)]

    def _difference(self, system: str, differences: list[stats.Difference]) -> Grid:
        rows: dict[tuple[float, str], dict[str, stats.Difference]] = {}
        for one in (one for one in differences if one.system == system):
            rows.setdefault((one.target_kbps, one.peer), {})[one.metric] = one
        cells = []
        for row in rows.values():
            any_one = next(iter(row.values()))
            place = Cell(f"{any_one.rate_kbps:.2f} kb/s", f"{any_one.peer} {any_one.peer_rate_kbps:.2f}")
            means = [
                _mean(metric, row[metric.name].difference if metric.name in row else None, "+")
                for metric in self.measured
            ]
            cells.append([place, *means])
        return Grid(f"{system} minus others, clip by clip", ["at", *(m.label for m in self.measured)], cells)

    @cached_property
    def worst(self) -> Grid:
        """The clips to listen to first."""
        means = {(point.system, point.target_kbps): point.metrics for point in self.points}
        rows = []
        for metric in self.measured:
            for score in stats.worst(self.run.scores, metric.name, WORST):
                mean = means[score.system, score.target_kbps].get(metric.name)
                rows.append(_bad(score, metric, mean) + [_own(score, other) for other in self.measured])
        return Grid("Worst files", ["clip", "by", *(metric.label for metric in self.measured)], rows, (1,))

    @cached_property
    def failures(self) -> Grid:
        """What did not work."""
        rows = [
            [Cell(score.clip), Cell(score.system), Cell(f"{score.target_kbps:g}"), Cell(score.failure)]
            for score in self.run.scores
            if score.failure
        ]
        return Grid("Failures", ["clip", "system", "target kb/s", "what happened"], rows, (1, 3))

    @cached_property
    def metrics(self) -> list[tuple[str, str, str]]:
        """Label, meaning and blind spots."""
        return [(metric.label, metric.meaning, metric.blind) for metric in self.measured]

    @property
    def listening(self) -> dict[str, object]:
        """Pairs of the blind test."""
        return listening.pairs(self.examples)

    @cached_property
    def key_picture(self) -> Picture:
        """Scale of the difference pictures."""
        return listening.key_picture()


def _mark(rate_kbps: float, metric: Metric, value: Interval) -> charts.Point:
    text = f"{rate_kbps:.2f} kb/s, {figure(metric, value.mean)} ({span(metric, value)}, {value.count} clips)"
    return charts.Point(rate_kbps, value.mean, value.low, value.high, text)


def _setting(point: Point) -> list[Cell]:
    rates = (f"{rate:.2f}" if point.clips else "-" for rate in (point.file_kbps, point.rate_kbps))
    return [Cell(point.system), Cell(f"{point.target_kbps:g}"), *map(Cell, rates)]


def _mean(metric: Metric, value: Interval | None, sign: str = "", of: int = 0) -> Cell:
    """A mean and its interval, and the number of clips where it is not all `of` them."""
    if value is None:
        return Cell("-")
    some = f", {value.count} of {of} clips" if value.count < of else ""
    return Cell(figure(metric, value.mean, sign), span(metric, value) + some)


def _own(score: Score, metric: Metric) -> Cell:
    return Cell(figure(metric, score.metrics[metric.name]) if metric.name in score.metrics else "-")


def _saved(metric: Metric, rate: BdRate | None) -> Cell:
    if rate is None or rate.percent is None or rate.low is None or rate.high is None:
        return Cell("-")
    return Cell(percent(rate.percent), f"{percent(rate.low)} to {percent(rate.high)}")


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2g}" if value and reference else "-"


def _bad(score: Score, metric: Metric, mean: Interval | None) -> list[Cell]:
    here = figure(metric, score.metrics[metric.name])
    usual = f", mean {figure(metric, mean.mean)}" if mean else ""
    return [Cell(score.clip, f"{score.system} at {score.target_kbps:g} kb/s"), Cell(metric.title, here + usual)]
