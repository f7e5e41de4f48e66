"""A run against the truth of a simulated set."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from cryohydra._typing import Float, Tensor
from cryohydra.analysis.agreement import (
    Calibration,
    calibration,
    compare_poses,
    confusion_matrix,
    match_classes,
    motion_correlation,
)
from cryohydra.data.simulated import Truth as Truth
from cryohydra.data.simulated import read_truth as read_truth
from cryohydra.errors import InputMismatch
from cryohydra.fourier.alignment import align_map, apply_alignment
from cryohydra.fourier.fsc import crossing_shell, fourier_shell_correlation, resolution_at
from cryohydra.fourier.resampling import resample_map
from cryohydra.inference.junk import junk_probability
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.run_folder import RunFolder

_THRESHOLD = 0.5
_LOST_POSE = math.radians(30)
_LOST_MAP = 0.5
_FOUND_MAP = 0.95
"""Correlation with the true map that wrong poses are unlikely to give."""


@dataclass(frozen=True)
class ClassScore:
    """One true class and the class of the run that is matched to it."""

    true_class: int
    name: str
    run_class: int | None
    """None if no class of the run is left for it."""
    num_particles: int
    """Of the true class."""
    num_found: int
    """Of those, in the class of the run."""
    resolution_angstrom: float | None = None
    """Where the shell correlation of the aligned map with the true one falls below 0.5."""
    crossing_shell: float | None = None
    """The same in Fourier pixels."""
    fsc: tuple[float, ...] = ()
    ceiling_angstrom: float | None = None
    """Resolution of the backprojection with true poses and labels, the best that the images allow."""
    ceiling_shell: float | None = None
    map_correlation: float | None = None
    is_mirrored: bool | None = None
    """Whether the run's map has the other hand, which images do not tell."""
    pose_error_degrees: float | None = None
    """Median, after one rotation and hand, modulo the class's symmetry."""
    pseudo_symmetry_order: int | None = None
    """Rotations of the class's pseudo-symmetry: they leave its map nearly as it is; None if it has none."""
    pseudo_pose_error_degrees: float | None = None
    """The pose error modulo the pseudo-symmetry, which is what low frequencies can tell; None if it has none."""
    shift_error_px: float | None = None
    """Median, after one shift of the map; modulo the pseudo-symmetry if there is one."""
    motion_correlation: float | None = None
    """Of the first latent component with the true motion, Spearman without sign; None in a rigid class."""


@dataclass(frozen=True)
class Score:
    """How well a run found what is true."""

    epoch: int
    num_particles: int
    """Images that hold one."""
    num_run_classes: int
    adjusted_rand_index: float
    matched_accuracy: float
    """Share of particles in the class that is matched one-to-one to their true class."""
    confusion: tuple[tuple[int, ...], ...]
    """True classes in rows, the run's classes in columns."""
    classes: tuple[ClassScore, ...]
    calibration: Calibration
    failures: tuple[str, ...]
    """What went wrong, in sentences."""
    num_junk: int = 0
    """Images of noise alone, which nothing else counts."""
    num_junk_told: int = 0
    """Of these, how many the run holds for noise."""
    num_called_junk: int = 0
    """Particles that it holds for noise."""

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self), indent=1)

    def to_table(self) -> str:
        """For people."""
        lines = [
            f"epoch {self.epoch}, {self.num_particles} particles, {len(self.classes)} true classes, "
            f"{self.num_run_classes} in the run",
            f"adjusted Rand index {self.adjusted_rand_index:.3f}, matched accuracy {self.matched_accuracy:.1%}, "
            f"calibration error {self.calibration.expected_error:.3f}",
            "",
            f"{'true class':<22}in run  particles  found   FSC 0.5  ceiling     map   hand   pose     shift    motion",
        ]
        lines += [_row(score) for score in self.classes]
        lines += [_note(score) for score in self.classes if score.pseudo_symmetry_order]
        width = max(5, *(len(str(count)) for row in self.confusion for count in row)) + 1
        lines += ["", "particles of each true class (rows) in each class of the run (columns)"]
        lines.append(" " * 22 + "".join(f"{k:>{width}}" for k in range(self.num_run_classes)))
        for score, row in zip(self.classes, self.confusion, strict=True):
            name = f"{score.true_class} {score.name}"[:21]
            lines.append(f"{name:<22}" + "".join(f"{count:>{width}}" for count in row))
        if self.num_junk:
            lines += [
                "",
                f"noise alone: {self.num_junk_told} of {self.num_junk} images are told; {self.num_called_junk} "
                "particles are taken for it. Nothing above counts these images.",
            ]
        lines += ["", *self.failures] if self.failures else []
        return "\n".join(lines)


