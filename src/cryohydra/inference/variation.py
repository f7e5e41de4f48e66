"""How a class varies, to first order: the start from which a field learns conformations.

The density of a particle is taken as a mean plus z times a few component maps, and both are found by
expectation and maximisation at known poses: probabilistic principal components seen through the CTF.

References:
    Tipping and Bishop, J. R. Stat. Soc. B 1999; Punjani and Fleet, J. Struct. Biol. 2021.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cryohydra._device import chunks
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import (
    Corners,
    Lattice,
    add,
    correct_interpolation,
    interpolate,
    slice_frequencies,
    to_frequency,
    to_real_space,
)
from cryohydra.inference.evidence import expected_contrast

_SETTLED = 0.03
"""Change of the coordinates in a round, over their size, that ends the search."""
_LEAST_SHARE = 0.1
"""Part of a shell's mean precision that is added to each point's, against points that no image touched."""


@dataclass(frozen=True)
class PosedImages:
    """Images of one class at known poses, their shifts undone."""

    score: Float[Tensor, "b t p"]
    """CTF times image over noise variance."""
    power: Float[Tensor, "b t p"]
    """CTF squared over noise variance."""
    rotation: Float[Tensor, "b t 3 3"]
    weight: Float[Tensor, "b"]
    """Probability of the class."""

    def __len__(self) -> int:
        return len(self.weight)

    def at(self, rows: Int[Tensor, "m"]) -> "PosedImages":
        """Some of the images."""
        return PosedImages(self.score[rows], self.power[rows], self.rotation[rows], self.weight[rows])


def find_components(
    images: PosedImages,
    band: Band,
    lattice: Lattice,
    mean: Float[Tensor, "n n n"],
    mask: Float[Tensor, "n n n"],
    z_dim: int,
    generator: torch.Generator,
    num_rounds: int = 30,
) -> Float[Tensor, "z n n n"]:
    """What one unit of each coordinate adds to the mean map, where images of one class differ most.

    Args:
        band: Of the images; the lattice's radius is its radius.
        mean: The class's map on the lattice.
        mask: Where density may be, on the lattice's coarse voxels.
        z_dim: How many, at least one.
        generator: On the CPU; the search starts from random coordinates.

    Returns:
        Orthogonal components, the largest first; coordinates along them have a standard normal prior.
    """
    residual = residual_of_mean(images, band, lattice, mean)
    return components_of_residual(residual, band, lattice, mask, z_dim, generator, num_rounds)


def components_of_residual(
    residual: PosedImages,
    band: Band,
    lattice: Lattice,
    mask: Float[Tensor, "n n n"],
    z_dim: int,
    generator: torch.Generator,
    num_rounds: int = 30,
) -> Float[Tensor, "z n n n"]:
    """`find_components`, once the mean map is taken off the images."""
    components = mask.new_zeros(z_dim, *lattice.shape)
    coordinate = torch.randn(len(residual), z_dim, generator=generator).to(mask.device)
    covariance = mask.new_zeros(len(residual), z_dim, z_dim)
    for _ in range(num_rounds):
        components = solve_components(residual, band, lattice, mask, coordinate, covariance)
        before = coordinate
        coordinate, covariance = _locate(residual, band, lattice, components)
        if float((coordinate - before).norm()) < _SETTLED * float(coordinate.norm()):
            break
    return _in_principal_axes(components)


def locate_images(
    images: PosedImages,
    band: Band,
    lattice: Lattice,
    mean: Float[Tensor, "n n n"],
    components: Float[Tensor, "z n n n"],
) -> Float[Tensor, "b z"]:
    """Where images lie along the components of their class: the mean of each posterior."""
    return _locate(residual_of_mean(images, band, lattice, mean), band, lattice, components)[0]


def residual_of_mean(images: PosedImages, band: Band, lattice: Lattice, mean: Float[Tensor, "n n n"]) -> PosedImages:
    """What the mean map, at each image's own contrast, leaves of the scores."""
    score = torch.empty_like(images.score)
    for rows, slices in slices_of_maps(images, band, lattice, mean[None]):
        cut = slices[0]
        product = (images.score[rows] * cut).sum((1, 2))
        energy = (images.power[rows] * cut.square()).sum((1, 2))
        contrast = expected_contrast(product, energy)[:, None, None]
        score[rows] = images.score[rows] - contrast * images.power[rows] * cut
    return PosedImages(score, images.power, images.rotation, images.weight)


