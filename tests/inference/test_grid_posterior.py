"""Soft assignment to a grid: what exhaustive comparison finds, its transpose, and what pruning leaves of it."""

from collections.abc import Callable

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import GridSlicer, Lattice
from cryohydra.fourier.mirrors import mirrors_of
from cryohydra.geometry.so3_grid import all_rotations, num_rotations
from cryohydra.inference import grid_posterior
from cryohydra.inference.grid_posterior import (
    Compared,
    ExhaustivePosterior,
    GridPosterior,
    PrunedPosterior,
    StreamedPosterior,
    drawn,
)

LEVEL, BAND = 0, Band(12, 2)
NUM_CLASSES, NUM_ROTATIONS, NUM_SHIFTS, NUM_IMAGES = 2, num_rotations(LEVEL), 3, 5
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def inputs(generator: torch.Generator) -> Inputs:
    """Slices, scores, powers and the shifts' prior."""
    lattice = Lattice(BAND.box_size, BAND.radius)
    volumes = 2 * torch.randn(NUM_CLASSES, *lattice.shape, generator=generator)
    slices = GridSlicer(lattice, BAND, all_rotations(LEVEL)).cut(volumes)
    score = torch.randn(NUM_IMAGES, NUM_SHIFTS, len(BAND), generator=generator)
    power = torch.rand(NUM_IMAGES, len(BAND), generator=generator)
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


def _streamed(inputs: Inputs, most: int = 1000, mass: float = 1.0) -> StreamedPosterior:
    """Weighed by the evidence alone."""
    return StreamedPosterior(Compared(*inputs), mirrors_of(BAND, LEVEL), _evenly, most, mass)


def _evenly(evidence: torch.Tensor) -> torch.Tensor:
    return evidence.new_zeros(evidence.shape[1])


def _exhaustive(inputs: Inputs) -> ExhaustivePosterior:
    return ExhaustivePosterior(Compared(*inputs))


@pytest.fixture(autouse=True)
def products_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's fastest numbers are."""
    monkeypatch.setattr(grid_posterior, "matrix_dtype", lambda device: torch.float32)


EVERY = pytest.mark.parametrize("compare", [_exhaustive, _all_compared, _streamed])