def score_run(run: Path, truth: Truth, epoch: int = -1, ceiling: Float[Tensor, "k d d d"] | None = None) -> Score:
    """Compare a run with the truth of the particles it was given.

    Args:
        epoch: -1 for the last one that was saved.
        ceiling: Maps from true poses and labels (`ceiling_maps`), to compare with; None to leave them out.

    Raises:
        UserError: If there is no result.
        InputMismatch: If the run was not made from these particles.
    """
    folder = RunFolder(run)
    epoch = folder.latest_epoch() if epoch == -1 else epoch
    latents = read_latents(folder.latents_path(epoch))
    index = latents.particle_index
    if len(index) and index.max() >= len(truth.labels):
        raise InputMismatch(
            f"The run in {run} used particle {index.max()} of its input, but the truth is of {len(truth.labels)} "
            "particles; give the folder from which the run's particles came."
        )
    is_junk = truth.is_junk[index]
    is_called_junk = junk_probability(torch.from_numpy(latents.log_evidence)).numpy() > 0.5
    latents = latents.of(~is_junk)
    labels, found = truth.labels[latents.particle_index], latents.best_class
    num_run_classes = latents.class_probability.shape[1]
    confusion = confusion_matrix(labels, found, truth.num_classes, num_run_classes)
    matches = match_classes(confusion)
    classes = tuple(
        _score_class(k, matches.get(k), folder, epoch, truth, latents, None if ceiling is None else ceiling[k])
        for k in range(truth.num_classes)
    )
    return Score(
        epoch=epoch,
        num_particles=len(labels),
        num_run_classes=num_run_classes,
        adjusted_rand_index=float(adjusted_rand_score(labels, found)),
        matched_accuracy=sum(int(confusion[k, c]) for k, c in matches.items()) / max(1, len(labels)),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        classes=classes,
        calibration=calibration(latents.class_probability, labels, truth.num_classes),
        failures=_failures(classes, confusion),
        num_junk=int(is_junk.sum()),
        num_junk_told=int(is_called_junk[is_junk].sum()),
        num_called_junk=int(is_called_junk[~is_junk].sum()),
    )


def _score_class(
    true_class: int,
    run_class: int | None,
    folder: RunFolder,
    epoch: int,
    truth: Truth,
    latents: Latents,
    ceiling: Float[Tensor, "d d d"] | None,
) -> ClassScore:
    labels = truth.labels[latents.particle_index]
    is_of_class = labels == true_class
    name = truth.class_names[true_class]
    if run_class is None:
        return ClassScore(true_class, name, None, int(is_of_class.sum()), 0)
    rows = np.flatnonzero(is_of_class & (latents.best_class == run_class))
    source = latents.particle_index[rows]
    found_poses = [torch.from_numpy(a[rows]).float().flatten(0, 1) for a in (latents.rotation, latents.shift_px)]
    true_poses = [torch.from_numpy(a[source]).float().flatten(0, 1) for a in (truth.rotation, truth.shift_px)]
    poses, pseudo = (
        compare_poses(found_poses[0], true_poses[0], found_poses[1], true_poses[1], torch.from_numpy(group).float())
        for group in (truth.symmetry[true_class], truth.pseudo_symmetry[true_class])
    )
    pseudo_order = len(truth.pseudo_symmetry[true_class])
    has_pseudo = pseudo_order > len(truth.symmetry[true_class])
    motion = None
    if np.ptp(truth.coordinate[truth.labels == true_class]) > 0:
        motion = motion_correlation(latents.conformation[rows], truth.coordinate[source])
    array, pixel_size = read_map(folder.map_path(epoch, run_class))
    box_size = truth.box_size
    moving = resample_map(torch.from_numpy(array), pixel_size, box_size, truth.pixel_size_angstrom)
    reference = torch.from_numpy(truth.maps[true_class])
    alignment = align_map(moving, reference)
    fsc = fourier_shell_correlation(apply_alignment(moving, alignment), reference)
    best = None if ceiling is None else fourier_shell_correlation(ceiling, reference)
    return ClassScore(
        true_class,
        name,
        run_class,
        num_particles=int(is_of_class.sum()),
        num_found=len(rows),
        resolution_angstrom=resolution_at(fsc, _THRESHOLD, box_size, truth.pixel_size_angstrom),
        crossing_shell=crossing_shell(fsc, _THRESHOLD),
        fsc=tuple(float(value) for value in fsc),
        ceiling_angstrom=None if best is None else resolution_at(best, _THRESHOLD, box_size, truth.pixel_size_angstrom),
        ceiling_shell=None if best is None else crossing_shell(best, _THRESHOLD),
        map_correlation=alignment.correlation,
        is_mirrored=alignment.is_mirrored,
        pose_error_degrees=math.degrees(poses.median_error),
        pseudo_symmetry_order=pseudo_order if has_pseudo else None,
        pseudo_pose_error_degrees=math.degrees(pseudo.median_error) if has_pseudo else None,
        shift_error_px=pseudo.median_shift_error_px,
        motion_correlation=motion,
    )


