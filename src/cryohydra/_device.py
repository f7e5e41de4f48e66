"""Where to work, how much at a time, and in which numbers."""

import functools

import torch

_NUMBERS = {"cpu": 2**20, "cuda": 2**27}
"""On a processor what its cache holds, on a GPU what keeps all of it busy and leaves memory for the rest."""


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


def chunks(num_rows: int, numbers_per_row: int, device: torch.device) -> list[slice]:
    """Pieces of rows, each of at most as many numbers as are worked on at a time, and of one row at least."""
    at_once = max(1, _NUMBERS.get(device.type, _NUMBERS["cpu"]) // max(1, numbers_per_row))
    # No rows are one piece, too: results of no piece could not be joined.
    return [slice(first, first + at_once) for first in range(0, max(1, num_rows), at_once)]
