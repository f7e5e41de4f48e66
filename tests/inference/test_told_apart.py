"""Groups of images that differ are told from groups that were only formed by the noise in them."""

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice, slice_frequencies
from cryohydra.geometry.rotations import random_rotations
from cryohydra.inference.images import weigh_images
from cryohydra.inference.told_apart import ClassResiduals
from cryohydra.inference.variation import PosedImages, find_components, locate_images

LATTICE, BAND = Lattice(32, 7), Band(32, 7)
NUM_IMAGES = 400


def make_images(blobs, slope: float) -> tuple[PosedImages, torch.Tensor, torch.Tensor]:
    """Images of one map to which half of them add, and the others take away, a part of another; in much noise."""
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(NUM_IMAGES, generator)
    side = torch.arange(NUM_IMAGES) % 2 * 2.0 - 1
    frequencies = slice_frequencies(BAND, rotation)
    clean = blobs.of_class(0, frequencies) + slope * side[:, None] * blobs.of_class(1, frequencies)
    ctf = -torch.full_like(clean, float(10 / blobs.of_class(1, frequencies).square().sum(1).mean().sqrt()))
    observed = ctf * clean + torch.randn(clean.shape, generator=generator)
    weighted = weigh_images(observed[:, None], ctf[:, None], torch.ones_like(ctf)[:, None])
    images = PosedImages(weighted.score, weighted.power, rotation[:, None], torch.ones(NUM_IMAGES))
    return images, blobs.on_lattice(LATTICE)[0], side


def residuals_of(images: PosedImages, mean: torch.Tensor) -> ClassResiduals:
    return ClassResiduals.of(images, BAND, LATTICE, mean)


def rows(chosen: torch.Tensor) -> torch.Tensor:
    return torch.nonzero(chosen).flatten()


def test_two_states_are_told_apart_and_their_distance_is_measured(blobs) -> None:
    """They are two times slope times 10 standard deviations of the noise apart, by the scale of the images."""
    images, mean, side = make_images(blobs, 0.25)
    found = residuals_of(images, mean).separation(rows(side > 0), rows(side < 0), torch.Generator().manual_seed(1))
    assert found.is_told and found.num_images == NUM_IMAGES
    # The difference is itself found in noise, which makes it seem smaller.
    assert 3 < found.distance < 5.5


def test_groups_drawn_by_lot_differ_in_nothing(blobs) -> None:
    images, mean, _ = make_images(blobs, 0.0)
    lot = torch.randperm(NUM_IMAGES, generator=torch.Generator().manual_seed(2))
    found = residuals_of(images, mean).separation(lot[:150], lot[150:], torch.Generator().manual_seed(1))
    assert not found.is_told and found.variance == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("seed", range(3))
def test_groups_formed_by_the_noise_in_their_images_are_not_states(blobs, seed: int) -> None:
    """What a fit of all images does at worst: the direction in which noise varies most, and the images along it."""
    images, mean, _ = make_images(blobs, 0.0)
    residuals = residuals_of(images, mean)
    generator = torch.Generator().manual_seed(seed)
    component = find_components(images, BAND, LATTICE, mean, residuals.mask, 1, generator)
    along = locate_images(images, BAND, LATTICE, mean, component)[:, 0]
    groups = rows(along > along.median()), rows(along <= along.median())
    assert not residuals.separation(*groups, generator).is_told


@pytest.mark.parametrize("seed", range(2))
def test_images_of_one_structure_do_not_differ_and_those_of_two_do(blobs, seed: int) -> None:
    """Also where the two are too much alike for groups that all images have formed: chance may bring these to 2."""
    generator = torch.Generator().manual_seed(seed)
    one, two = (residuals_of(*make_images(blobs, slope)[:2]) for slope in (0.0, 0.15))
    assert not one.variety(generator).is_told
    found = two.variety(generator)
    assert found.is_told and found.variance < 2.0 and found.num_images == NUM_IMAGES
