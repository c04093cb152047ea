"""Frames <-> latents: the bundle's ONNX graphs as steps that take their state and give it back. Home of onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else every start is noted on disk and told to its maker
import onnxruntime as ort

from nacre.errors import BundleError

Array = np.ndarray[Any, np.dtype[Any]]


class Network:
    """One graph: (frames [1, T, X], level [1], past [1, P, W]) -> (frames [1, T', Y], past [1, P, W])."""

    def __init__(self, path: Path, threads: int = 1):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own classes, which share no base
            raise BundleError(str(path), found=str(error)[:200], wanted="a graph that onnxruntime opens") from error
        inputs = {item.name: item.shape for item in self._session.get_inputs()}
        outputs = {item.name: item.shape for item in self._session.get_outputs()}
        if list(inputs) != ["frames", "level", "past"] or len(outputs) != 2:
            raise BundleError(
                str(path), found=(list(inputs), list(outputs)), wanted="frames, level, past and two outputs"
            )
        self.width_in, self.width_out = inputs["frames"][-1], next(iter(outputs.values()))[-1]
        self._past_shape = (1, *inputs["past"][1:])

    def start(self) -> Array:
        """State before the first frame."""
        return np.zeros(self._past_shape, np.float32)

    def step(self, frames: Array, level: int, past: Array) -> tuple[Array, Array]:
        """frames [T, X] float32 at one quality level -> (frames [T', Y], past)."""
        feed = {"frames": frames[None], "level": np.array([level], np.int64), "past": past}
        out, after = self._session.run(None, feed)
        return out[0], after
