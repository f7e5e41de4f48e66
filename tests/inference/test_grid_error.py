"""What a grid leaves unsaid is noise: little on a fine grid, all of the signal on a coarse one."""

import torch

from cryohydra.fourier.band import Band
from cryohydra.inference.grid_error import GridError

BAND = Band(32, 9)


def test_a_finer_grid_leaves_less_unsaid(blobs) -> None:
    coarse, fine, finest = (GridError.of_grid(blobs, BAND, level, 2.0 / 2**level) for level in (1, 3, 5))
    outer = BAND.shells >= 6
    assert float(coarse.kept[:, outer].mean()) < 0.7 < 0.9 < float(fine.kept[:, outer].mean())
    assert float(finest.kept.min()) > 0.98
    assert float((coarse.variance - fine.variance)[:, outer].min()) > 0


def test_signal_and_what_is_unsaid_make_up_the_slice(blobs) -> None:
    error = GridError.of_grid(blobs, BAND, 2, 1.0)
    slices = blobs.on_grid(BAND, torch.linalg.qr(torch.randn(400, 3, 3))[0])
    power = slices.square().mean((1, 2))
    explained = (error.kept.square() * slices.square().mean(1)).mean(1)
    torch.testing.assert_close(explained + error.variance.mean(1), power, rtol=0.2, atol=0)


def test_noise_that_nothing_is_added_to_stays_as_it_is(blobs, take_images) -> None:
    images = take_images(blobs, BAND, 6, signal=50.0).weighted
    none = GridError(torch.ones(2, len(BAND)), torch.zeros(2, len(BAND)))
    seen, offset = none.weigh(images, torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(seen.score, images.score)
    torch.testing.assert_close(seen.power, images.power)
    assert offset.tolist() == [0.0] * 6


def test_likelihoods_with_more_noise_are_the_normal_distributions_own(blobs, take_images) -> None:
    """log N(y; C V, 1 + C^2 v) - log N(y; 0, 1), written out."""
    images = take_images(blobs, BAND, 4, signal=50.0)
    variance = 0.02 + 0.05 * torch.rand(2, len(BAND), generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 1, 1, 0])
    slices = blobs.of_candidates(BAND, classes, images.rotation)
    seen, offset = GridError(torch.ones_like(variance), variance).weigh(images.weighted, classes)
    found = (seen.score[:, 0] * slices).sum(1) - 0.5 * (seen.power[:, 0] * slices.square()).sum(1) + offset
    ctf = -images.weighted.power[:, 0].sqrt()
    observed = images.weighted.score[:, 0] / ctf
    with_more = torch.distributions.Normal(ctf * slices, (1 + ctf.square() * variance[classes]).sqrt())
    alone = torch.distributions.Normal(torch.zeros_like(ctf), torch.ones_like(ctf))
    expected = (with_more.log_prob(observed) - alone.log_prob(observed)).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
