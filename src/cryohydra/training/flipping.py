"""The other hand of a trained run: maps, fields and poses together, as an epoch of its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cryohydra._typing import Float, Tensor
from cryohydra.errors import UserError
from cryohydra.fourier.alignment import Alignment
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, load_checkpoint, mixture_from_checkpoint
from cryohydra.physics.pose import Pose, follow_map
from cryohydra.training.outputs import write_epoch

_OTHER_HAND = Alignment(torch.eye(3), torch.zeros(3), is_mirrored=True, correlation=1.0)


def flip_classes(run: RunFolder, epoch: int, classes: Sequence[int]) -> int:
    """Write an epoch in which classes have the other hand, after the last one; training can go on from it.

    Args:
        classes: Those to flip; none means all.

    Returns:
        The number of the new epoch.

    Raises:
        UserError: If there is no such epoch or class, the epoch lies within a stage, or the run is being trained.
    """
    with run.training_lock():
        checkpoint = load_checkpoint(run.weights_path(epoch))
        strangers = [k for k in classes if not 0 <= k < checkpoint.num_classes]
        if strangers:
            raise UserError(f"There is no class {strangers[0]}; classes are 0 to {checkpoint.num_classes - 1}.")
        if checkpoint.extra.get("stage_state"):
            raise UserError(
                f"Epoch {epoch} of {run.path} lies within a stage of its training, which remembers maps of its own; "
                "flip an epoch that ends a stage, such as the last one of a finished training."
            )
        flipped = sorted(set(classes)) or list(range(checkpoint.num_classes))
        latents = _flip_latents(read_latents(run.latents_path(epoch)), flipped)
        densities = [read_map(run.map_path(epoch, k))[0] for k in range(checkpoint.num_classes)]
        for k in flipped:
            densities[k] = invert_through_centre(densities[k])
        new_epoch = run.latest_epoch() + 1
        write_epoch(run, replace(_flip_checkpoint(checkpoint, flipped), epoch=new_epoch), latents, densities)
    return new_epoch


def invert_through_centre(density: Float[np.ndarray, "d d d"]) -> Float[np.ndarray, "d d d"]:
    """The mirror image of a map of even size, whose centre is at index D//2."""
    return np.roll(density[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))


def _flip_latents(latents: Latents, classes: list[int]) -> Latents:
    rows = np.isin(latents.best_class, classes)
    rotation = latents.rotation.copy()
    shift = torch.from_numpy(latents.shift_px[rows])
    pose = follow_map(Pose(torch.from_numpy(rotation[rows])[:, :, None], shift[:, :, None]), _OTHER_HAND)
    rotation[rows] = pose.rotation[:, :, 0].numpy()
    return replace(latents, rotation=rotation)


def _flip_checkpoint(checkpoint: Checkpoint, classes: list[int]) -> Checkpoint:
    mixture = mixture_from_checkpoint(checkpoint)
    for k in classes:
        mixture.field(k).mirror()
    extra = checkpoint.extra
    if "training" in extra:
        extra = {**extra, "training": _flip_training(extra["training"], classes)}
    return replace(checkpoint, mixture_state=dict(mixture.state_dict()), extra=extra)


def _flip_training(saved: dict[str, Any], classes: list[int]) -> dict[str, Any]:
    """What a training knows, as `TrainingState.state_dict` gives it."""
    table: dict[str, Tensor] = {name: value.clone() for name, value in saved["poses"].items()}
    pose = Pose(table["rotation"][:, :, classes], table["shift_px"][:, :, classes])
    table["rotation"][:, :, classes] = follow_map(pose, _OTHER_HAND).rotation
    maps = saved["maps"]
    if maps is not None:
        # A stage that has ended leaves no maps of halves.
        values, *others = maps
        values = values.clone()
        values[classes] = values[classes].flip(1, 2, 3)
        maps = [values, *others]
    return {**saved, "poses": table, "maps": maps}
