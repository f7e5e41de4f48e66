"""Soft assignment to a grid: what exhaustive comparison finds, its transpose, and what pruning leaves of it."""

import pytest
import torch

from cryohydra.inference.grid_posterior import ExhaustivePosterior, GridPosterior, PrunedPosterior

NUM_CLASSES, NUM_ROTATIONS, NUM_SHIFTS, NUM_IMAGES, NUM_POINTS = 2, 12, 3, 5, 20
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def inputs(generator: torch.Generator) -> Inputs:
    """Slices, scores, powers and the shifts' prior."""
    slices = torch.randn(NUM_CLASSES, NUM_ROTATIONS, NUM_POINTS, generator=generator)
    score = torch.randn(NUM_IMAGES, NUM_SHIFTS, NUM_POINTS, generator=generator)
    power = torch.rand(NUM_IMAGES, NUM_POINTS, generator=generator)
    log_prior = torch.log_softmax(torch.randn(NUM_SHIFTS, generator=generator), dim=0)
    return slices, score, power, log_prior


def _log_likelihood(inputs: Inputs) -> torch.Tensor:
    """Of every image, class, shift and rotation, with the prior; written out."""
    slices, score, power, log_prior = inputs
    product = torch.einsum("kqp,bsp->bksq", slices, score)
    return product - 0.5 * torch.einsum("kqp,bp->bkq", slices.square(), power)[:, :, None] + log_prior[:, None]


def _every_rotation() -> torch.Tensor:
    return torch.arange(NUM_ROTATIONS).expand(NUM_IMAGES, NUM_CLASSES, -1)


def _pruned(inputs: Inputs, index: torch.Tensor) -> PrunedPosterior:
    return PrunedPosterior(*inputs, index)


@pytest.mark.parametrize("is_pruned", [False, True])
def test_evidence_sums_over_shifts_and_rotations(inputs: Inputs, is_pruned: bool) -> None:
    found: GridPosterior = _pruned(inputs, _every_rotation()) if is_pruned else ExhaustivePosterior(*inputs)
    expected = _log_likelihood(inputs)
    torch.testing.assert_close(found.log_evidence, expected.flatten(2).logsumexp(2))
    best = expected.flatten(2).argmax(2)
    torch.testing.assert_close(found.rotation_index, best % NUM_ROTATIONS)
    torch.testing.assert_close(found.shift_index, best // NUM_ROTATIONS)
    torch.testing.assert_close(found.shift_mass, expected.logsumexp(3).softmax(2))


@pytest.mark.parametrize("is_pruned", [False, True])
def test_sums_are_the_posteriors_own(inputs: Inputs, is_pruned: bool, generator: torch.Generator) -> None:
    found: GridPosterior = _pruned(inputs, _every_rotation()) if is_pruned else ExhaustivePosterior(*inputs)
    share = torch.rand(NUM_IMAGES, NUM_CLASSES, generator=generator)
    posterior = share[:, :, None, None] * _log_likelihood(inputs).flatten(2).softmax(2).unflatten(2, (NUM_SHIFTS, -1))
    _, score, power, _ = inputs
    numerator, denominator = found.sums(share)
    torch.testing.assert_close(numerator, torch.einsum("bksq,bsp->kqp", posterior, score))
    torch.testing.assert_close(denominator, torch.einsum("bksq,bp->kqp", posterior, power))


def test_what_is_pruned_has_none_of_the_posterior(inputs: Inputs) -> None:
    index = ExhaustivePosterior(*inputs).heaviest(4)
    found = _pruned(inputs, index)
    whole = _log_likelihood(inputs)
    kept = whole.take_along_dim(index[:, :, None].expand(-1, -1, NUM_SHIFTS, -1), 3)
    torch.testing.assert_close(found.log_evidence, kept.flatten(2).logsumexp(2))
    numerator, _ = found.sums(torch.ones(NUM_IMAGES, NUM_CLASSES))
    untouched = torch.ones(NUM_CLASSES, NUM_ROTATIONS, dtype=torch.bool)
    for k in range(NUM_CLASSES):
        untouched[k, index[:, k].unique()] = False
    assert not bool(numerator[untouched].any())
    # The heaviest four of twelve hold most of it: nothing likelier was pruned.
    assert bool((found.log_evidence > whole.flatten(2).logsumexp(2) - 1.5).all())
