"""What an evaluation is to run: models, other codecs and their rates, clips."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from nacre import __version__
from nacre.codec.codec import load
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import AudioError, UsageError
from nacre.evaluate import peers
from nacre.evaluate.metrics import METRICS
from nacre.evaluate.work import Plan, System
from nacre.io.folders import inside
from nacre.model import bundle as bundles

DISTRIBUTIONS = {"visqol": "visqol-python"}  # where the module has another name than its package
USUAL_PEERS = ("opus", "codec2", "speex")  # as far as they are on the machine


@dataclass(frozen=True)
class Options:
    """What to evaluate, as on the command line."""

    folder: Path
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    bitrates_kbps: tuple[float, ...] = (1.5, 3, 6, 9, 12)
    peers: tuple[str, ...] | None = None  # None: the usual ones that are there
    peer_commands: tuple[str, ...] = ()
    peer_objects: tuple[str, ...] = ()
    peer_bitrates_kbps: tuple[float, ...] | None = None  # None: each peer's own
    metrics: str | None = None
    asr: bool = False
    report: Path | None = None
    csv: Path | None = None
    json: Path | None = None
    jobs: int = 2
    limit: int | None = None
    examples: int = 4
    resume: bool = False
    force: bool = False
    quiet: bool = False
    command: str = ""


def check_rates(options: Options) -> None:
    """Raise UsageError for a rate that no codec could have."""
    rates = [*options.bitrates_kbps, *(options.peer_bitrates_kbps or ())]
    if wrong := [kbps for kbps in rates if not 0.1 <= kbps <= 1000]:  # nan is wrong too
        raise UsageError(f"bitrate {wrong[0]:g} kb/s is out of range; give 0.1 to 1000 kb/s")


def choose_systems(options: Options, notes: list[str]) -> tuple[list[System], bool]:
    """Models and peers with their rates; `notes` get what is left out. False where a requested peer is missing."""
    systems = _nacre_systems(options, notes)
    names = USUAL_PEERS if options.peers is None else options.peers
    complete = True
    targets = options.peer_bitrates_kbps
    for peer in peers.choose(list(names), list(options.peer_commands), list(options.peer_objects)):
        if missing := peer.missing():
            notes.append(f"{peer.name} is left out: it needs {missing}")
            complete &= options.peers is None and peer.name in USUAL_PEERS
        elif not (rates := peer.settings(None if targets is None else list(targets))):
            notes.append(f"{peer.name} is left out: it has none of the bitrates")
        else:
            systems.append(System(peer.name, tuple(rates), peer=peer))
    return systems, complete


def _nacre_systems(options: Options, notes: list[str]) -> list[System]:
    loaded = {model: load(model) for model in dict.fromkeys(options.models)}
    names = [codec.bundle.name for codec in loaded.values()]
    systems = []
    for model, codec in loaded.items():
        name, fingerprint = codec.bundle.name, codec.bundle.fingerprint.hex()
        rates = []
        for kbps in sorted(set(options.bitrates_kbps)):
            try:
                codec.rate_plan(1, kbps, None)
                rates.append(kbps)
            except UsageError as error:
                notes.append(f"{kbps:g} kb/s is left out: {error}")
        if not rates:
            span = f"{codec.bundle.rates_kbps[0]:.1f} to {codec.bundle.rates_kbps[-1]:.1f} kb/s"
            raise UsageError(f"model {name} can do none of the bitrates; give some from {span} with --bitrates")
        twice = names.count(name) > 1
        systems.append(
            System(
                f"nacre {name} ({fingerprint})" if twice else f"nacre {name}",
                tuple(rates),
                model=model,
                rate_hz=codec.config.rate_hz,
            )
        )
    if len({system.name for system in systems}) < len(systems):
        raise UsageError("the same model is given twice; give each --model once")
    return systems


def find_clips(folder: Path, limit: int | None) -> list[str]:
    """Sound files below `folder` by path; with a limit, that many spread evenly over all of them."""
    if not folder.is_dir():
        raise AudioError(f"{folder} is not a folder; give a folder of recordings")
    clips = sorted(Path(path).relative_to(folder).as_posix() for path in inside(folder))
    if not clips:
        raise AudioError(f"folder {folder} holds no sound files; give one of recordings")
    return clips if limit is None or limit >= len(clips) else spread(clips, limit)


def spread(items: list[str], count: int) -> list[str]:
    """`count` of the items, evenly apart."""
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(min(count, len(items)))]


def plan_facts(plan: Plan) -> dict[str, Any]:
    """What must be the same for a run to be resumed: all that decides about figures, which paths do not."""
    facts: dict[str, Any] = {"metrics": list(plan.metrics), "releases": releases(plan)}
    for system in plan.systems:
        if system.peer:
            how: Any = system.peer.identity()
        else:
            how = bundles.find(system.model).fingerprint.hex()
        facts[system.name] = [list(system.rates_kbps), how]
    return facts


def releases(plan: Plan) -> str:
    """Packages behind the figures."""
    used = [package for name in plan.metrics for package in METRICS[name].packages]
    if "visqol" in used and importlib.util.find_spec("numba"):
        used.append("numba")  # ViSQOL takes other sums with it
    names = dict.fromkeys(["numpy", "onnxruntime", *used])
    versions = {name: metadata.version(DISTRIBUTIONS.get(name, name)) for name in names}
    return ", ".join(f"{name} {version}" for name, version in ({"nacre": __version__} | versions).items())
