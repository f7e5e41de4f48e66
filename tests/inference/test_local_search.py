"""Steps from poses that are nearly right to those that are."""

import pytest
import torch

from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.rotations import geodesic_angle, random_rotations, rotation_vector_to_matrix
from cryohydra.inference.images import weigh_images
from cryohydra.inference.local_search import LocalSteps, sharpen_poses
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.model.mixture import build_mixture
from cryohydra.model.slices import FieldSlices

BAND = Band(32, 8)
# Wider than the band: where a lattice ends, so does what is known of its slopes.
LATTICE = Lattice(32, 10)


@pytest.fixture(params=["exact", "interpolated"])
def slices(request, blobs):
    if request.param == "exact":
        return blobs
    return LatticeSlices.of_maps(LATTICE, blobs.on_lattice(LATTICE), GridSlicers())


def _disturbed(images, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    turn = torch.nn.functional.normalize(torch.randn(len(images.rotation), 3, generator=generator), dim=-1)
    rotation = images.rotation @ rotation_vector_to_matrix(0.12 * turn)
    return rotation[:, None], (images.shift_px + 0.5 * torch.randn(len(rotation), 2, generator=generator))[:, None]


def _sharpen(slices, images, rotation: torch.Tensor, shift: torch.Tensor, steps: LocalSteps):
    every = torch.arange(len(rotation))
    return sharpen_poses(slices, images.weighted, BAND, every, images.labels, rotation, shift, steps)


def test_tangents_are_what_a_small_turn_adds(slices, take_images, blobs, generator: torch.Generator) -> None:
    images = take_images(blobs, BAND, 6, signal=300.0)
    turn = 1e-2 * torch.randn(6, 3, generator=generator)
    there, back = (
        blobs.of_candidates(BAND, images.labels, images.rotation @ rotation_vector_to_matrix(sign * turn))
        for sign in (1, -1)
    )
    cut, tangents = slices.with_tangents(BAND, images.labels, images.rotation)
    torch.testing.assert_close(cut, slices.of_candidates(BAND, images.labels, images.rotation), atol=1e-3, rtol=1e-3)
    difference = torch.einsum("ma,map->mp", turn, tangents) - (there - back) / 2
    # The gradient of linear interpolation is constant between lattice points.
    assert float(difference.norm() / (there - back).norm() * 2) < 0.15


def test_poses_seven_degrees_off_come_back(slices, blobs, take_images, generator: torch.Generator) -> None:
    images = take_images(blobs, BAND, 60, signal=20000.0, shift_std_px=1.0)
    rotation, shift = _disturbed(images, generator)
    found = _sharpen(slices, images, rotation, shift, LocalSteps(count=4))
    assert float(geodesic_angle(found.rotation[:, 0], images.rotation).rad2deg().median()) < 1.0
    assert float((found.shift_px[:, 0] - images.shift_px).norm(dim=-1).median()) < 0.1


def test_no_pose_ends_less_likely(blobs, take_images, generator: torch.Generator) -> None:
    images = take_images(blobs, BAND, 40, signal=50.0)
    rotation, shift = _disturbed(images, generator)
    here = _sharpen(blobs, images, rotation, shift, LocalSteps(count=0))
    torch.testing.assert_close(here.rotation, rotation)
    found = _sharpen(blobs, images, rotation, shift, LocalSteps())
    assert bool((found.log_likelihood >= here.log_likelihood).all())


def test_shifts_that_may_not_move_stay(blobs, take_images, generator: torch.Generator) -> None:
    images = take_images(blobs, BAND, 10, signal=300.0, shift_std_px=1.0)
    rotation, shift = _disturbed(images, generator)
    found = _sharpen(blobs, images, rotation, shift, LocalSteps(shifts=False))
    assert torch.equal(found.shift_px, shift) and not torch.allclose(found.rotation, rotation, atol=1e-3)


def test_tilts_turn_as_one_body(blobs, generator: torch.Generator) -> None:
    """Two views of a particle keep the rotation between them, and both come right."""
    num_particles, band = 40, BAND
    body = random_rotations(num_particles, generator)
    tilts = rotation_vector_to_matrix(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.7, 0.2]]))
    true = tilts @ body[:, None]
    labels = torch.arange(num_particles) % 2
    clean = blobs.of_candidates(band, labels.repeat_interleave(2), true.flatten(0, 1)).unflatten(0, (-1, 2))
    ctf = -torch.full_like(clean, 100.0 / float(clean.norm(dim=-1).mean()))
    observed = ctf * clean + torch.randn(clean.shape, generator=generator)
    images = weigh_images(observed, ctf, torch.ones_like(ctf))
    axis = torch.nn.functional.normalize(torch.randn(num_particles, 3, generator=generator), dim=-1)
    begun = true @ rotation_vector_to_matrix(0.12 * axis)[:, None]
    every = torch.arange(num_particles)
    shift = torch.zeros(num_particles, 2, 2)
    found = sharpen_poses(blobs, images, band, every, labels, begun, shift, LocalSteps(count=4))
    between = found.rotation[:, 1] @ found.rotation[:, 0].mT
    torch.testing.assert_close(between, (true[:, 1] @ true[:, 0].mT), atol=1e-4, rtol=0)
    assert float(geodesic_angle(found.rotation, true).rad2deg().median()) < 1.0


def test_the_network_has_the_tangents_of_its_slices(generator: torch.Generator) -> None:
    mixture = build_mixture(
        MLPFieldConfig(width=16, layers=1), num_classes=2, box_size=32, z_dim=0, generator=generator
    )
    slices = FieldSlices(mixture, torch.zeros(2, 0))
    rotation, which = random_rotations(4, generator), torch.tensor([0, 1, 1, 0])
    turn = 0.001 * torch.randn(4, 3, generator=generator)
    there, back = (
        slices.of_candidates(BAND, which, rotation @ rotation_vector_to_matrix(sign * turn)) for sign in (1, -1)
    )
    added = torch.einsum("ma,map->mp", turn, slices.with_tangents(BAND, which, rotation)[1])
    assert float((added - (there - back) / 2).norm() / added.norm()) < 0.05
