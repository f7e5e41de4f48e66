"""Sizes, certainty and likeness of classes, and what is said about them."""

import numpy as np
import pytest
import torch

from cryohydra.analysis.classes import Likeness, class_warnings, compare_maps, summarise_classes
from cryohydra.analysis.maps import central_slices, projections, shrink_map
from cryohydra.fourier.hartley import image_to_hartley, volume_to_hartley


def one_hot(counts: list[int]) -> np.ndarray:
    return np.eye(len(counts))[np.repeat(np.arange(len(counts)), counts)]


def blobs(centres: list[tuple[float, float, float]], size: int = 32) -> torch.Tensor:
    axis = torch.arange(size) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    each = [torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 8.0) for a, b, c in centres]
    return torch.stack(each).sum(0)


def test_equal_classes_count_fully_and_one_class_counts_once() -> None:
    assert summarise_classes(one_hot([5, 5, 5, 5])).effective_number == pytest.approx(4)
    assert summarise_classes(one_hot([20, 0, 0])).effective_number == pytest.approx(1)
    assert summarise_classes(np.ones((7, 1))).effective_number == pytest.approx(1)


def test_shares_are_means_of_probabilities_and_counts_are_of_the_best() -> None:
    summary = summarise_classes(np.array([[0.6, 0.4], [0.6, 0.4], [0.0, 1.0]]))
    np.testing.assert_allclose(summary.share, [0.4, 0.6])
    np.testing.assert_array_equal(summary.hard_count, [2, 1])
    np.testing.assert_allclose(summary.certainty, [0.6, 1.0])


def test_an_empty_class_has_no_certainty_and_is_named() -> None:
    summary = summarise_classes(one_hot([10, 0, 10]))
    assert np.isnan(summary.certainty[1])
    (warning,) = class_warnings(summary, None)
    assert warning.startswith("Class 1 is empty")


def test_a_tiny_class_and_an_unsure_one_are_named() -> None:
    probability = one_hot([500, 500, 1])
    probability[:500] = [0.55, 0.45, 0.0]
    warnings = class_warnings(summarise_classes(probability), None)
    assert any(warning.startswith("Class 2 has at most") for warning in warnings)
    assert any("fit another class" in warning and warning.startswith("Class 0") for warning in warnings)


def test_healthy_classes_and_a_single_class_need_no_warning() -> None:
    apart = Likeness(np.array([[1, 0.4], [0.4, 1]]), is_aligned=True)
    assert class_warnings(summarise_classes(one_hot([30, 70])), apart) == ()
    assert class_warnings(summarise_classes(np.ones((4, 1))), None) == ()


def test_a_turned_twin_looks_alike_and_a_stranger_does_not() -> None:
    first = blobs([(6, 0, 0), (0, 5, 0), (-2, 0, -7), (0, -4, 3)])
    twin = first.flip(0).flip(1).roll((1, 1), (0, 1)).roll(1, 2)
    stranger = blobs([(8, 0, 0), (-8, 0, 0), (0, 0, 0), (4, 0, 0)])
    likeness = compare_maps([first, twin, None, stranger], says=lambda sentence: None)
    assert likeness.is_aligned
    assert likeness.correlation[0, 1] > 0.95
    assert likeness.correlation[0, 3] < 0.9
    assert np.isnan(likeness.correlation[2]).all()
    (warning,) = [text for text in class_warnings(summarise_classes(one_hot([9, 9, 9, 9])), likeness)]
    assert "Classes 0 and 1 look alike" in warning


def test_many_classes_are_compared_as_they_lie() -> None:
    maps = [blobs([(index / 2, 0, 0)]) for index in range(13)]
    likeness = compare_maps(maps, says=lambda sentence: None)
    assert not likeness.is_aligned
    assert likeness.correlation[0, 1] > likeness.correlation[0, 8]


def test_a_shrunk_map_keeps_values_and_place() -> None:
    density = blobs([(5, -8, 2), (0, 6, -9)], size=64)
    small = shrink_map(density, 32)
    # The blobs are four pixels wide, so that every second pixel tells all of them.
    torch.testing.assert_close(small, density[::2, ::2, ::2], atol=0.02, rtol=0)
    assert shrink_map(small, 32) is small


def test_projections_are_sums_along_the_axes_they_name() -> None:
    density = blobs([(5, -8, 2)])
    along_z = projections(density)[0]
    slab = volume_to_hartley(density)[density.shape[0] // 2]
    torch.testing.assert_close(image_to_hartley(along_z), slab, atol=1e-3, rtol=0)
    assert central_slices(density)[0].equal(density[16])
