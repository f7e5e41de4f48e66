"""Another set of classes out of those of a training: merged, split, dropped."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans

from cryohydra._typing import Float, Int, Tensor
from cryohydra.errors import UserError
from cryohydra.fourier.alignment import align_map
from cryohydra.inference.reconstruction import ClassMaps
from cryohydra.physics.pose import Pose, follow_map
from cryohydra.training.class_variation import vary
from cryohydra.training.state import TrainingState

_FEWEST_TO_SPLIT = 10


@dataclass(frozen=True)
class Origin:
    """Where a new class comes from."""

    classes: tuple[int, ...]
    """Several are merged."""
    part: int | None = None
    """Which half of a class that is split."""

    def __str__(self) -> str:
        names = " and ".join(map(str, self.classes))
        return names if self.part is None else f"{names}, {'first' if self.part == 0 else 'second'} half"


def plan_classes(
    num_classes: int, merge: Sequence[Sequence[int]], drop: Sequence[int], split: Sequence[int]
) -> tuple[Origin, ...]:
    """Where each new class comes from, in the order of the old ones; a merged class stands at its first place.

    Raises:
        UserError: If a class does not exist or is asked to become two things, or nothing is asked or left.
    """
    named = [*(k for group in merge for k in group), *drop, *split]
    for k in named:
        if not 0 <= k < num_classes:
            raise UserError(f"There is no class {k}; classes are 0 to {num_classes - 1}.")
        if named.count(k) > 1:
            raise UserError(f"Class {k} is named more than once; merge, drop or split it.")
    if not named or any(len(group) < 2 for group in merge):
        raise UserError("Nothing is to be changed; name two classes or more to --merge, or some to --drop or --split.")
    group_of = {k: tuple(group) for group in merge for k in group}
    origins: list[Origin] = []
    for k in range(num_classes):
        if k in split:
            origins += [Origin((k,), part) for part in (0, 1)]
        elif k not in drop and k == min(group_of.get(k, (k,))):
            origins.append(Origin(group_of.get(k, (k,))))
    if not origins:
        raise UserError("All classes are to be dropped; keep at least one.")
    return tuple(origins)


def reclass(old: TrainingState, new: TrainingState, origins: Sequence[Origin]) -> None:
    """Give a training that has not begun the maps and poses of other classes to start from.

    Merged classes start from the map of the largest; particles take the pose they have in the likeliest of them, in
    the frame and hand of that map. A split class starts from the two sides of the component along which its particles
    differ most.

    Raises:
        UserError: If the old training has no maps, or a class to be split has too few particles.
    """
    if old.maps is None:
        raise UserError("The run keeps no maps to start from; name an epoch that ends a stage, or train anew.")
    parts = [_part(old, old.maps, origin) for origin in origins]
    values, correlation, rotation, shift = (torch.stack(column) for column in zip(*parts, strict=True))
    new.maps = ClassMaps(old.maps.lattice, values, correlation)
    every = torch.arange(len(new), device=new.device)
    new.poses.set(every, Pose(rotation.movedim(0, 2), shift.movedim(0, 2)))
    new.noise, new.shift_prior, new.fields_are_fitted = old.noise, old.shift_prior, False


def _part(old: TrainingState, maps: ClassMaps, origin: Origin) -> tuple[Tensor, ...]:
    """Map, its half-map correlation, rotations and shifts of one new class."""
    classes = sorted(origin.classes, key=lambda k: -float(old.classes.log_weight[k]))
    largest = classes[0]
    density = maps.values[largest]
    if origin.part is not None:
        density = _side(old, maps, largest, origin.part)
    pose = _merged_poses(old, classes)
    return density, maps.half_correlation[largest], pose.rotation[:, :, 0], pose.shift_px[:, :, 0]


def _merged_poses(old: TrainingState, classes: list[int]) -> Pose:
    """The pose of each particle in the likeliest of some classes, in the frame of the first; one class."""
    reference = old.class_map(classes[0]).cpu()
    log_probability = old.classes.log_posterior()[:, classes]
    rotation, shift = old.poses.rotation[:, :, classes], old.poses.shift_px[:, :, classes]
    for place, k in enumerate(classes[1:], start=1):
        alignment = align_map(old.class_map(k).cpu(), reference)
        pose = follow_map(Pose(rotation[:, :, place, None], shift[:, :, place, None]), alignment)
        rotation[:, :, place], shift[:, :, place] = pose.rotation[:, :, 0], pose.shift_px[:, :, 0]
    best: Int[Tensor, "n"] = log_probability.argmax(1)
    rows = torch.arange(len(best), device=best.device)
    return Pose(rotation[rows, :, best][:, :, None], shift[rows, :, best][:, :, None])


def _side(old: TrainingState, maps: ClassMaps, class_index: int, part: int) -> Float[Tensor, "n n n"]:
    """The map of a class moved to one side of its particles' strongest component."""
    best = old.classes.log_posterior().argmax(1)
    members = torch.nonzero(best == class_index).squeeze(-1).cpu()
    if len(members) < _FEWEST_TO_SPLIT:
        raise UserError(
            f"Class {class_index} has {len(members)} particles; wanted {_FEWEST_TO_SPLIT} at least to split it."
        )
    # Both sides of one component, though it is found anew for each.
    drawn_before = old.generator.get_state()
    variation = vary(old, maps, class_index, members, num_components=1, generator=old.generator)
    old.generator.set_state(drawn_before)
    coordinate = variation.coordinate[:, 0].cpu()
    middles = KMeans(2, n_init=10, random_state=0).fit(coordinate[:, None].numpy()).cluster_centers_[:, 0]
    return maps.values[class_index] + sorted(middles.tolist())[part] * variation.components[0]
