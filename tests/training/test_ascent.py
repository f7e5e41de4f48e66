"""What keeps noise out of maps that climb."""

import pytest
import torch

from cryohydra._typing import Tensor
from cryohydra.fourier.lattice import Lattice, to_frequency, to_real_space
from cryohydra.inference.reconstruction import particle_mask
from cryohydra.training.ascent import drawn_to_density

LATTICE = Lattice(32, 10)


@pytest.fixture
def ball() -> Tensor:
    """A small particle in the middle of its box, in real space."""
    distance = LATTICE.real_space_radius_px() / LATTICE.box_size
    return (-(distance / 0.1).square()).exp()


@pytest.fixture
def noise() -> Tensor:
    density = 0.05 * torch.randn(LATTICE.shape, generator=torch.Generator().manual_seed(0))
    return density * particle_mask(LATTICE)


def _noise_left(ball: Tensor, noise: Tensor, share: float) -> float:
    outside = particle_mask(LATTICE) * (LATTICE.real_space_radius_px() / LATTICE.box_size > 0.3)
    drawn = drawn_to_density(LATTICE, to_frequency((ball + noise)[None]), share)[0]
    return float((drawn * outside).square().sum() / (noise * outside).square().sum())


def test_noise_around_a_particle_goes_as_far_as_a_step_does(ball: Tensor, noise: Tensor) -> None:
    assert _noise_left(ball, noise, 0.0) == pytest.approx(1.0, rel=1e-4)
    assert 0.2 < _noise_left(ball, noise, 0.5) < 0.35
    assert _noise_left(ball, noise, 1.0) < 0.05


def test_the_particle_stays(ball: Tensor) -> None:
    drawn = drawn_to_density(LATTICE, to_frequency(ball[None]), 1.0)[0]
    band_limited = to_real_space(to_frequency(ball[None]))[0]
    assert float((drawn - band_limited).norm() / band_limited.norm()) < 0.05
