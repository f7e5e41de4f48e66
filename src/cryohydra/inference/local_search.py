"""Poses between the points of any grid: Gauss-Newton steps on the likelihood from where they are.

A small turn of the density adds three images to its slice (`SliceSource.with_tangents`), a small shift two: around a
pose the prediction is linear in both, and the likelihood's maximum a small linear system per image.
"""

import math
from dataclasses import dataclass

import torch

from cryohydra._device import chunks
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix, rotation_vector_to_matrix
from cryohydra.inference.evidence import expected_contrast, log_likelihood_over_contrast
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.slices import SliceSource

_REACH = 0.15
"""Radians that a turn may take in one step, one standard deviation of the prior that damps it."""
_REACH_PX = 1.0


@dataclass(frozen=True)
class LocalSteps:
    """How far poses may move."""

    count: int = 2
    """Zero compares at the poses as they are."""
    shifts: bool = True
    """Whether shifts move, or turns alone."""


@dataclass(frozen=True)
class LocalPoses:
    """Poses of pairs of image and class, and how well they fit."""

    rotation: Float[Tensor, "m t 3 3"]
    shift_px: Float[Tensor, "m t 2"]
    log_likelihood: Float[Tensor, "m"]
    """Over that of noise alone, contrast integrated out."""


def sharpen_poses(
    slices: SliceSource,
    images: WeightedImages,
    band: Band,
    image: Int[Tensor, "m"],
    class_index: Int[Tensor, "m"],
    rotation: Float[Tensor, "m t 3 3"],
    shift_px: Float[Tensor, "m t 2"],
    steps: LocalSteps,
) -> LocalPoses:
    """Move poses to the likeliest nearby; none ends less likely than it began.

    The tilts of a particle turn together, as one rigid body; each has its own shift.

    Args:
        images: On the band.
        image: Which of them each pose is of.
        class_index: The density to compare with.
    """
    size = rotation.shape[1] * len(band)
    # One class after the other: its map stays at hand.
    order = class_index.argsort()
    parts = [
        _sharpen(slices, images.rows(image[rows]), band, class_index[rows], rotation[rows], shift_px[rows], steps)
        for rows in (order[some] for some in chunks(len(order), 4 * size, order.device))
    ]
    back = order.argsort()
    return LocalPoses(
        rotation=torch.cat([part.rotation for part in parts])[back],
        shift_px=torch.cat([part.shift_px for part in parts])[back],
        log_likelihood=torch.cat([part.log_likelihood for part in parts])[back],
    )


def _sharpen(
    slices: SliceSource,
    images: WeightedImages,
    band: Band,
    class_index: Tensor,
    rotation: Tensor,
    shift_px: Tensor,
    steps: LocalSteps,
) -> LocalPoses:
    best = None
    num_tilts = rotation.shape[1]
    of_tilt = class_index.repeat_interleave(num_tilts)
    for remaining in range(steps.count, -1, -1):
        if remaining:
            cut, tangents = slices.with_tangents(band, of_tilt, rotation.flatten(0, 1))
        else:
            cut = slices.of_candidates(band, of_tilt, rotation.flatten(0, 1))
        cut = cut.unflatten(0, (-1, num_tilts))
        centred = shift_hartley(images.score, band.frequencies, -shift_px)
        score, power = (centred * cut).sum((1, 2)), (images.power * cut.square()).sum((1, 2))
        here = LocalPoses(rotation, shift_px, log_likelihood_over_contrast(score, power))
        best = here if best is None else likelier(best, here)
        if remaining:
            contrast = expected_contrast(score, power)[:, None, None]
            turn, shift = _step(
                contrast[..., None] * tangents.unflatten(0, (-1, num_tilts)),
                contrast[..., None] * _shift_tangents(cut, band) * float(steps.shifts),
                centred - contrast * images.power * cut,
                images.power,
            )
            rotation = rotation @ rotation_vector_to_matrix(turn)[:, None]
            rotation = quaternion_to_matrix(matrix_to_quaternion(rotation))
            shift_px = shift_px + shift
    assert best is not None
    return best


def _shift_tangents(cut: Float[Tensor, "m t p"], band: Band) -> Float[Tensor, "m t 2 p"]:
    """What moving a slice adds to it, per pixel along x and y."""
    return 2 * math.pi * band.frequencies.T * cut.flip(-1)[:, :, None]


def _step(
    turns: Float[Tensor, "m t 3 p"],
    shifts: Float[Tensor, "m t 2 p"],
    residual: Float[Tensor, "m t p"],
    power: Float[Tensor, "m t p"],
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m t 2"]]:
    """Solve for one turn of all tilts and a shift of each, every tilt's shift eliminated first."""
    weighed = power[:, :, None] * turns
    turn_turn = torch.einsum("mtip,mtjp->mij", weighed, turns) + torch.eye(3, device=power.device) / _REACH**2
    shift_turn = torch.einsum("mtap,mtjp->mtaj", shifts, weighed)
    shift_shift = torch.einsum("mtap,mtp,mtbp->mtab", shifts, power, shifts)
    shift_shift = shift_shift + torch.eye(2, device=power.device) / _REACH_PX**2
    of_turn = torch.einsum("mtip,mtp->mi", turns, residual)
    of_shift = torch.einsum("mtap,mtp->mta", shifts, residual)
    solved = torch.linalg.solve(shift_shift, torch.cat([shift_turn, of_shift[..., None]], dim=-1))
    reduced = turn_turn - torch.einsum("mtai,mtaj->mij", shift_turn, solved[..., :3])
    turn = torch.linalg.solve(reduced, of_turn - torch.einsum("mtai,mta->mi", shift_turn, solved[..., 3]))
    return turn, solved[..., 3] - torch.einsum("mtaj,mj->mta", solved[..., :3], turn)


def likelier(one: LocalPoses, other: LocalPoses) -> LocalPoses:
    """Of each two poses the likelier."""
    is_other = other.log_likelihood > one.log_likelihood
    return LocalPoses(
        rotation=torch.where(is_other[:, None, None, None], other.rotation, one.rotation),
        shift_px=torch.where(is_other[:, None, None], other.shift_px, one.shift_px),
        log_likelihood=torch.where(is_other, other.log_likelihood, one.log_likelihood),
    )
