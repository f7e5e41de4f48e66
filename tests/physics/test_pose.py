"""Poses that follow their map into another frame."""

import pytest
import torch

from cryohydra.fourier.alignment import Alignment, apply_alignment
from cryohydra.fourier.band import Band
from cryohydra.fourier.gridding import FourierSampler
from cryohydra.geometry.rotations import random_rotations
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.pose import Pose, follow_map


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_an_aligned_map_gives_the_same_images_in_the_poses_that_follow_it(is_mirrored: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    density = demo_class("spliceosome", 32, 13.0).maps[0]
    pose = Pose(random_rotations(6, generator)[:, None, None], torch.randn(6, 1, 1, 2, generator=generator))
    shift = torch.tensor([1.5, -2.0, 0.7])
    alignment = Alignment(random_rotations(1, generator)[0], shift, is_mirrored, 0.0)
    before = images(density, pose)
    after = images(apply_alignment(density, alignment), follow_map(pose, alignment))
    # Twice interpolated.
    assert float((after - before).norm() / before.norm()) < 0.01
    stayed = images(apply_alignment(density, alignment), pose)
    assert float((stayed - before).norm() / before.norm()) > 0.5


def images(density: torch.Tensor, pose: Pose) -> torch.Tensor:
    """Central slices of a density, shifted, as plain Fourier sums."""
    frequencies = Band(density.shape[-1], 12).frequencies
    plane = torch.nn.functional.pad(frequencies, (0, 1))
    slices = FourierSampler(density).at(plane @ pose.rotation)
    phase = -2 * torch.pi * (pose.shift_px @ frequencies.T)
    return slices * torch.polar(torch.ones_like(phase), phase)
