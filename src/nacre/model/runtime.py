"""Frames <-> latents: the bundle's ONNX graphs as steps that take their state and give it back. Home of onnxruntime."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else every start is noted on disk and told to its maker
import onnxruntime as ort

from nacre.core.errors import BundleError
from nacre.core.types import Array


class Network:
    """One graph: (frames [1, T, X], level [1], past [1, P, W]) -> (frames [1, T', Y], past [1, P, W]).

    It is opened by its first use: commands that only encode do not wait for the decoder's. Opening raises BundleError,
    also where the graph does not take and give `widths`, (X, Y).
    """

    def __init__(self, path: Path, threads: int = 1, widths: tuple[int, int] | None = None):
        self.path, self._threads, self._wanted = path, threads, widths

    @cached_property
    def _session(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own classes, which share no base
            found, wanted = str(error)[:200], "a graph that onnxruntime opens"
            raise BundleError(str(self.path), found=found, wanted=wanted) from error
        inputs, outputs = ([item.name for item in items] for items in (session.get_inputs(), session.get_outputs()))
        if inputs != ["frames", "level", "past"] or len(outputs) != 2:
            raise BundleError(str(self.path), found=(inputs, outputs), wanted="frames, level, past and two outputs")
        widths = session.get_inputs()[0].shape[-1], session.get_outputs()[0].shape[-1]
        if self._wanted not in (None, widths):
            raise BundleError(f"{self.path}: sizes of the graph", found=widths, wanted=self._wanted)
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
        return (1, *self._session.get_inputs()[2].shape[1:])

    def start(self) -> Array:
        """State before the first frame."""
        return np.zeros(self._past_shape, np.float32)

    def step(self, frames: Array, level: int, past: Array) -> tuple[Array, Array]:
        """frames [T, X] float32 at one quality level -> (frames [T', Y], past)."""
        feed = {"frames": frames[None], "level": np.array([level], np.int64), "past": past}
        out, after = self._session.run(None, feed)
        return out[0], after
