"""Soft assignment to a grid: what exhaustive comparison finds, its transpose, and what pruning leaves of it."""

import pytest
import torch

from cryohydra.inference.grid_posterior import Compared, ExhaustivePosterior, GridPosterior, PrunedPosterior

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


def _pruned(inputs: Inputs, classes: torch.Tensor, rotations: torch.Tensor) -> PrunedPosterior:
    return PrunedPosterior(Compared(*inputs), classes, rotations)


def _all_compared(inputs: Inputs) -> PrunedPosterior:
    """Every class and rotation, in an order that no image shares with another."""
    order = torch.stack([torch.randperm(NUM_CLASSES * NUM_ROTATIONS) for _ in range(NUM_IMAGES)])
    return _pruned(inputs, order // NUM_ROTATIONS, order % NUM_ROTATIONS)


@pytest.mark.parametrize("is_pruned", [False, True])
def test_evidence_sums_over_shifts_and_rotations(inputs: Inputs, is_pruned: bool) -> None:
    found: GridPosterior = _all_compared(inputs) if is_pruned else ExhaustivePosterior(Compared(*inputs))
    expected = _log_likelihood(inputs)
    torch.testing.assert_close(found.log_evidence, expected.flatten(2).logsumexp(2))
    best = expected.flatten(2).argmax(2)
    torch.testing.assert_close(found.rotation_index, best % NUM_ROTATIONS)
    torch.testing.assert_close(found.shift_index, best // NUM_ROTATIONS)


@pytest.mark.parametrize("is_pruned", [False, True])
def test_sums_are_the_posteriors_own(inputs: Inputs, is_pruned: bool, generator: torch.Generator) -> None:
    found: GridPosterior = _all_compared(inputs) if is_pruned else ExhaustivePosterior(Compared(*inputs))
    share = torch.rand(NUM_IMAGES, NUM_CLASSES, generator=generator)
    posterior = share[:, :, None, None] * _log_likelihood(inputs).flatten(2).softmax(2).unflatten(2, (NUM_SHIFTS, -1))
    _, score, power, _ = inputs
    numerator, denominator = found.sums(share)
    torch.testing.assert_close(numerator, torch.einsum("bksq,bsp->kqp", posterior, score))
    torch.testing.assert_close(denominator, torch.einsum("bksq,bp->kqp", posterior, power))
    torch.testing.assert_close(found.mass_of_shifts(share), posterior.sum((0, 1, 3)) / share.sum())


def test_what_is_pruned_has_none_of_the_posterior(inputs: Inputs) -> None:
    everything = ExhaustivePosterior(Compared(*inputs))
    share = everything.log_evidence.softmax(1)
    classes, rotations = everything.heaviest(share, 6, mass=1.0)
    posterior = (share[:, :, None] * _log_likelihood(inputs).logsumexp(2).softmax(2)).flatten(1)
    heaviest = posterior.topk(6, dim=1).indices
    torch.testing.assert_close(classes * NUM_ROTATIONS + rotations, heaviest)
    found = _pruned(inputs, classes, rotations)
    kept = torch.full_like(posterior, -torch.inf).scatter(1, heaviest, 0.0).view(NUM_IMAGES, NUM_CLASSES, -1)
    expected = (_log_likelihood(inputs) + kept[:, :, None]).flatten(2).logsumexp(2)
    is_compared = expected.isfinite()
    torch.testing.assert_close(found.log_evidence[is_compared], expected[is_compared])


def test_a_class_that_is_not_compared_has_no_evidence_and_teaches_nothing(inputs: Inputs) -> None:
    rotations = torch.arange(NUM_ROTATIONS).expand(NUM_IMAGES, -1)
    found = _pruned(inputs, torch.ones_like(rotations), rotations)
    assert float(found.log_evidence[:, 0].max()) < float(found.log_evidence[:, 1].min()) - 40
    numerator, denominator = found.sums(found.log_evidence.softmax(1))
    assert float(numerator[0].abs().max()) == float(denominator[0].max()) == 0.0
    torch.testing.assert_close(denominator[1].sum(0), inputs[2].sum(0))


def test_no_more_cells_are_kept_than_hold_the_mass(inputs: Inputs) -> None:
    everything = ExhaustivePosterior(Compared(*inputs))
    share = everything.log_evidence.softmax(1)
    posterior = (share[:, :, None] * _log_likelihood(inputs).logsumexp(2).softmax(2)).flatten(1)
    in_order = posterior.sort(1, descending=True).values
    classes, _ = everything.heaviest(share, 20, mass=0.9)
    kept = classes.shape[1]
    assert float(in_order[:, :kept].sum(1).mean()) >= 0.9 > float(in_order[:, : kept - 1].sum(1).mean())
