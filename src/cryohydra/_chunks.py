"""How much to work on at a time."""

import torch

_NUMBERS = {"cpu": 2**20, "cuda": 2**27}
"""On a processor what its cache holds, on a GPU what keeps all of it busy and leaves memory for the rest."""


def chunks(num_rows: int, numbers_per_row: int, device: torch.device) -> list[slice]:
    """Pieces of rows, none of more numbers than are worked on at a time; at least one row each."""
    at_once = max(1, _NUMBERS.get(device.type, _NUMBERS["cpu"]) // max(1, numbers_per_row))
    return [slice(first, first + at_once) for first in range(0, num_rows, at_once)]
