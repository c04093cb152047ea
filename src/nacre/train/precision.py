"""Which number type matrices are multiplied in: bfloat16 where the processor is fast at it, float32 elsewhere.

A processor without units for bfloat16 multiplies it some fifty times slower than float32, so the choice is measured.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

SIZE, ROUNDS = 384, 3


@dataclass(frozen=True)
class Precision:
    """The number type of layers; `described` says what was measured."""

    type: torch.dtype
    described: str

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Layers inside compute in this type."""
        context: AbstractContextManager[None] = torch.autocast(
            device.type, torch.bfloat16, enabled=self.type == torch.bfloat16
        )
        return context


FLOAT32 = Precision(torch.float32, "float32")


def fastest(device: torch.device) -> Precision:
    """The faster of bfloat16 and float32 on this device; takes some milliseconds, at worst a second."""
    if device.type == "cuda":
        chosen = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        return Precision(chosen, f"{str(chosen).removeprefix('torch.')} on CUDA")
    speeds = {kind: _speed(kind) for kind in (torch.float32, torch.bfloat16)}
    chosen = max(speeds, key=lambda kind: speeds[kind])
    measured = ", ".join(f"{str(kind).removeprefix('torch.')} {speed:.0f} GFLOP/s" for kind, speed in speeds.items())
    return Precision(chosen, f"{str(chosen).removeprefix('torch.')} ({measured})")


def _speed(kind: torch.dtype) -> float:
    """GFLOP/s of square products on the CPU, the best of a few rounds."""
    left = torch.ones(SIZE, SIZE, dtype=kind)
    best = 0.0
    for _ in range(ROUNDS + 1):  # the first is a warm-up
        start = time.perf_counter()
        left @ left
        best = max(best, 2e-9 * SIZE**3 / (time.perf_counter() - start))
    return best
