"""Sound as arrays for other programs: latents, tokens, log-mel, MFCC, as frames or as one row per recording.

    file or wave -> mono 16 kHz -> codec.latents | codec.tokens | mel.log_mel | mel.mfcc -> [T, F] -> pool -> [P]

`extract` and `from_file` do one recording, `FeatureExtractor` does many inside a scikit-learn pipeline.
"""

from __future__ import annotations

import functools
import inspect
import sys
import zipfile
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from nacre.codec.codec import Codec, load
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import AudioError, NacreError, UsageError
from nacre.core.types import Array
from nacre.dsp import mel
from nacre.dsp.wave import as_sound, check_shape, mixed
from nacre.io.audio import AudioReader, mono_blocks, output_file, resampled
from nacre.io.stdio import begins_coded, printable, standard_input

if TYPE_CHECKING:
    from sklearn.utils import Tags

Sound = Array | str | Path | tuple[Array, int]

RATE_HZ = 16_000  # log-mel and MFCC are taken at this rate, so that files of any rate compare
KINDS = ("latent", "tokens", "logmel", "mfcc")
CODED = ("latent", "tokens")  # these need a model
POOLS = ("mean", "stats", "parts")
STATS = ("mean", "std", "change")
QUARTERS = 4
OUTPUTS = ("default", "pandas", "polars")  # of a FeatureExtractor


def extract(
    wave: Array,
    rate_hz: int,
    kind: str = "latent",
    pool: str | None = None,
    *,
    model: str | Path = DEFAULT_MODEL,
    level: int | None = None,
    mono: bool = False,
) -> Array:
    """Features of wave float32 [N], or [C, N] averaged if `mono`. Raises UsageError, AudioError, BundleError.

    | kind | frames | per second |
    |---|---|---|
    | latent | [T, D] float32, what the encoder network gives, before rounding | the model's, 50 |
    | tokens | [T, K] int32 from 0, what a file holds | the model's, 50 |
    | logmel | [T, 80] float32, dB, `mel.log_mel` with its usual settings | 100 |
    | mfcc | [T, 20] float32, `mel.mfcc` with its usual settings | 100 |

    `pool` turns frames into one row: "mean" [F], "stats" [3 F] or "parts" [15 F], see `pooled`. `level` is the quality
    level of latents and tokens, by default the highest that has no residual layer.
    """
    check(kind, pool, level)
    sound = as_sound(wave)
    rate_hz = check_shape(rate_hz, len(sound))
    sound = mixed(sound, mono or None)
    if kind in CODED:
        codec = _codec(str(model))
        rows = codec.latents(sound, rate_hz, level) if kind == "latent" else codec.tokens(sound, rate_hz, level)
        frames = rows.sounding
        if kind == "tokens" and pool is not None:
            _check_order(codec)
    else:
        ready = resampled(sound[0], rate_hz, RATE_HZ)
        frames = mel.log_mel(ready) if kind == "logmel" else mel.mfcc(ready)
    return frames if pool is None else pooled(frames, pool)


def from_file(
    path: str | Path,
    kind: str = "latent",
    pool: str | None = None,
    *,
    model: str | Path = DEFAULT_MODEL,
    level: int | None = None,
    losses: list[AudioError] | None = None,
) -> Array:
    """`extract` of a sound file, or of what a `.nacre` file of this model decodes to; "-" is standard input.

    What is missing of a sound file that is cut off or damaged is added to `losses`.
    """
    check(kind, pool, level)
    wave, rate_hz = _read(path, str(model), [] if losses is None else losses)
    try:
        return extract(wave, rate_hz, kind, pool, model=model, level=level, mono=True)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error