def _failures(classes: tuple[ClassScore, ...], confusion: np.ndarray) -> tuple[str, ...]:
    sentences = [f"Class {c} of the run is empty." for c in np.flatnonzero(confusion.sum(axis=0) == 0)]
    for score in classes:
        what = f"True class {score.true_class} ({score.name})"
        if score.run_class is None:
            sentences.append(f"{what} was not found.")
            continue
        if score.num_found < score.num_particles / 2:
            sentences.append(f"{what} lies for less than half in its class of the run.")
        if score.map_correlation is not None and score.map_correlation < _LOST_MAP:
            sentences.append(f"{what} has a map that correlates with the true one by {score.map_correlation:.2f} only.")
        error = _told_pose_error(score)
        if error is not None and math.radians(error) > _LOST_POSE:
            sentences.append(
                f"{what} has lost its poses: they are off by {error:.0f} degrees{_despite_its_map(score)}."
            )
    return tuple(sentences)


def _despite_its_map(score: ClassScore) -> str:
    """Where poses are lost: whether they made a map that is like the true one."""
    if score.map_correlation is None or score.map_correlation < _FOUND_MAP:
        return ""
    return (
        f", but its map correlates with the true one by {score.map_correlation:.2f}: it may look alike from many sides"
    )


def _told_pose_error(score: ClassScore) -> float | None:
    """Modulo the pseudo-symmetry where there is one: a map that hardly changes does not say which way it was turned."""
    return score.pose_error_degrees if score.pseudo_pose_error_degrees is None else score.pseudo_pose_error_degrees


def _note(score: ClassScore) -> str:
    """What the pose error of a pseudo-symmetric class means."""
    return (
        f"* {score.true_class} {score.name}: modulo the {score.pseudo_symmetry_order} rotations that leave its map "
        f"nearly as it is; {score.pose_error_degrees:.1f} deg modulo its exact symmetry alone."
    )


def _row(score: ClassScore) -> str:
    name = f"{score.true_class} {score.name}"[:21]
    if score.run_class is None:
        return f"{name:<22}  none  {score.num_particles:>9}"
    hand = "other" if score.is_mirrored else "same"
    ceiling = "-" if score.ceiling_angstrom is None else f"{score.ceiling_angstrom:.1f} A"
    star = "*" if score.pseudo_symmetry_order else " "
    motion = "rigid" if score.motion_correlation is None else f"{score.motion_correlation:.2f}"
    return (
        f"{name:<22}{score.run_class:>6}  {score.num_particles:>9}  {score.num_found:>5}  "
        f"{score.resolution_angstrom:>6.1f} A  {ceiling:>7}  {score.map_correlation:>6.3f}  {hand:>5}  "
        f"{_told_pose_error(score):>5.1f} deg{star} {score.shift_error_px:>5.2f} px  {motion:>6}"
    )
