"""Simulated images against the image model, taken apart."""

import math

import pytest
import torch

from cryohydra.errors import InputMismatch, UserError
from cryohydra.fourier.band import Band, largest_radius
from cryohydra.fourier.gridding import FourierSampler
from cryohydra.fourier.hartley import image_to_hartley, shift_hartley
from cryohydra.geometry.rotations import random_rotations
from cryohydra.physics.ctf import contrast_transfer
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.mixture_classes import MixtureClass, rigid_class
from cryohydra.physics.simulation import Imaging, draw_noise, image_density, noise_power, simulate_particles

BOX = 32


def points(centres, box_size=BOX):
    """Soft points, (x, y, z) from the centre."""
    axis = torch.arange(box_size) - box_size // 2
    volume = torch.zeros(box_size, box_size, box_size)
    for x, y, z in centres:
        square = (axis[:, None, None] - z) ** 2 + (axis[:, None] - y) ** 2 + (axis - x) ** 2
        volume += torch.exp(-square / 4.5)
    return volume


def spot(x, y, box_size=BOX):
    axis = torch.arange(box_size) - box_size // 2
    return torch.exp(-((axis[:, None] - y) ** 2 + (axis - x) ** 2) / 4.5) * math.sqrt(4.5 * math.pi)


def test_a_projection_shows_points_where_the_pose_puts_them(generator):
    rotation = random_rotations(20, generator)
    shift = torch.randn(20, 2, generator=generator) * 2
    point = torch.tensor([5.0, -2.0, 6.0])
    images = image_density(FourierSampler(points([point.tolist()])), rotation[:, None], shift[:, None])[:, 0]
    for image, R, t in zip(images, rotation, shift, strict=True):
        x, y = ((R @ point)[:2] + t).tolist()
        wanted = spot(x, y)
        assert float((image - wanted).norm() / wanted.norm()) < 0.01


def test_without_rotation_it_is_the_sum_along_z():
    volume = points([(3, 4, -5), (-6, 0, 2)])
    image = image_density(FourierSampler(volume), torch.eye(3)[None, None], torch.zeros(1, 1, 2))[0, 0]
    assert float((image - volume.sum(0)).norm() / volume.sum(0).norm()) < 0.005


def test_images_follow_the_model_of_the_package(generator):
    # contrast * CTF * shift(slice), each by the package's own functions, in the band that is compared.
    volume = demo_class("spliceosome", BOX, 13.0).maps[0]
    made = simulate_particles(
        [rigid_class("one", volume)],
        Imaging(13.0, snr=math.inf, shift_std_px=1.5, contrast_std=0.2, defocus_angstrom=(8000.0, 20000.0)),
        12,
        generator,
    )
    band = Band(BOX, largest_radius(BOX))
    observed = band.gather(image_to_hartley(made.images))[:, 0]
    plane = torch.nn.functional.pad(band.frequencies, (0, 1))
    slices = FourierSampler(made.maps[0]).at(plane @ made.pose.rotation[:, 0, 0]) / BOX
    hartley = shift_hartley(slices.real - slices.imag, band.frequencies, made.pose.shift_px[:, 0, 0])
    expected = made.contrast[:, None] * contrast_transfer(made.optics, band.frequencies)[:, 0] * hartley
    assert float((observed - expected).norm() / expected.norm()) < 1e-3


def test_junk_is_noise_alone_beside_particles_that_are_as_clear_as_ever(generator):
    volume = demo_class("spliceosome", BOX, 13.0).maps[0]
    made = simulate_particles([rigid_class("one", volume)], Imaging(13.0, snr=1.0, junk=0.25), 400, generator)
    variance = made.images.var((-2, -1), correction=0).flatten()
    is_junk = made.contrast == 0
    assert int(is_junk.sum()) == 100
    assert float(variance[is_junk].mean()) == pytest.approx(1.0, rel=0.02)
    assert float(variance[~is_junk].mean()) == pytest.approx(2.0, rel=0.03)


