"""How much to work on at a time."""

import torch

_NUMBERS = {"cpu": 2**20, "cuda": 2**27}
"""On a processor what its cache holds, on a GPU what keeps all of it busy and leaves memory for the rest."""


def chunks(num_rows: int, numbers_per_row: int, device: torch.device) -> list[slice]:
    """Pieces of rows, each of at most as many numbers as are worked on at a time, and of one row at least."""
    at_once = max(1, _NUMBERS.get(device.type, _NUMBERS["cpu"]) // max(1, numbers_per_row))
    # No rows are one piece, too: results of no piece could not be joined.
    return [slice(first, first + at_once) for first in range(0, max(1, num_rows), at_once)]
