"""Images beside a whole grid, told by a quarter of its slices."""

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import GridSlicer, Lattice
from cryohydra.fourier.mirrors import mirrors_of
from cryohydra.geometry.so3_grid import all_rotations
from cryohydra.inference.whole_grid import WholeGridComparison

LEVEL, BAND = 1, Band(24, 6)
NUM_IMAGES, NUM_SHIFTS = 4, 5


# Log likelihoods lie within 8 of zero: six digits in float32, one part in 256 of each of four products in bfloat16.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_it_is_what_all_slices_say_one_by_one(dtype: torch.dtype, tolerance: float, generator: torch.Generator) -> None:
    lattice = Lattice(BAND.box_size, BAND.radius)
    volume = torch.randn(1, *lattice.shape, generator=generator)
    slices = GridSlicer(lattice, BAND, all_rotations(LEVEL)).cut(volume)[0]
    score = 0.3 * torch.randn(NUM_IMAGES, NUM_SHIFTS, len(BAND), generator=generator)
    power = 0.1 * torch.rand(NUM_IMAGES, len(BAND), generator=generator)
    log_prior = torch.log_softmax(torch.randn(NUM_SHIFTS, generator=generator), dim=0)
    expected = torch.einsum("bsp,qp->bsq", score, slices) + log_prior[:, None]
    expected -= 0.5 * (power @ slices.square().T)[:, None]

    mirrors = mirrors_of(BAND, LEVEL)
    comparison = WholeGridComparison(slices[mirrors.rotation_index[0]], mirrors, dtype)
    found = comparison.compare(score, power, log_prior)
    torch.testing.assert_close(found.log_mass, expected.logsumexp(1), atol=tolerance, rtol=0)
    torch.testing.assert_close(found.peak, expected.amax(1), atol=tolerance, rtol=0)
    rotation = torch.randint(len(slices), (NUM_IMAGES, 7), generator=generator)
    at_shift = expected.take_along_dim(rotation[:, None], 2).movedim(1, 2)
    reached = at_shift.gather(2, found.best_shift(rotation)[..., None])[..., 0]
    torch.testing.assert_close(reached, at_shift.amax(2), atol=tolerance, rtol=0)
