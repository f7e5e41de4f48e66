"""What differs between images of one class is found, and where each image lies."""

import numpy as np
import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice, slice_frequencies
from cryohydra.geometry.rotations import random_rotations
from cryohydra.inference.images import weigh_images
from cryohydra.inference.reconstruction import particle_mask
from cryohydra.inference.variation import PosedImages, find_components, locate_images

LATTICE, BAND = Lattice(32, 7), Band(32, 7)
NUM_IMAGES = 500


@pytest.fixture(scope="module")
def moved(blobs) -> tuple[PosedImages, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of the first class plus z times the second, the mean map, the component and z."""
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(NUM_IMAGES, generator)
    z = torch.randn(NUM_IMAGES, generator=generator)
    frequencies = slice_frequencies(BAND, rotation)
    slope = 0.3
    clean = blobs.of_class(0, frequencies) + slope * z[:, None] * blobs.of_class(1, frequencies)
    ctf = -torch.full_like(clean, float(20 / clean.square().sum(1).mean().sqrt()))
    observed = ctf * clean + torch.randn(clean.shape, generator=generator)
    weighted = weigh_images(observed[:, None], ctf[:, None], torch.ones_like(ctf)[:, None])
    images = PosedImages(weighted.score, weighted.power, rotation[:, None], torch.ones(NUM_IMAGES))
    mean, component = blobs.on_lattice(LATTICE)
    return images, mean, slope * component, z


def _find(moved, z_dim: int) -> torch.Tensor:
    images, mean, _, _ = moved
    mask = particle_mask(LATTICE)
    return find_components(images, BAND, LATTICE, mean, mask, z_dim, torch.Generator().manual_seed(1))


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    inside = LATTICE.distance() <= LATTICE.radius - 1
    return float((a * b)[inside].sum() / a[inside].norm() / b[inside].norm())


@pytest.mark.parametrize("z_dim", [1, 2])
def test_the_component_and_the_coordinates_come_back(moved, z_dim: int) -> None:
    images, mean, component, z = moved
    found = _find(moved, z_dim)
    assert abs(_cosine(found[0], component)) > 0.8
    located = locate_images(images, BAND, LATTICE, mean, found)
    assert located.shape == (NUM_IMAGES, z_dim)
    assert abs(np.corrcoef(located[:, 0].numpy(), z.numpy())[0, 1]) > 0.95


def test_components_are_orthogonal_and_the_largest_comes_first(moved) -> None:
    flat = _find(moved, 2).flatten(1)
    product = flat @ flat.T
    assert float(product[0, 0]) > 2 * float(product[1, 1])
    assert abs(float(product[0, 1])) < 1e-3 * float(product[0, 0])
