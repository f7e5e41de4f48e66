"""Searches find what is hidden in images of a density that is known exactly."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.rotations import geodesic_angle
from cryohydra.geometry.so3_grid import angular_step
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.pose_search import POSE_SEARCHES, SearchPlan
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource

BAND = Band(32, 9)
EQUAL = torch.full((2,), -math.log(2))
PLAN = SearchPlan(base_level=1, radii=(4, 7, 9), shifts=ShiftPrior.uninformed(2.0), shift_step_px=2.0)


@pytest.fixture(params=list(POSE_SEARCHES))
def search(request: pytest.FixtureRequest) -> Callable[[SearchPlan], object]:
    """Every registered search."""
    return POSE_SEARCHES[request.param]


def _angle(found: Candidates, true: torch.Tensor) -> torch.Tensor:
    best = found.log_mass.argmax(1)
    return geodesic_angle(found.rotation[torch.arange(len(best)), best], true)


def test_hidden_poses_and_classes_are_found(search, blobs, take_images) -> None:
    images = take_images(blobs, BAND, 96, signal=400.0, shift_std_px=0.7)
    plan = SearchPlan(base_level=2, radii=(6, 9), shifts=ShiftPrior.uninformed(2.0), shift_step_px=1.0)
    found = search(plan).search(blobs, images.weighted, BAND, EQUAL)
    error = _angle(found, images.rotation)
    # Cells are as wide as a step in three angles; a coarse neighbour may win once in a while: of 1 image in 24, rounded
    # to bfloat16 or not.
    assert float(error.median()) < angular_step(3)
    assert int((error > 2 * angular_step(3)).sum()) <= 8
    rows, best = torch.arange(96), found.log_mass.argmax(1)
    assert found.class_index[rows, best].tolist() == images.labels.tolist()
    assert found.log_evidence.argmax(1).tolist() == images.labels.tolist()
    assert float((found.shift_px[rows, best] - images.shift_px).norm(dim=1).median()) < 0.5


def test_images_are_independent(search, blobs, take_images) -> None:
    images = take_images(blobs, BAND, 6, signal=300.0, shift_std_px=0.5)
    together = search(PLAN).search(blobs, images.weighted, BAND, EQUAL)
    for rows in (slice(0, 2), slice(2, 6)):
        alone = search(PLAN).search(blobs, images.weighted.rows(rows), BAND, EQUAL)
        torch.testing.assert_close(alone.log_evidence, together.log_evidence[rows], atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(
            alone.best_of_class(2).rotation, together.best_of_class(2).rotation[rows], atol=1e-5, rtol=0
        )


def test_permuted_classes_permute_evidence_and_poses(search, blobs, take_images) -> None:
    images = take_images(blobs, BAND, 6, signal=300.0)
    weight = torch.tensor([0.7, 0.3]).log()
    found = search(PLAN).search(blobs, images.weighted, BAND, weight)
    turned = search(PLAN).search(blobs.permuted([1, 0]), images.weighted, BAND, weight[[1, 0]])
    torch.testing.assert_close(turned.log_evidence[:, [1, 0]], found.log_evidence, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(turned.best_of_class(2).rotation[:, [1, 0]], found.best_of_class(2).rotation)


def test_a_class_twice_has_the_same_evidence_twice(search, blobs, take_images) -> None:
    images = take_images(blobs, BAND, 4, signal=300.0)
    found = search(PLAN).search(blobs.permuted([0, 0]), images.weighted, BAND, EQUAL)
    torch.testing.assert_close(found.log_evidence[:, 0], found.log_evidence[:, 1], atol=1e-2, rtol=1e-4)


def test_evidence_does_not_change_with_the_grid(search, blobs, take_images) -> None:
    """Where the likelihood varies little within a cell, sums over poses are integrals."""
    narrow = Band(32, 4)
    images = take_images(blobs, narrow, 8, signal=12.0)
    plan = SearchPlan(base_level=1, radii=(4,), shifts=ShiftPrior.uninformed(2.0), shift_step_px=1.0)
    coarse = search(plan).search(blobs, images.weighted, narrow, EQUAL).log_evidence
    finer = search(replace(plan, base_level=2)).search(blobs, images.weighted, narrow, EQUAL).log_evidence
    finer_shifts = search(replace(plan, shift_step_px=0.5)).search(blobs, images.weighted, narrow, EQUAL).log_evidence
    # What a grid leaves unsaid is taken for noise, which it is on the mean only.
    assert float((coarse - finer).abs().max()) < 0.3
    assert float((coarse - finer_shifts).abs().max()) < 0.3


def test_evidence_of_noise_is_below_that_of_signal(search, blobs, take_images) -> None:
    signal = take_images(blobs, BAND, 4, signal=400.0)
    # Images of noise alone, through the same optics.
    unrelated = torch.randn(signal.weighted.score.shape, generator=torch.Generator().manual_seed(2))
    noise = replace(signal.weighted, score=unrelated * signal.weighted.power.sqrt())
    found = search(PLAN).search(blobs, signal.weighted, BAND, EQUAL).log_evidence.logsumexp(1)
    empty = search(PLAN).search(blobs, noise, BAND, EQUAL).log_evidence.logsumexp(1)
    assert float(found.min()) > 50
    assert float(empty.max()) < 0


def test_lattice_slices_search_as_exact_ones(search, blobs, take_images) -> None:
    lattice = Lattice(32, 9)
    sliced: SliceSource = LatticeSlices.of_maps(lattice, blobs.on_lattice(lattice), GridSlicers())
    images = take_images(blobs, BAND, 8, signal=400.0, shift_std_px=0.5)
    exact = search(PLAN).search(blobs, images.weighted, BAND, EQUAL)
    found = search(PLAN).search(sliced, images.weighted, BAND, EQUAL)
    # Slices that differ by 1 % of an energy of 400 change the logarithm by a few at most.
    torch.testing.assert_close(found.log_evidence, exact.log_evidence, atol=4.0, rtol=0.02)
    assert float(geodesic_angle(_best(found), _best(exact)).median()) < 1e-3


def test_class_probabilities_are_honest_though_few_poses_are_looked_at_again(search, blobs, take_images) -> None:
    """Images so noisy that a fifth goes to the wrong class: the search says so."""
    images = take_images(blobs, BAND, 500, signal=22.0, shift_std_px=0.5)
    plan = SearchPlan(
        base_level=1,
        radii=(7, 9),
        shifts=ShiftPrior.uninformed(1.0).learned(0.4),
        shift_step_px=1.0,
        num_kept=2,
        most_kept=8,
    )
    found = search(plan).search(blobs, images.weighted, BAND, EQUAL)
    sure, label = found.log_evidence.softmax(1).max(1)
    accuracy = float((label == images.labels).float().mean())
    assert 0.7 < accuracy < 0.95
    # 500 images tell an accuracy of 80 % to two hundredths.
    assert abs(float(sure.mean()) - accuracy) < 0.05


def _best(found: Candidates) -> torch.Tensor:
    return found.rotation[torch.arange(len(found.rotation)), found.log_mass.argmax(1)]


def test_an_image_meets_only_the_classes_that_it_is_asked_of(search, blobs, take_images) -> None:
    images = take_images(blobs, BAND, 6, signal=300.0)
    is_asked = torch.tensor([[True, False], [False, True]]).repeat(3, 1)
    found = search(PLAN).search(blobs, images.weighted, BAND, EQUAL, is_asked)
    assert torch.equal(found.log_evidence.isfinite(), is_asked)
    for k in (0, 1):
        rows = torch.nonzero(is_asked[:, k])[:, 0]
        alone = search(PLAN).search(blobs.permuted([k]), images.weighted.rows(rows), BAND, torch.zeros(1))
        torch.testing.assert_close(found.log_evidence[rows, k], alone.log_evidence[:, 0], atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(found.best_of_class(2).rotation[rows, k], alone.best_of_class(1).rotation[:, 0])
