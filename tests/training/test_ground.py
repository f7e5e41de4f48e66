"""What keeps noise out of maps that climb."""

import pytest
import torch

from cryohydra._typing import Tensor
from cryohydra.fourier.lattice import Lattice, to_frequency, to_real_space
from cryohydra.inference.reconstruction import particle_mask
from cryohydra.training.ground import confined

LATTICE = Lattice(32, 10)


@pytest.fixture
def ball() -> Tensor:
    """A small particle in the middle of its box, in real space."""
    distance = LATTICE.real_space_radius_px() / LATTICE.box_size
    return (-(distance / 0.1).square()).exp()


def test_noise_around_a_particle_goes(ball: Tensor) -> None:
    noise = 0.05 * torch.randn(LATTICE.shape, generator=torch.Generator().manual_seed(0)) * particle_mask(LATTICE)
    outside = particle_mask(LATTICE) * (LATTICE.real_space_radius_px() / LATTICE.box_size > 0.3)
    left = confined(LATTICE, to_frequency((ball + noise)[None]))[0]
    assert float((left * outside).square().sum()) < 0.05 * float((noise * outside).square().sum())


def test_the_particle_stays(ball: Tensor) -> None:
    left = confined(LATTICE, to_frequency(ball[None]))[0]
    band_limited = to_real_space(to_frequency(ball[None]))[0]
    assert float((left - band_limited).norm() / band_limited.norm()) < 0.05