def pooled(frames: Array, pool: str) -> Array:
    """Frames [T, F] as one row float32, by the name of a way to do so.

    | pool | row | of |
    |---|---|---|
    | mean | [F] | the mean over time |
    | stats | [3 F] | mean, standard deviation, root mean square of the change from a frame to the next |
    | parts | [15 F] | stats of all frames, then of each quarter of them: what comes first and what last |
    """
    values = np.asarray(frames, np.float64)
    if values.ndim != 2 or not len(values):
        raise UsageError(f"frames of shape {list(values.shape)} cannot be pooled; give [T, F] with T above 0")
    check(KINDS[0], pool, None)
    if pool == "mean":
        return np.asarray(values.mean(0), np.float32)
    edges = [part * len(values) // QUARTERS for part in range(QUARTERS + 1)]
    quarters = [values[start : max(stop, start + 1)] for start, stop in pairwise(edges)]
    pieces = [values] if pool == "stats" else [values, *quarters]
    return np.concatenate([_stats(piece) for piece in pieces]).astype(np.float32)


def _stats(frames: Array) -> Array:
    """[T, F] -> [3 F], in the order of STATS."""
    change = np.diff(frames, axis=0, append=frames[-1:])[: max(1, len(frames) - 1)]  # one frame changes by 0
    return np.concatenate([frames.mean(0), frames.std(0), np.sqrt(np.mean(change**2, axis=0))])


def frame_rate_hz(kind: str, model: str | Path = DEFAULT_MODEL) -> float:
    """Frames a second of a kind of features."""
    check(kind, None, None)
    return float(_codec(str(model)).config.frame_rate_hz) if kind in CODED else mel.MelConfig().frame_rate_hz


def level_of(model: str | Path, kind: str, level: int | None, quality: float | None) -> int | None:
    """The quality level that `level`, or `quality` 0..100, selects. Raises UsageError."""
    if quality is None:
        check(kind, None, level)
        return level
    if level is not None:
        raise UsageError("--level and --quality exclude each other; give one of them")
    check(kind, None, 0)
    return _codec(str(model)).rate_plan(1, None, quality, plain=True).level


def check(kind: str, pool: str | None, level: int | None) -> None:
    """Raise UsageError for an unknown kind or pool, or a level for features without levels."""
    if kind not in KINDS:
        raise UsageError(f"kind {kind} is unknown; choose from {', '.join(KINDS)}")
    if pool is not None and pool not in POOLS:
        raise UsageError(f"pool {pool} is unknown; choose from {', '.join(POOLS)}")
    if level is not None and kind not in CODED:
        raise UsageError(f"kind {kind} has no quality levels; leave the level out, or use kind {' or '.join(CODED)}")


def save(path: str | Path, values: Array, overwrite: bool = False) -> None:
    """Write values as a `.npy` file, whole or not at all; "-" is standard output."""
    with output_file(path, overwrite) as file:
        header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(values))
        np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(values).data)  # np.save itself needs a file that knows where it is


