"""What an evaluation finds: one row for each clip, system and rate, and the memory of each system."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """One clip through one codec at one rate. `failure` says why `metrics` is empty or incomplete."""

    clip: str  # path relative to the evaluated folder
    system: str  # "nacre speech-16k", "opus", ...
    target_kbps: float
    seconds: float  # duration of the clip
    file_bytes: int = 0
    payload_bytes: int = 0  # without the container's paging and headers; nacre: the whole file
    encode_s: float = 0.0  # seconds of one thread
    decode_s: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)  # by name, see metrics.METRICS
    failure: str = ""  # "codec: ..." where nothing came back, "pesq_wb: ..." where a metric is missing
    lag_samples: int | None = (
        None  # at the rate of the evaluation, by cross-correlation; None where the codec keeps no waveform
    )


@dataclass(frozen=True)
class Memory:
    """Peak memory of a codec's programs, encoding and decoding one clip; nacre's include Python."""

    system: str
    target_kbps: float
    seconds: float  # of the clip
    encode_mb: float
    decode_mb: float


@dataclass(frozen=True)
class Run:
    """A finished evaluation: rows, and the facts that a reader needs to trust them."""

    scores: list[Score]
    facts: dict[str, str]  # command, versions, machine's processor, model fingerprints, date, notes
    skipped: list[str]  # clips left out, with the reason
    examples: list[str]  # clips whose sound and spectrograms the page shows
    memory: list[Memory] = field(default_factory=list)  # one for each system, where the system has the figure