def slices_of_maps(
    images: PosedImages, band: Band, lattice: Lattice, values: Float[Tensor, "z n n n"]
) -> Iterator[tuple[Int[Tensor, "c"], Float[Tensor, "z c t p"]]]:
    """For some images at a time: which, and the slice of each map at their poses."""
    corrected = correct_interpolation(lattice, values)
    num_tilts = images.rotation.shape[1]
    every = torch.arange(len(images), device=values.device)
    for rows in (every[some] for some in chunks(len(images), 8 * len(band) * num_tilts, values.device)):
        position = slice_frequencies(band, images.rotation[rows].flatten(0, 1)) * (
            lattice.oversampling * lattice.box_size
        )
        which = torch.zeros(len(position), dtype=torch.long, device=values.device)
        cut = [interpolate(one[None], which, position).unflatten(0, (-1, num_tilts)) for one in corrected]
        yield rows, torch.stack(cut)


def _locate(
    residual: PosedImages, band: Band, lattice: Lattice, components: Float[Tensor, "z n n n"]
) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z z"]]:
    """Mean and covariance of each image's coordinates, the E step."""
    z_dim = len(components)
    mean = components.new_empty(len(residual), z_dim)
    covariance = components.new_empty(len(residual), z_dim, z_dim)
    identity = torch.eye(z_dim, device=components.device)
    for rows, slices in slices_of_maps(residual, band, lattice, components):
        precision = torch.einsum("zbtp,btp,ybtp->bzy", slices, residual.power[rows], slices) + identity
        covariance[rows] = torch.linalg.inv(precision)
        projected = torch.einsum("zbtp,btp->bz", slices, residual.score[rows])
        mean[rows] = (covariance[rows] @ projected[:, :, None])[:, :, 0]
    return mean, covariance


def solve_components(
    residual: PosedImages,
    band: Band,
    lattice: Lattice,
    mask: Float[Tensor, "n n n"],
    coordinate: Float[Tensor, "b z"],
    covariance: Float[Tensor, "b z z"],
) -> Float[Tensor, "z n n n"]:
    """The components that explain the residuals best, a small linear system at each lattice point: the M step."""
    z_dim = coordinate.shape[1]
    centred = coordinate - _weighted_mean(coordinate, residual.weight)
    second = centred[:, :, None] * centred[:, None] + covariance
    numerator = coordinate.new_zeros(z_dim, lattice.size**3)
    denominator = coordinate.new_zeros(z_dim * z_dim, lattice.size**3)
    num_points = residual.score.shape[1] * len(band)
    for rows in chunks(len(residual), 8 * num_points, coordinate.device):
        frequencies = slice_frequencies(band, residual.rotation[rows]).reshape(-1, 3)
        corners = Corners.around(lattice, frequencies)
        weight = residual.weight[rows]
        first = torch.einsum("b,bz,btp->zbtp", weight, centred[rows], residual.score[rows])
        square = torch.einsum("b,bw,btp->wbtp", weight, second[rows].flatten(1), residual.power[rows])
        for total, values in zip((*numerator, *denominator), (*first, *square), strict=True):
            add(total, corners, values.flatten())
    shells = lattice.distance(coordinate.device).round().long().flatten().clamp(max=lattice.radius + 1)
    precision = denominator.T.unflatten(1, (z_dim, z_dim))
    trace = precision.diagonal(dim1=1, dim2=2).mean(1)
    count = torch.bincount(shells)
    typical = torch.zeros_like(count, dtype=trace.dtype).index_add_(0, shells, trace) / count
    damping = _LEAST_SHARE * typical[shells] + 1e-6 * typical.max() + 1e-20
    precision = precision + damping[:, None, None] * torch.eye(z_dim, device=trace.device)
    values = torch.linalg.solve(precision, numerator.T[:, :, None])[:, :, 0]
    values = torch.where((shells <= lattice.radius)[:, None], values, 0.0)
    return to_frequency(to_real_space(values.T.unflatten(1, lattice.shape)) * mask)


def _in_principal_axes(components: Float[Tensor, "z n n n"]) -> Float[Tensor, "z n n n"]:
    """The same space of maps spanned by orthogonal components, the largest first."""
    flat = components.flatten(1)
    energy, axes = torch.linalg.eigh(flat @ flat.T)
    return (axes[:, energy.argsort(descending=True)].T @ flat).view_as(components)


def _weighted_mean(values: Float[Tensor, "b z"], weight: Float[Tensor, "b"]) -> Float[Tensor, "z"]:
    return (weight[:, None] * values).sum(0) / weight.sum().clamp(min=1e-20)