def pack(file: BinaryIO, arrays: Iterable[Path], folder: Path) -> None:
    """`.npy` files as one `.npz` that `numpy.load` opens, each by its place in a folder; one at a time in memory."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for path in arrays:
            archive.write(path, printable(path.relative_to(folder).as_posix()))


def _read(path: str | Path, model: str, losses: list[AudioError]) -> tuple[Array, int]:
    """Sound of a file: [C, N] of a `.nacre` file, [N] at 16 kHz of any other."""
    if begins_coded(path):
        codec = _codec(model)
        try:
            data = standard_input().read() if str(path) == "-" else Path(path).read_bytes()
            stream = codec.decoder(codec.parse(data))
            wave = stream.whole()
        except NacreError as error:
            raise type(error)(f"{path}: {error}") from error
        if stream.damage or stream.contents.truncated:
            raise AudioError(f"{path} is damaged, and features need a whole file; see `nacre verify`")
        return wave, stream.rate_hz
    with AudioReader(path) as reader:
        wave = np.concatenate(list(mono_blocks(reader, RATE_HZ)))
        losses += filter(None, [reader.loss()])
        return wave, RATE_HZ


@functools.lru_cache(maxsize=2)
def _codec(model: str) -> Codec:
    """A model, opened once in each process."""
    return load(model)


def _check_order(codec: Codec) -> None:
    if not codec.model.quantiser.ordered:  # numbers of codebook entries: their mean means nothing
        name = codec.bundle.name
        raise UsageError(f"tokens of {name} are codebook entries, whose mean says nothing; pool kind latent instead")


class FeatureExtractor:
    """`extract` as a scikit-learn transformer: recordings in, one row of features each out.

    >>> from sklearn.pipeline import make_pipeline  # doctest: +SKIP
    >>> from sklearn.linear_model import LogisticRegression  # doctest: +SKIP
    >>> model = make_pipeline(FeatureExtractor("latent"), LogisticRegression()).fit(files, labels)  # doctest: +SKIP

    A recording is a path, a wave [N] or [C, N] at `rate_hz`, or a pair (wave, rate). It learns nothing, needs no
    scikit-learn, and is pickled as its settings alone: the model is opened again where it is used.
    """

    def __init__(
        self,
        kind: str = "latent",
        pool: str | None = "stats",
        rate_hz: int = RATE_HZ,
        model: str | Path = DEFAULT_MODEL,
        level: int | None = None,
    ):
        self.kind, self.pool, self.rate_hz, self.model, self.level = kind, pool, rate_hz, model, level

    def fit(self, recordings: Iterable[Sound], labels: object = None) -> FeatureExtractor:
        """Check the settings, raising UsageError; the recordings are not looked at."""
        check(self.kind, self.pool, self.level)
        return self

    def transform(self, recordings: Sequence[Sound]) -> Array | list[Array]:
        """Recordings, n of them, to [n, P] float32, or as `set_output` says; with pool None to n arrays [T, F].

        Raises UsageError, or AudioError naming the place of the recording that cannot be used.
        """
        check(self.kind, self.pool, self.level)
        if isinstance(recordings, str | Path):
            raise UsageError(f"{recordings} is a single path; give a list of recordings")
        rows = [self._row(index, item) for index, item in enumerate(recordings)]
        if not rows:
            raise UsageError("the list of recordings is empty; give at least one")
        return rows if self.pool is None else self._framed(np.stack(rows), recordings)

    def set_output(self, *, transform: str | None = None) -> FeatureExtractor:
        """What `transform` gives: "default" arrays, or data frames of "pandas" or "polars" with names of columns.

        None leaves it as it is. Raises UsageError; pipelines of scikit-learn call this for all their steps.
        """
        if transform not in (None, *OUTPUTS):
            raise UsageError(f"set_output does not know {transform}; choose from {', '.join(OUTPUTS)}")
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}  # scikit-learn's `clone` copies it by this name
        return self

    def _framed(self, rows: Array, recordings: Sequence[Sound]) -> Any:
        """Rows [n, P] in the container chosen here or by `sklearn.set_config`."""
        chosen = getattr(self, "_sklearn_output_config", {}).get("transform")
        if chosen is None and "sklearn" in sys.modules:
            from sklearn import get_config

            chosen = get_config()["transform_output"]
        if chosen in (None, "default"):
            return rows
        names = self.get_feature_names_out().tolist()
        if chosen == "polars":
            import polars

            return polars.DataFrame(rows, schema=names, orient="row")
        import pandas

        index = recordings.index if isinstance(recordings, pandas.Series) else None
        return pandas.DataFrame(rows, columns=names, index=index)

    def fit_transform(self, recordings: Sequence[Sound], labels: object = None) -> Array | list[Array]:
        """`fit`, then `transform`."""
        return self.fit(recordings, labels).transform(recordings)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Settings by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **settings: Any) -> FeatureExtractor:
        """Change settings by name; raises UsageError for an unknown name."""
        known = self.get_params()
        for name, value in settings.items():
            if name not in known:
                raise UsageError(f"setting {name} is unknown; choose from {', '.join(known)}")
            setattr(self, name, value)
        return self

    def get_feature_names_out(self, input_features: object = None) -> Array:
        """Names of the columns [P], such as latent7_std; raises UsageError where pool is None."""
        if self.pool is None:
            raise UsageError(f"without a pool the number of columns is not fixed; set pool to {', '.join(POOLS)}")
        check(self.kind, self.pool, self.level)
        frames = extract(np.zeros(RATE_HZ // 10), RATE_HZ, self.kind, model=self.model, level=self.level)
        whats = ["mean"] if self.pool == "mean" else list(STATS)
        if self.pool == "parts":
            whats += [f"q{quarter}_{what}" for quarter in range(1, QUARTERS + 1) for what in STATS]
        names = [f"{self.kind}{column}_{what}" for what in whats for column in range(frames.shape[1])]
        return np.asarray(names, dtype=object)

    def _row(self, index: int, item: Sound) -> Array:
        settings: dict[str, Any] = {"model": self.model, "level": self.level}
        if isinstance(item, str | Path):
            return from_file(item, self.kind, self.pool, **settings)
        wave, rate_hz = item if isinstance(item, tuple) else (item, self.rate_hz)
        try:
            return extract(np.asarray(wave), rate_hz, self.kind, self.pool, mono=True, **settings)
        except AudioError as error:
            raise AudioError(f"recording {index}: {error}") from error

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        """For scikit-learn 1.6 and later, which is installed if it calls this."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(two_d_array=False, string=True),
            requires_fit=False,
        )

    def __repr__(self) -> str:
        return f"FeatureExtractor({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"
