"""Maps come back from images whose classes and poses are known."""

import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.inference.partition import half_of, part_of
from cryohydra.inference.reconstruction import ClassSums, particle_mask

LATTICE, BAND = Lattice(32, 9), Band(32, 9)


def _sums(blobs, images, weight: torch.Tensor, num_parts: int = 2) -> ClassSums:
    sums = ClassSums.empty(LATTICE, 2, num_parts=num_parts)
    num_images = len(images.labels)
    sums.add(
        images.weighted,
        BAND,
        part_of(torch.arange(num_images), num_parts),
        weight,
        torch.arange(2).expand(num_images, 2),
        images.rotation[:, None, None].expand(-1, 2, 1, 3, 3),
        images.shift_px[:, None, None].expand(-1, 2, 1, 2),
    )
    return sums


def test_maps_come_back_and_say_how_far_they_are_known(blobs, take_images) -> None:
    images = take_images(blobs, BAND, 400, signal=3000.0, shift_std_px=1.0)
    sums = _sums(blobs, images, torch.nn.functional.one_hot(images.labels, 2).float())
    maps = sums.solve(particle_mask(LATTICE)).maps
    true = blobs.on_lattice(LATTICE)
    inside = LATTICE.distance() <= 7
    for k in range(2):
        found, expected = maps.values[k][inside], true[k][inside]
        assert float((found * expected).sum() / found.norm() / expected.norm()) > 0.97
    assert maps.known_radius() >= 7


def test_noise_is_known_to_be_nothing(blobs, take_images) -> None:
    images = take_images(blobs, BAND, 200, signal=1e-3)
    maps = _sums(blobs, images, torch.full((200, 2), 0.5)).solve(particle_mask(LATTICE)).maps
    assert maps.known_radius() <= 3


def test_a_class_without_images_is_empty_and_finite(blobs, take_images) -> None:
    images = take_images(blobs, BAND, 50, signal=300.0)
    weight = torch.tensor([1.0, 0.0]).expand(50, 2)
    maps = _sums(blobs, images, weight).solve(particle_mask(LATTICE)).maps
    assert bool(maps.values.isfinite().all())
    assert float(maps.values[1].abs().max()) < 1e-3 * float(maps.values[0].abs().max())


def test_lattices_are_cut_and_padded_around_zero() -> None:
    values = torch.randn(1, LATTICE.size, LATTICE.size, LATTICE.size)
    wider = enlarge(values, Lattice(32, 12))
    torch.testing.assert_close(enlarge(wider, LATTICE), values)


def test_a_half_knows_nothing_of_the_other_halfs_images(blobs, take_images) -> None:
    images = take_images(blobs, BAND, 100, signal=300.0)
    mask = particle_mask(LATTICE)
    # The class of odd particles is the other one; that of even ones stays.
    right = torch.nn.functional.one_hot(images.labels, 2).float()
    changed = torch.where((half_of(torch.arange(100)) == 1)[:, None], 1 - right, right)
    before, after = (_sums(blobs, images, weight).solve(mask).with_halves().halves for weight in (right, changed))
    # Damping, one number for each shell, may differ, and with it a little across shells: the halves agree less.
    shell = LATTICE.distance().round() == 4
    for half, least, most in ((0, 0.88, 1.001), (1, -1.0, 0.6)):
        cosine = torch.nn.functional.cosine_similarity(*(maps[half][:, shell] for maps in (before, after)), dim=1)
        assert bool(((cosine > least) & (cosine < most)).all())


def test_parts_make_the_maps_of_their_images(blobs, take_images) -> None:
    """Those of all together, and those of all others where one is taken out."""
    images = take_images(blobs, BAND, 400, signal=300.0)
    right = torch.nn.functional.one_hot(images.labels, 2).float()
    mask = particle_mask(LATTICE)
    parts = _sums(blobs, images, right, num_parts=8)
    others = right * (part_of(torch.arange(400), 8) != 3)[:, None]
    for expected in (right, others):
        of_parts, of_halves = parts.solve(mask), _sums(blobs, images, expected).solve(mask)
        torch.testing.assert_close(of_parts.maps.values, of_halves.maps.values)
        torch.testing.assert_close(of_parts.with_halves().halves, of_halves.with_halves().halves)
        parts.forget(3)
