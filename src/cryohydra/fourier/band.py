"""The frequencies that are compared: a disc of Fourier pixels around zero."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from cryohydra._typing import Float, Int, Tensor


@dataclass(frozen=True)
class Band:
    """Frequencies of a box of `box_size` pixels with 0 < |f| <= `radius` Fourier pixels.

    The points are ordered so that reversing them negates every frequency. The zero frequency,
    which only tells the background, is left out, and so is the edge at `box_size / 2`, which an
    even transform holds once for both signs.
    """

    box_size: int
    radius: int
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        assert 0 < self.radius <= largest_radius(self.box_size), f"band {self.radius} in a box of {self.box_size}"

    @property
    def points(self) -> Int[Tensor, "p 2"]:
        """Fourier pixels, (x, y)."""
        return _points(self.radius, self.device)

    @cached_property
    def frequencies(self) -> Float[Tensor, "p 2"]:
        """Cycles per pixel, (x, y)."""
        return self.points / self.box_size

    @property
    def shells(self) -> Int[Tensor, "p"]:
        """Each point's distance from zero, in Fourier pixels, rounded."""
        return _shells(self.radius, self.device)

    def shell_sizes(self, num_shells: int) -> Int[Tensor, "r"]:
        """Number of points in each of the first shells."""
        return _shell_sizes(self.radius, num_shells, self.device)

    @cached_property
    def _flat_index(self) -> Int[Tensor, "p"]:
        centre = self.box_size // 2
        return (self.points[:, 1] + centre) * self.box_size + self.points[:, 0] + centre

    def __len__(self) -> int:
        return len(self.points)

    def gather(self, hartley: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch p"]:
        """Pick the band's points from centred transforms of the full box."""
        assert hartley.shape[-1] == self.box_size
        return hartley.flatten(-2)[..., self._flat_index]

    def scatter(self, values: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch d d"]:
        """Put the band's values back into a full box, zero elsewhere."""
        full = values.new_zeros(*values.shape[:-1], self.box_size**2)
        full[..., self._flat_index] = values
        return full.unflatten(-1, (self.box_size, self.box_size))

    def within(self, radius: int) -> Int[Tensor, "n"]:
        """Positions of the points that also lie in the smaller band of `radius`, in its order."""
        return _within(self.radius, radius, self.device)


# Found once: a device that finds them anew for each band keeps its processor waiting.
@lru_cache(maxsize=64)
def _points(radius: int, device: torch.device | str) -> Int[Tensor, "p 2"]:
    axis = torch.arange(-radius, radius + 1, device=device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x.flatten(), y.flatten()], dim=-1)
    square = grid.square().sum(-1)
    return grid[(square > 0) & (square <= radius**2)]


@lru_cache(maxsize=64)
def _within(radius: int, smaller: int, device: torch.device | str) -> Int[Tensor, "n"]:
    return torch.nonzero(_points(radius, device).square().sum(-1) <= smaller**2).squeeze(-1)


@lru_cache(maxsize=64)
def _shells(radius: int, device: torch.device | str) -> Int[Tensor, "p"]:
    return _points(radius, device).float().norm(dim=-1).round().long()


@lru_cache(maxsize=64)
def _shell_sizes(radius: int, num_shells: int, device: torch.device | str) -> Int[Tensor, "r"]:
    return torch.bincount(_shells(radius, device), minlength=num_shells)


def largest_radius(box_size: int) -> int:
    """The widest band of a box: one Fourier pixel inside Nyquist."""
    return box_size // 2 - 1
