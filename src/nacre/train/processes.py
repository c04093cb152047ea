"""Processes that train side by side: Lightning Fabric starts them and takes means between them."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor, nn
from torch.distributed import DistError

from nacre.core.errors import TrainError

WAIT = timedelta(days=1)  # for the first process, which validates
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=r"torch\.distributed\.nn", module="lightning_fabric")


def start(processes: int = 1) -> Fabric:
    """So many processes of this machine, one a GPU where there are GPUs; or those that torchrun has started.

    Each of them comes back from this call: Fabric runs the command anew for all but the first. Raises TrainError where
    there are fewer GPUs, or where a cluster's manager has started other processes.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))  # torchrun says so
    machines = max(1, int(os.environ.get("WORLD_SIZE", local)) // local)
    kind, gpus = ("cuda", torch.cuda.device_count()) if torch.cuda.is_available() else ("cpu", local)
    if local > gpus:
        raise TrainError(f"{local} processes are more than the {gpus} GPUs here; give one a GPU")
    # parts of a stage may go unused: the log scale of the prior where nothing is quantised, say
    several = DDPStrategy(find_unused_parameters=True, timeout=WAIT)
    try:
        strategy = several if local * machines > 1 else "auto"
        fabric = Fabric(accelerator=kind, devices=local, num_nodes=machines, strategy=strategy)
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise TrainError(f"the processes do not start: {error}; ask for as many as the cluster has started") from error
    return fabric


def alone(device: torch.device) -> Fabric:
    """One process on this device."""
    return Fabric(strategy=SingleDeviceStrategy(device))


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """A TrainError where another process is gone, in place of what was found on the line to it."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not (isinstance(error, DistError) or "Connection " in str(error)):
            raise
        raise TrainError("another process of this run has ended; see what it said, then go on with --resume") from error


def gathered(fabric: Fabric, values: Tensor) -> Tensor:
    """values [B] of all processes in a row."""
    every = fabric.all_gather(values)
    assert isinstance(every, Tensor)
    return every.flatten()


def mean_of(fabric: Fabric, values: Tensor) -> Tensor:
    """The mean of values over all processes."""
    mean = fabric.all_reduce(values)
    assert isinstance(mean, Tensor)
    return mean


def any_of(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in one of the processes."""
    return bool(fabric.all_reduce(torch.tensor(float(flag)), reduce_op="max"))


def share_gradients(fabric: Fabric, module: nn.Module) -> None:
    """Means over all processes, for a module that Fabric has not wrapped."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    nn.utils.vector_to_parameters(mean_of(fabric, nn.utils.parameters_to_vector(gradients)), gradients)
