"""Where to work, how much at a time, and in which numbers."""

import functools
import importlib.util

import torch

_NUMBERS_IN_CACHE = 2**20
_BYTES_PER_NUMBER = 256
"""Of a GPU's memory, for each number that is worked on at a time: all of it is busy, and there is room for the rest."""


def default_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def matrix_dtype(device: torch.device) -> torch.dtype:
    """The numbers whose products of matrices are fastest: bfloat16 where there are units for it, else float32.

    What goes in and what comes out is rounded to one part in 256: for poses of a grid that are weighed anew wherever
    they matter.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # Older versions of torch do not tell what a processor can do.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if capabilities.get("amx_bf16") else torch.float32


@functools.cache
def is_fused(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels of ours that Triton compiles can multiply such numbers there."""
    return device.type == "cuda" and dtype == torch.bfloat16 and importlib.util.find_spec("triton") is not None


@functools.cache
def _numbers_at_a_time(device: torch.device) -> int:
    """On a processor what its cache holds."""
    if device.type != "cuda":
        return _NUMBERS_IN_CACHE
    return torch.cuda.get_device_properties(device).total_memory // _BYTES_PER_NUMBER


def chunks(num_rows: int, numbers_per_row: int, device: torch.device) -> list[slice]:
    """Pieces of rows, each of at most as many numbers as are worked on at a time, and of one row at least."""
    at_once = max(1, _numbers_at_a_time(device) // max(1, numbers_per_row))
    # No rows are one piece, too: results of no piece could not be joined.
    return [slice(first, first + at_once) for first in range(0, max(1, num_rows), at_once)]
