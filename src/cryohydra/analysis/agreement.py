"""How well classes, poses and probabilities agree with a truth: pure measures, no files."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from cryohydra._typing import Float, Int, Tensor
from cryohydra.geometry.rotations import geodesic_angle

_MAX_CANDIDATES = 400
_MAX_VOTERS = 2000
# Poses further off than this are taken for failures when the frame is averaged.
_NEAR = math.radians(20)


def confusion_matrix(
    labels: Int[np.ndarray, "n"], found: Int[np.ndarray, "n"], num_true: int, num_found: int
) -> Int[np.ndarray, "k c"]:
    """Number of particles of each true class (rows) in each found class (columns)."""
    counts = np.zeros((num_true, num_found), dtype=np.int64)
    np.add.at(counts, (labels, found), 1)
    return counts


def match_classes(confusion: Int[np.ndarray, "k c"]) -> dict[int, int]:
    """One-to-one pairs of true and found classes with the most particles in common (Hungarian method).

    A pair without a common particle is no pair.
    """
    rows, columns = linear_sum_assignment(-confusion)
    return {int(k): int(c) for k, c in zip(rows, columns, strict=True) if confusion[k, c] > 0}


@dataclass(frozen=True)
class Calibration:
    """Whether particles of a stated probability are right as often as it says."""

    expected_error: float
    """Mean distance between confidence and accuracy, weighted by particles, in [0, 1]."""
    confidence: tuple[float, ...]
    """Mean, of each bin that holds particles."""
    accuracy: tuple[float, ...]
    num_particles: tuple[int, ...]


def calibration(
    class_probability: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n"], num_true: int, num_bins: int = 15
) -> Calibration:
    """Expected calibration error of class probabilities, in bins of equal width.

    Found classes that show the same true class count as one: each goes to the true class of which it
    holds most, so that a class cut in two is not taken for doubt.
    """
    mass = np.zeros((num_true, class_probability.shape[1]))
    np.add.at(mass, labels, class_probability)
    merged = np.zeros((len(labels), num_true))
    for found, true in enumerate(mass.argmax(axis=0)):
        merged[:, true] += class_probability[:, found]
    confidence, is_right = merged.max(axis=1), merged.argmax(axis=1) == labels
    bins = np.clip((confidence * num_bins).astype(int), 0, num_bins - 1)
    rows = []
    for b in np.unique(bins):
        inside = bins == b
        rows.append((float(confidence[inside].mean()), float(is_right[inside].mean()), int(inside.sum())))
    error = sum(abs(stated - true) * count for stated, true, count in rows) / len(labels)
    return Calibration(
        error, tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(row[2] for row in rows)
    )


@dataclass(frozen=True)
class PoseAgreement:
    """Poses against true ones, after the one rotation and hand that images leave open."""

    median_error: float
    """Radians."""
    median_shift_error_px: float
    """After the one shift of the map that images leave open."""
    rotation: Float[Tensor, "3 3"]
    """Estimated rotations are about the true ones times this."""
    is_mirrored: bool


def compare_poses(
    estimated: Float[Tensor, "n 3 3"],
    true: Float[Tensor, "n 3 3"],
    estimated_shift_px: Float[Tensor, "n 2"],
    true_shift_px: Float[Tensor, "n 2"],
    symmetry: Float[Tensor, "g 3 3"],
) -> PoseAgreement:
    """Median geodesic angle between poses of one class, modulo its symmetry.

    The frame is the one in which the median is smallest among those that single particles propose,
    then averaged over the particles that are near in it.
    """
    best = None
    for is_mirrored in (False, True):
        own = _other_hand(estimated) if is_mirrored else estimated
        frame = _fit_frame(own, true, symmetry)
        error = _errors(own, true, symmetry, frame)
        if best is None or float(error.median()) < best[0]:
            best = float(error.median()), frame, is_mirrored, error
    assert best is not None
    median, frame, is_mirrored, error = best
    own = _other_hand(estimated) if is_mirrored else estimated
    difference = estimated_shift_px - true_shift_px
    # The map may lie anywhere in its box: an offset o of it moves each image by R o.
    near = error < max(_NEAR, median * 1.5)
    planes = own[near][:, :2].reshape(-1, 3).double()
    offset = torch.linalg.lstsq(planes, difference[near].reshape(-1, 1).double()).solution[:, 0].float()
    left = difference - own[:, :2] @ offset
    return PoseAgreement(median, float(left.norm(dim=-1).median()), frame, is_mirrored)


def _other_hand(rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3 3"]:
    """Poses that give the same images of the map inverted through its centre."""
    return torch.diag(torch.tensor([-1.0, -1.0, 1.0])) @ rotation


def _errors(
    estimated: Float[Tensor, "n 3 3"],
    true: Float[Tensor, "n 3 3"],
    symmetry: Float[Tensor, "g 3 3"],
    frame: Float[Tensor, "3 3"],
) -> Float[Tensor, "n"]:
    expected = true[:, None] @ symmetry @ frame
    return geodesic_angle(expected, estimated[:, None].expand_as(expected)).amin(1)


def _fit_frame(
    estimated: Float[Tensor, "n 3 3"], true: Float[Tensor, "n 3 3"], symmetry: Float[Tensor, "g 3 3"]
) -> Float[Tensor, "3 3"]:
    """The rotation A that makes estimated = true @ g @ A for most particles, with any g of the group."""
    spread = torch.linspace(0, len(true) - 1, min(len(true), _MAX_VOTERS)).long()
    proposed = true[spread].mT @ estimated[spread]  # n 3 3, each g @ A of its particle
    candidates = proposed[torch.linspace(0, len(proposed) - 1, min(len(proposed), _MAX_CANDIDATES)).long()]
    # trace(a^T b) = 1 + 2 cos(angle); the best of the group has the largest.
    votes = (symmetry.mT[:, None] @ proposed).flatten(2)  # g n 9
    trace = torch.stack([(candidates.flatten(1) @ vote.T) for vote in votes]).amax(0)
    frame = candidates[int(trace.median(dim=1).values.argmax())]
    for _ in range(5):
        copies = symmetry.mT[:, None] @ proposed  # g n 3 3
        traces = (copies * frame).sum((-2, -1))
        nearest = copies[traces.argmax(0), torch.arange(len(proposed))]
        angle = geodesic_angle(nearest, frame.expand_as(nearest))
        chosen = nearest[angle <= torch.maximum(angle.median(), torch.tensor(_NEAR / 4))]
        u, _, vt = torch.linalg.svd(chosen.double().mean(0))
        sign = torch.linalg.det(u @ vt)
        frame = (u @ torch.diag(torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign])) @ vt).float()
    return frame


def motion_correlation(conformation: Float[np.ndarray, "n z"], coordinate: Float[np.ndarray, "n"]) -> float:
    """Spearman correlation, without sign, of the first component with a coordinate; 0 if either is constant."""
    centred = conformation - conformation.mean(axis=0)
    if len(centred) < 3 or np.ptp(coordinate) == 0 or not np.any(centred):
        return 0.0
    component = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    if np.ptp(component) == 0:
        return 0.0
    return float(abs(np.corrcoef(rankdata(component), rankdata(coordinate))[0, 1]))
