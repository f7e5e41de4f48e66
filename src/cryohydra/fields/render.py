"""A field's values on a lattice, and the density they stand for."""

import torch

from cryohydra._typing import Bool, Float, Tensor
from cryohydra.fields.base import Field
from cryohydra.fourier.band import largest_radius
from cryohydra.fourier.hartley import hartley_to_volume


def lattice_frequencies(
    box_size: int, radius: int, oversampling: int = 1, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "m 3"], Bool[Tensor, "n n n"]]:
    """The points of a lattice with |f| <= radius, and which of its nodes they are.

    Args:
        radius: Fourier pixels of a box of `box_size`.
        oversampling: Lattice steps per Fourier pixel.

    Returns:
        Frequencies in cycles per pixel, (x, y, z), and a mask [z, y, x] of n = 2 * radius * oversampling + 1.
    """
    steps = radius * oversampling
    axis = torch.arange(-steps, steps + 1, device=device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    inside = x * x + y * y + z * z <= steps * steps
    points = torch.stack([x[inside], y[inside], z[inside]], dim=-1)
    return points / (oversampling * box_size), inside


class LatticeRenderer:
    """Draws a field on a lattice, as it is now, at one conformation after another.

    What no conformation changes is computed once and kept, see `Field.at`.

    Args:
        radius: Fourier pixels of a box of `box_size`.
        oversampling: Lattice steps per Fourier pixel; n = 2 * radius * oversampling + 1.
        chunk: Points per call of the field, which bounds memory; by default what is fastest on the device.
        dtype: What hidden layers may be rounded to.
    """

    def __init__(
        self,
        field: Field,
        box_size: int,
        radius: int,
        oversampling: int = 1,
        device: torch.device | str = "cpu",
        chunk: int | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        frequencies, self._inside = lattice_frequencies(box_size, radius, oversampling, device)
        self._parts = [field.at(points, dtype) for points in frequencies.split(chunk or _fastest_chunk(device))]

    @torch.no_grad()
    def hartley(self, z: Float[Tensor, "z"]) -> Float[Tensor, "n n n"]:
        """The field's coefficients on the lattice [z, y, x], zero outside |f| <= radius."""
        return _spread(torch.cat([part(z) for part in self._parts]), self._inside)


@torch.no_grad()
def render_hartley(
    field: Field, z: Float[Tensor, "z"], box_size: int, radius: int, oversampling: int = 1, chunk: int | None = None
) -> Float[Tensor, "n n n"]:
    """A field's coefficients on a lattice [z, y, x], zero outside |f| <= radius, with nothing kept.

    Args:
        radius: Fourier pixels of a box of `box_size`.
        oversampling: Lattice steps per Fourier pixel; n = 2 * radius * oversampling + 1.
        chunk: Points per call of the field, which bounds memory; by default what is fastest on the device.
    """
    frequencies, inside = lattice_frequencies(box_size, radius, oversampling, z.device)
    values = [field(points, z) for points in frequencies.split(chunk or _fastest_chunk(z.device))]
    return _spread(torch.cat(values), inside)


def _fastest_chunk(device: torch.device | str) -> int:
    # On a CPU a chunk's hidden layers should stay in the cache; a GPU wants many points at once.
    return 4096 if torch.device(device).type == "cpu" else 2**18


def _spread(values: Float[Tensor, "m"], inside: Bool[Tensor, "n n n"]) -> Float[Tensor, "n n n"]:
    lattice = torch.zeros(inside.shape, dtype=values.dtype, device=values.device)
    lattice[inside] = values
    return lattice


def render_map(field: Field, z: Float[Tensor, "z"], box_size: int, radius: int | None = None) -> Float[Tensor, "d d d"]:
    """The real-space density [z, y, x] of a field, scaled so that its projections are the images.

    The zero frequency, of which images tell nothing, is chosen so that the density outside the
    sphere inscribed in the box is zero on average.

    Args:
        radius: Highest frequency shown, in Fourier pixels; by default the widest band of the box.
    """
    return lattice_to_map(render_hartley(field, z, box_size, radius or largest_radius(box_size)), box_size)


def lattice_to_map(lattice: Float[Tensor, "n n n"], box_size: int) -> Float[Tensor, "d d d"]:
    """The density of an odd lattice with one step per Fourier pixel, as `render_map` gives it."""
    radius = lattice.shape[-1] // 2
    assert radius <= largest_radius(box_size), "the edge at Nyquist has no place of its own in an even box"
    first, end = box_size // 2 - radius, box_size // 2 + radius + 1
    hartley = lattice.new_zeros(box_size, box_size, box_size)
    hartley[first:end, first:end, first:end] = lattice
    density = hartley_to_volume(hartley)
    return density - density[_is_outside(box_size, lattice.device)].mean()


def _is_outside(box_size: int, device: torch.device) -> Bool[Tensor, "d d d"]:
    axis = torch.arange(box_size, device=device) - box_size // 2
    square = axis.square()
    return square[:, None, None] + square[:, None] + square > (box_size // 2) ** 2
