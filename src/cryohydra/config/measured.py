"""How long something takes and how much memory it holds at most, measured on this machine."""

import gc
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    """What a piece of work costs."""

    seconds: float
    held_bytes: int
    """By the whole process before it began."""
    peak_bytes: int
    """The most while it went on."""
    gpu_bytes: int
    """That on the GPU; 0 without one."""


@dataclass(frozen=True)
class Linear:
    """Cost of a batch of images: once for the batch, and for each image."""

    seconds: float
    seconds_per_image: float
    peak_bytes: float
    bytes_per_image: float
    gpu_bytes: float
    gpu_bytes_per_image: float
    first_seconds: float = 0.0
    """What the first batch takes beyond others, because things are laid out that they use too."""

    def seconds_for(self, num_images: int, batch_size: int) -> float:
        """Of many images in batches."""
        return num_images * (self.seconds / batch_size + self.seconds_per_image)

    def peak_for(self, batch_size: int) -> tuple[float, float]:
        """Bytes of the whole process, and on the GPU, with one batch."""
        return (
            self.peak_bytes + batch_size * self.bytes_per_image,
            self.gpu_bytes + batch_size * self.gpu_bytes_per_image,
        )


def measure(work: Callable[[], object], device: torch.device) -> Cost:
    """Do it once and see."""
    gc.collect()
    _forget_peak(device)
    held = peak_bytes()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    return Cost(seconds, held, peak_bytes(), torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)


def measure_batches(
    step: Callable[[int], object], batch_size: int, device: torch.device, *, first: int = 8, enough_seconds: float = 1.0
) -> Linear:
    """Batches of growing size, up to `batch_size` or until one takes long enough to be measured well.

    The last two tell what is paid once and what for each image.
    """
    size = min(first, batch_size)
    # What is made on first use, such as the slicer of a grid, is no part of a step.
    first_cost = measure(partial(step, size), device)
    before, cost = size, measure(partial(step, size), device)
    previous = cost
    first_seconds = max(0.0, first_cost.seconds - cost.seconds)
    # Two sizes at least: of one alone, what is paid once would count for each image.
    while size < batch_size and (before == size or cost.seconds < enough_seconds):
        before, previous, size = size, cost, min(4 * size, batch_size)
        cost = measure(partial(step, size), device)
    return replace(through(before, previous, size, cost), first_seconds=first_seconds)


def through(first_size: int, first: Cost, size: int, cost: Cost) -> Linear:
    """The line through two measurements; through the origin where there is one alone, or the slope makes no sense."""

    def line(low: float, high: float) -> tuple[float, float]:
        slope = (high - low) / (size - first_size) if size > first_size else 0.0
        return (high - slope * size, slope) if 0 < slope and slope * size <= high else (0.0, high / size)

    seconds, each_second = line(first.seconds, cost.seconds)
    growth = max(0.0, (cost.peak_bytes - first.peak_bytes) / max(1, size - first_size))
    gpu_growth = max(0.0, (cost.gpu_bytes - first.gpu_bytes) / max(1, size - first_size))
    return Linear(
        seconds,
        each_second,
        cost.peak_bytes - growth * size,
        growth,
        cost.gpu_bytes - gpu_growth * size,
        gpu_growth,
    )


def peak_bytes() -> int:
    """The most memory this process held since its peak was last forgotten."""
    if _STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        if found:
            return 1024 * int(found.group(1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _forget_peak(device: torch.device) -> None:
    """From now on peaks count anew; where the system does not offer it, they are those since the start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:
        pass