def test_particles_are_dark_on_white_inside(generator):
    volume = points([(0, 0, 0)])
    made = simulate_particles([rigid_class("one", volume)], Imaging(6.0, snr=math.inf), 4, generator)
    middle = made.images[:, 0, BOX // 2, BOX // 2]
    assert bool((middle < made.images.flatten(1).mean(1)).all())


@pytest.mark.parametrize("noise", ["white", "coloured"])
def test_snr_is_the_ratio_of_variances_over_the_whole_box(generator, noise):
    classes = [demo_class("spliceosome", BOX, 13.0), demo_class("tric", BOX, 13.0)]
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    noisy = simulate_particles(classes, Imaging(13.0, snr=0.25, noise=noise), 200, seeds[0])
    clean = simulate_particles(classes, Imaging(13.0, snr=math.inf, noise=noise), 200, seeds[1])
    # Without noise the signal has a variance of one, with noise the noise has.
    added = noisy.images - clean.images * math.sqrt(0.25)
    assert float(clean.images.var((-2, -1), correction=0).mean()) == pytest.approx(1.0, rel=1e-4)
    assert float(added.var((-2, -1)).mean()) == pytest.approx(1.0, rel=0.02)
    torch.testing.assert_close(noisy.maps, clean.maps * math.sqrt(0.25))


def test_coloured_noise_has_the_power_it_tells(generator):
    power = noise_power("coloured", BOX)
    noise = draw_noise(power, 400, BOX, generator)
    band = Band(BOX, largest_radius(BOX))
    found = band.gather(image_to_hartley(noise)).square().mean(0)
    shell = torch.zeros(BOX // 2).index_add(0, band.shells, found) / torch.bincount(band.shells).clamp(min=1)
    # A shell's points spread by half a Fourier pixel around it on a curve that falls: a few per cent.
    torch.testing.assert_close(shell[2:], power[2:-1], rtol=0.08, atol=0)
    assert float(power[1] / power[-1]) > 3


def test_shares_are_kept_exactly(generator):
    classes = [rigid_class(str(k), points([(k, 0, 0)])).with_share(share) for k, share in enumerate((5.0, 3.0, 2.0))]
    made = simulate_particles(classes, Imaging(5.0), 100, generator)
    assert torch.bincount(made.labels).tolist() == [50, 30, 20]
    assert not torch.equal(made.labels, made.labels.sort().values)


def test_the_coordinate_says_which_map_is_shown(generator):
    maps = torch.stack([points([(x, 0, 0)]) for x in (-8, 0, 8)])
    moving = MixtureClass("moving", maps, torch.tensor([-8.0, 0.0, 8.0]))
    made = simulate_particles([moving], Imaging(5.0, snr=math.inf), 30, generator)
    assert set(made.coordinate.tolist()) == {-8.0, 0.0, 8.0}
    for image, R, coordinate, optics_row in zip(
        made.images[:, 0], made.pose.rotation[:, 0, 0], made.coordinate, range(30), strict=True
    ):
        x, y = (coordinate * R[:2, 0]).tolist()
        own = image_density(
            FourierSampler(points([(float(coordinate), 0, 0)])), R[None, None], torch.zeros(1, 1, 2),
            made.optics[slice(optics_row, optics_row + 1)],
        )[0, 0]  # fmt: skip
        assert float(torch.corrcoef(torch.stack([image.flatten(), own.flatten()]))[0, 1]) > 0.999
        assert abs(x) <= 8 and abs(y) <= 8


def test_the_same_seed_gives_the_same_images():
    def images(seed):
        made = simulate_particles([rigid_class("a", points([(2, 1, 0)]))], Imaging(5.0), 5,
                                  torch.Generator().manual_seed(seed))  # fmt: skip
        return made.images

    assert torch.equal(images(1), images(1))
    assert not torch.equal(images(1), images(2))


def test_tilts_show_one_particle_from_several_sides(generator):
    angles = tuple(math.radians(angle) for angle in (0.0, 30.0, -30.0))
    imaging = Imaging(5.0, snr=math.inf, tilt_angles=angles, dose_per_tilt=3.0)
    made = simulate_particles([rigid_class("a", points([(4, 0, 0)]))], imaging, 6, generator)
    assert made.images.shape == (6, 3, BOX, BOX)
    rotation = made.pose.rotation[:, :, 0]
    about_y = rotation[:, 1] @ rotation[:, 0].mT
    torch.testing.assert_close(about_y[:, 1, 1], torch.ones(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(about_y[:, 0, 0], torch.full((6,), math.cos(math.radians(30))), atol=1e-5, rtol=0)
    assert made.optics.dose_electrons_per_square_angstrom[0].tolist() == [3.0, 6.0, 9.0]


def test_what_cannot_be_simulated_is_refused(generator):
    with pytest.raises(UserError, match="at least one class"):
        simulate_particles([], Imaging(5.0), 10, generator)
    with pytest.raises(InputMismatch, match=r"\[16, 32\]"):
        both = [rigid_class("a", points([(0, 0, 0)])), rigid_class("b", points([(0, 0, 0)], 16))]
        simulate_particles(both, Imaging(5.0), 10, generator)
    with pytest.raises(UserError, match="empty"):
        simulate_particles([rigid_class("a", torch.zeros(16, 16, 16))], Imaging(5.0), 10, generator)
    with pytest.raises(UserError, match="SNR"):
        Imaging(5.0, snr=0.0)
