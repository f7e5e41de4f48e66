"""Steps from poses that are nearly right to those that are."""

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.rotations import geodesic_angle, rotation_vector_to_matrix
from cryohydra.inference.local_search import LocalSteps, sharpen_poses
from cryohydra.inference.slices import GridSlicers, LatticeSlices

BAND = Band(32, 8)
# Wider than the band: where a lattice ends, so does what is known of its slopes.
LATTICE = Lattice(32, 10)


@pytest.fixture(params=["exact", "interpolated"])
def slices(request, blobs):
    if request.param == "exact":
        return blobs
    return LatticeSlices(LATTICE, blobs.on_lattice(LATTICE), GridSlicers())


def _disturbed(images, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    turn = torch.nn.functional.normalize(torch.randn(len(images.rotation), 3, generator=generator), dim=-1)
    rotation = images.rotation @ rotation_vector_to_matrix(0.12 * turn)
    return rotation[:, None], (images.shift_px + 0.5 * torch.randn(len(rotation), 2, generator=generator))[:, None]


def test_tangents_are_what_a_small_turn_adds(slices, take_images, blobs, generator: torch.Generator) -> None:
    images = take_images(blobs, BAND, 6, signal=300.0)
    turn = 1e-2 * torch.randn(6, 3, generator=generator)
    there, back = (
        blobs.of_candidates(BAND, images.labels, images.rotation @ rotation_vector_to_matrix(sign * turn))
        for sign in (1, -1)
    )
    tangents = slices.tangents_of_candidates(BAND, images.labels, images.rotation)
    difference = torch.einsum("ma,map->mp", turn, tangents) - (there - back) / 2
    assert float(difference.norm() / (there - back).norm() * 2) < 0.1


def test_poses_seven_degrees_off_come_back(slices, blobs, take_images, generator: torch.Generator) -> None:
    images = take_images(blobs, BAND, 60, signal=20000.0, shift_std_px=1.0)
    rotation, shift = _disturbed(images, generator)
    found = sharpen_poses(slices, images.weighted, BAND, images.labels, rotation, shift, LocalSteps(count=4))
    assert float(geodesic_angle(found.rotation[:, 0], images.rotation).rad2deg().median()) < 1.0
    assert float((found.shift_px[:, 0] - images.shift_px).norm(dim=-1).median()) < 0.1


def test_no_pose_ends_less_likely(blobs, take_images, generator: torch.Generator) -> None:
    images = take_images(blobs, BAND, 40, signal=50.0)
    rotation, shift = _disturbed(images, generator)
    here = sharpen_poses(blobs, images.weighted, BAND, images.labels, rotation, shift, LocalSteps(count=0))
    torch.testing.assert_close(here.rotation, rotation)
    found = sharpen_poses(blobs, images.weighted, BAND, images.labels, rotation, shift, LocalSteps())
    assert bool((found.log_likelihood >= here.log_likelihood).all())


@pytest.mark.parametrize("steps", [LocalSteps(turns=False), LocalSteps(shifts=False)])
def test_what_may_not_move_stays(steps: LocalSteps, blobs, take_images, generator: torch.Generator) -> None:
    images = take_images(blobs, BAND, 10, signal=300.0, shift_std_px=1.0)
    rotation, shift = _disturbed(images, generator)
    found = sharpen_poses(blobs, images.weighted, BAND, images.labels, rotation, shift, steps)
    assert torch.allclose(found.rotation, rotation, atol=1e-5) == (not steps.turns)
    assert torch.equal(found.shift_px, shift) == (not steps.shifts)


def test_tilts_turn_as_one_body(blobs, take_images, generator: torch.Generator) -> None:
    """Two images of a particle keep the rotation between them, and together find what one alone finds less well."""
    images = take_images(blobs, BAND, 40, signal=20000.0)
    rotation, shift = _disturbed(images, generator)
    # Two tilts: the same image twice, seen from the same side.
    both = images.weighted
    both = type(both)(both.score.repeat(1, 2, 1), both.power.repeat(1, 2, 1), both.constant)
    found = sharpen_poses(
        blobs, both, BAND, images.labels, rotation.repeat(1, 2, 1, 1), shift.repeat(1, 2, 1), LocalSteps(count=4)
    )
    torch.testing.assert_close(found.rotation[:, 0], found.rotation[:, 1])
    assert float(geodesic_angle(found.rotation[:, 0], images.rotation).rad2deg().median()) < 1.0
