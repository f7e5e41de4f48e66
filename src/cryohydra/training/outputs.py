"""What an epoch leaves in the run folder."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.mrc import write_map
from cryohydra.io.pickles import write_pickle
from cryohydra.io.pose_file import write_pose_file
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.training.monitor import Monitor
from cryohydra.training.pictures import Pictures
from cryohydra.training.state import TrainingState


class EpochWriter:
    """Writes maps, latents and checkpoint of an epoch, the checkpoint last: where it is, all is.

    Args:
        field_name: As registered.
        field_settings: Plain values.
        particle_index: Rows of the particles in the unfiltered input.
        scale: Standard deviation by which images were divided, which maps are multiplied with.
        learns_weights: Whether class probabilities are the learned scores'.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        field_name: str,
        field_settings: dict[str, Any],
        particle_index: Int[Tensor, "n"],
        scale: float,
        learns_weights: bool,
    ):
        self.run = run
        self.field_name, self.field_settings = field_name, field_settings
        self.particle_index = particle_index
        self.scale = scale
        self.learns_weights = learns_weights

    def watch(self, log_interval: int, pictures: Pictures) -> Monitor:
        """Whoever writes curves, figures and status into the same folder."""
        return Monitor(self.run, log_interval, pictures)

    def write(self, state: TrainingState, stage: int, stage_state: dict[str, Any]) -> None:
        """Write everything of the current epoch."""
        checkpoint = Checkpoint(
            epoch=state.epoch,
            field_name=self.field_name,
            field_settings=self.field_settings,
            box_size=state.images.box_size,
            pixel_size_angstrom=state.images.pixel_size_angstrom,
            z_dim=state.mixture.z_dim,
            num_classes=state.num_classes,
            mixture_state=dict(state.mixture.state_dict()),
            extra={
                "training": state.state_dict(),
                "stage": stage,
                "stage_state": stage_state,
                "scale": self.scale,
                "radius": state.drawn_radius,
            },
        )
        densities = (_array(state.class_map(k) * self.scale).astype(np.float32) for k in range(state.num_classes))
        write_epoch(self.run, checkpoint, self.latents(state), densities)

    def latents(self, state: TrainingState) -> Latents:
        """Pose, class and conformation of each particle, as they are after the last update."""
        probability = self._probability(state)
        best = probability.argmax(1)
        pose = state.poses_in(best)
        means = state.conformations.all_means(state.images)
        stds = state.conformations.all_stds(state.images)
        log_evidence = state.classes.log_probability()
        return Latents(
            rotation=_array(pose.rotation[:, :, 0]),
            shift_px=_array(pose.shift_px[:, :, 0]),
            class_probability=_array(probability),
            conformation=_array(_of_class(means, best)),
            conformation_std=_array(_of_class(stds, best)),
            log_evidence=_array(log_evidence),
            particle_index=self.particle_index.cpu().numpy(),
        )

    def _probability(self, state: TrainingState) -> Float[Tensor, "n k"]:
        if self.learns_weights:
            return torch.softmax(state.scores.scores, dim=1)
        return state.classes.log_posterior().exp()


def write_epoch(
    run: RunFolder, checkpoint: Checkpoint, latents: Latents, densities: Iterable[Float[np.ndarray, "d d d"]]
) -> None:
    """Write latents, checkpoint and maps of an epoch.

    Args:
        densities: Of each class.
    """
    epoch, box_size = checkpoint.epoch, checkpoint.box_size
    shift = None if not np.any(latents.shift_px) else -latents.shift_px / box_size
    rotation = latents.rotation.reshape(-1, 3, 3)
    write_pose_file(run.pose_path(epoch), rotation, None if shift is None else shift.reshape(-1, 2))
    write_pickle(run.conformation_path(epoch), latents.conformation)
    write_pickle(run.class_probability_path(epoch), latents.class_probability)
    write_latents(run.latents_path(epoch), latents)
    # Before the maps: who stops a training may not wait until they are drawn.
    save_checkpoint(run.weights_path(epoch), checkpoint)
    for k, density in enumerate(densities):
        write_map(run.map_path(epoch, k), density, checkpoint.pixel_size_angstrom)


def _of_class(values: Float[Tensor, "n k z"], best: Int[Tensor, "n"]) -> Float[Tensor, "n z"]:
    return values[torch.arange(len(best), device=best.device), best.to(values.device)]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