@EVERY
def test_evidence_sums_over_shifts_and_rotations(inputs: Inputs, compare: Callable[[Inputs], GridPosterior]) -> None:
    found = compare(inputs)
    expected = _log_likelihood(inputs)
    torch.testing.assert_close(found.log_evidence, expected.flatten(2).logsumexp(2))
    best = expected.flatten(2).argmax(2)
    torch.testing.assert_close(found.rotation_index, best % NUM_ROTATIONS)
    torch.testing.assert_close(found.shift_index, best // NUM_ROTATIONS)


@EVERY
def test_sums_are_the_posteriors_own(
    inputs: Inputs, compare: Callable[[Inputs], GridPosterior], generator: torch.Generator
) -> None:
    found = compare(inputs)
    share = torch.rand(NUM_IMAGES, NUM_CLASSES, generator=generator)
    posterior = share[:, :, None, None] * _log_likelihood(inputs).flatten(2).softmax(2).unflatten(2, (NUM_SHIFTS, -1))
    _, score, power, _ = inputs
    numerator, denominator = found.sums(share)
    torch.testing.assert_close(numerator, torch.einsum("bksq,bsp->kqp", posterior, score))
    torch.testing.assert_close(denominator, torch.einsum("bksq,bp->kqp", posterior, power))
    torch.testing.assert_close(found.mass_of_shifts(share), posterior.sum((0, 1, 3)) / share.sum())


@pytest.mark.parametrize("is_streamed", [False, True])
def test_rotations_that_are_weighed_count_so_in_sums_and_not_in_the_evidence(
    inputs: Inputs, is_streamed: bool, generator: torch.Generator
) -> None:
    log_weight = torch.randn(NUM_CLASSES, NUM_ROTATIONS, generator=generator)
    expected = _log_likelihood(inputs)

    def weigh(posterior: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
        torch.testing.assert_close(posterior, expected.flatten(2).softmax(2).unflatten(2, (NUM_SHIFTS, -1)).sum(2))
        torch.testing.assert_close(evidence, expected.flatten(2).logsumexp(2))
        return log_weight

    if is_streamed:
        mirrors = mirrors_of(BAND, LEVEL)
        found: GridPosterior = StreamedPosterior(Compared(*inputs), mirrors, _evenly, 1000, 1.0, weigh)
    else:
        found = ExhaustivePosterior(Compared(*inputs), weigh)
    torch.testing.assert_close(found.log_evidence, expected.flatten(2).logsumexp(2))
    share = torch.rand(NUM_IMAGES, NUM_CLASSES, generator=generator)
    weighed = (expected + log_weight[:, None]).flatten(2).softmax(2).unflatten(2, (NUM_SHIFTS, -1))
    _, score, power, _ = inputs
    numerator, denominator = found.sums(share)
    torch.testing.assert_close(numerator, torch.einsum("bk,bksq,bsp->kqp", share, weighed, score))
    torch.testing.assert_close(denominator, torch.einsum("bk,bksq,bp->kqp", share, weighed, power))


def test_what_is_pruned_has_none_of_the_posterior(inputs: Inputs) -> None:
    posterior = _log_likelihood(inputs).logsumexp(2).flatten(1)
    heaviest = posterior.topk(6, dim=1).indices
    found = _pruned(inputs, heaviest // NUM_ROTATIONS, heaviest % NUM_ROTATIONS)
    kept = torch.full_like(posterior, -torch.inf).scatter(1, heaviest, 0.0).view(NUM_IMAGES, NUM_CLASSES, -1)
    expected = (_log_likelihood(inputs) + kept[:, :, None]).flatten(2).logsumexp(2)
    is_compared = expected.isfinite()
    torch.testing.assert_close(found.log_evidence[is_compared], expected[is_compared])


def test_the_heaviest_poses_stand_for_all(inputs: Inputs) -> None:
    found, everything = _streamed(inputs, most=20, mass=0.9), _exhaustive(inputs)
    torch.testing.assert_close(found.log_evidence, everything.log_evidence)  # that of all poses
    share = everything.log_evidence.softmax(1)
    numerator, denominator = found.sums(share)
    torch.testing.assert_close(denominator.sum((0, 1)), inputs[2].sum(0))  # no image counts for less
    posterior = _log_likelihood(inputs).logsumexp(2).flatten(1).softmax(1)
    in_order = posterior.sort(1, descending=True).values
    num_kept = int((in_order.cumsum(1).mean(0) < 0.9).sum()) + 1
    touched = (denominator.sum(2) > 0).flatten()
    is_heavy = torch.zeros(NUM_CLASSES * NUM_ROTATIONS, dtype=torch.bool)
    is_heavy[posterior.topk(num_kept, dim=1).indices.flatten()] = True
    assert not bool((touched & ~is_heavy).any())


def test_a_class_that_is_not_compared_has_no_evidence_and_teaches_nothing(inputs: Inputs) -> None:
    rotations = torch.arange(NUM_ROTATIONS).expand(NUM_IMAGES, -1)
    found = _pruned(inputs, torch.ones_like(rotations), rotations)
    assert float(found.log_evidence[:, 0].max()) < float(found.log_evidence[:, 1].min()) - 40
    numerator, denominator = found.sums(found.log_evidence.softmax(1))
    assert float(numerator[0].abs().max()) == float(denominator[0].max()) == 0.0
    torch.testing.assert_close(denominator[1].sum(0), inputs[2].sum(0))


def test_poses_are_drawn_by_their_probability(generator: torch.Generator) -> None:
    posterior, num_drawn = torch.tensor([0.1, 0.0, 0.6, 0.3]), 4000
    index = drawn(posterior.expand(num_drawn, -1), generator)
    assert index.shape == (num_drawn, 1)
    counts = index[:, 0].bincount(minlength=4) / num_drawn
    # Four standard errors of a part of one half.
    torch.testing.assert_close(counts, posterior, atol=4 * 0.5 / num_drawn**0.5, rtol=0)
    assert counts[1] == 0
