"""Rotations of a grid whose slices are permutations of one another."""

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band


class Orbits:
    """Which slices of a set of rotations have to be cut, and how the others follow.

    A quarter turn of the image plane, and turning it over, only permute the points of a band: of every eight rotations
    that differ by these, one is cut.
    """

    is_cut: Int[Tensor, "c"]
    """The rotations to cut, one of each orbit."""

    def __init__(self, band: Band, rotations: Float[Tensor, "q 3 3"]):
        """Find the orbits; a set that lacks some of the eight is as good."""
        quarter = rotations.new_tensor([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
        over = torch.diag(rotations.new_tensor([1, -1, -1]))
        turns = [
            torch.linalg.matrix_power(quarter, i) @ torch.linalg.matrix_power(over, j) for j in (0, 1) for i in range(4)
        ]
        position = {tuple(point): i for i, point in enumerate(band.points.tolist())}
        orders = []
        for turn in turns:
            points = (band.points.to(turn.dtype) @ turn[:2, :2]).round().long().tolist()
            orders.append(torch.tensor([position[tuple(point)] for point in points], device=rotations.device))
        self._order = torch.stack(orders)

        orbit = torch.einsum("gij,qjk->gqik", torch.stack(turns), rotations)
        # Which rotation of the grid each turn of each rotation is: equal ones have equal rounded matrices.
        every = torch.cat([rotations[None], orbit]).flatten(2).mul(1000).round().long()
        _, name = every.flatten(0, 1).unique(dim=0, return_inverse=True)
        name = name.view(-1, len(rotations))
        number = torch.arange(len(rotations), device=rotations.device)
        absent = len(rotations)
        owner = torch.full((int(name.max()) + 1,), absent, device=rotations.device).scatter_(0, name[0], number)
        turned = owner[name[1:]]
        first = turned.amin(0)
        self.is_cut, self._source = first.unique(return_inverse=True)
        self._turn = (turned[:, first] == number).int().argmax(0)

    def points(self, index: Int[Tensor, "m"]) -> Int[Tensor, "m p"]:
        """Where the points of rotations' slices lie among those cut, which are c times p."""
        return self._source[index][:, None] * self._order.shape[1] + self._order[self._turn[index]]
