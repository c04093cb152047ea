"""Frames <-> latents: the bundle's ONNX graphs as steps that take their state and give it back. Home of onnxruntime.

Where onnxruntime cannot be installed, numpy does, in `numpy_session`.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else every start is noted on disk and sent to its maker
try:
    import onnxruntime as ort
except ModuleNotFoundError:
    ort = None

from nacre.core.errors import BundleError, reason
from nacre.core.types import Array

MOST_BYTES = 256 << 20
REFUSED = {  # fields of the file with what no model needs
    b"\x22\x04Loop": "a loop",
    b"\x22\x04Scan": "a loop",
    b"\x22\x02If": "a branch",
    b"\x0a\x08location": "numbers in other files",
}


class Network:
    """One graph: (frames [1, T, X], level [1], past [1, P, W]) -> (frames [1, T', Y], past [1, P, W]).

    One without `levels` takes no level.
    It is opened by its first use: commands that only encode do not wait for the decoder's. Opening raises BundleError,
    also where the graph does not take and give `widths`, (X, Y), holds a loop, or has its numbers in other files; a
    step does where T' is not `rows` T, or numbers are none.
    """

    def __init__(
        self, path: Path, threads: int = 1, widths: tuple[int, int] | None = None, rows: int = 1, levels: bool = True
    ):
        self.path, self._threads, self._widths, self._rows = path, threads, widths, rows
        self._inputs = ["frames", "level", "past"] if levels else ["frames", "past"]

    @cached_property
    def _session(self) -> Any:
        data = _graph(self.path)
        try:
            session = _opened(data, self._threads)
        except Exception as error:  # onnxruntime raises its own classes, which share no base
            raise BundleError(f"{self.path} is not a graph that onnxruntime opens ({str(error)[:200]})") from error
        inputs, outputs = ([item.name for item in items] for items in (session.get_inputs(), session.get_outputs()))
        if inputs != self._inputs or len(outputs) != 2:
            needed = f"inputs {', '.join(self._inputs)} and two outputs"
            raise BundleError(f"{self.path} must have {needed}, not {', '.join(inputs)} and {', '.join(outputs)}")
        widths = session.get_inputs()[0].shape[-1], session.get_outputs()[0].shape[-1]
        if self._widths not in (None, widths):
            raise BundleError(f"{self.path} has a graph of the sizes {widths}, but the model needs {self._widths}")
        return session

    def open(self) -> None:
        """Open the graph now. Raises BundleError."""
        assert self._session

    @property
    def width_in(self) -> int:
        """Numbers a frame that it takes, X."""
        return int(self._session.get_inputs()[0].shape[-1])

    @property
    def width_out(self) -> int:
        """Numbers a frame that it gives, Y."""
        return int(self._session.get_outputs()[0].shape[-1])

    @cached_property
    def _past_shape(self) -> tuple[int, ...]:
        return (1, *self._session.get_inputs()[-1].shape[1:])

    def start(self) -> Array:
        """State before the first frame."""
        return np.zeros(self._past_shape, np.float32)

    def step(self, frames: Array, level: int | None, past: Array) -> tuple[Array, Array]:
        """frames [T, X] float32 at one quality level, None where there are none -> (frames [T', Y], past)."""
        feed = {"frames": frames[None], "past": past}
        if level is not None:
            feed["level"] = np.array([level], np.int64)
        try:
            out, after = self._session.run(None, feed)
        except Exception as error:  # onnxruntime's own classes, again
            raise BundleError(f"{self.path} has a graph that does not run ({str(error)[:200]})") from error
        shapes = (1, self._rows * len(frames), self.width_out), past.shape
        if (out.shape, after.shape) != shapes:
            given = f"{out.shape} and {after.shape} for {len(frames)} frames"
            raise BundleError(f"{self.path} gives {given}, not {shapes[0]} and {shapes[1]}")
        if not (np.isfinite(out).all() and np.isfinite(after).all()):
            raise BundleError(f"{self.path} gives NaN or infinite numbers; check the sound, or copy the model again")
        return out[0], after


def _opened(data: bytes, threads: int) -> Any:
    """A session of onnxruntime, or what stands in for one."""
    if ort is None:
        from nacre.model.numpy_session import Session

        return Session(data)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _graph(path: Path) -> bytes:
    """The bytes of a graph that stands alone and comes to an end. Raises BundleError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BundleError(f"{path} is larger than {MOST_BYTES >> 20} MB, the most a graph may have")
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({reason(error)}); copy the model again") from error
    for word, what in REFUSED.items():
        if word in data:
            raise BundleError(f"{path} has a graph with {what}; it must have layers alone, all in this file")
    return data
