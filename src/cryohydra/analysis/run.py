"""A trained run, opened for reading."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float, Int

from cryohydra._device import default_device
from cryohydra._typing import Tensor
from cryohydra.errors import UnreadableFile, UserError
from cryohydra.inference.junk import junk_probability
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import load_checkpoint, mixture_from_checkpoint
from cryohydra.model.mixture import Mixture


@dataclass(frozen=True)
class Run:
    """One epoch of a run: its fields, what is known of each particle, and what was asked."""

    folder: RunFolder
    epoch: int
    settings: Mapping[str, Any]
    """As in train-configs.yaml; empty if that file is missing."""
    latents: Latents
    mixture: Mixture
    pixel_size_angstrom: float
    device: torch.device
    density_scale: float = 1.0
    """What a field's density is multiplied with: the images were divided by it."""
    radius: int | None = None
    """Highest frequency that the fields have learned, in Fourier pixels; None for the whole box."""
    has_fitted_fields: bool = True
    """False while training knows each class by a map only, and its field has learned nothing yet."""

    @classmethod
    def open(cls, path: Path, epoch: int = -1, device: torch.device | str | None = None) -> "Run":
        """Open a run folder.

        Args:
            epoch: -1 means the last one saved.
            device: Where to draw densities; by default a GPU if there is one.

        Raises:
            UserError: If there is nothing trained, or not at this epoch.
        """
        folder = RunFolder(path)
        chosen = folder.saved_epoch(epoch)
        where = default_device() if device is None else torch.device(device)
        checkpoint = load_checkpoint(folder.weights_path(chosen), where)
        latents = read_latents(folder.latents_path(chosen))
        mixture = mixture_from_checkpoint(checkpoint).to(where).eval()
        if latents.class_probability.shape[1] != mixture.num_classes:
            raise UserError(
                f"{folder.latents_path(chosen)} speaks of {latents.class_probability.shape[1]} classes but "
                f"{folder.weights_path(chosen)} holds {mixture.num_classes}. They are of two runs; restore one of them."
            )
        return cls(
            folder=folder,
            epoch=chosen,
            settings=read_run_settings(folder.train_configs_path),
            latents=latents,
            mixture=mixture,
            pixel_size_angstrom=float(checkpoint.pixel_size_angstrom),
            device=where,
            density_scale=float(checkpoint.extra.get("scale", 1.0)),
            radius=checkpoint.extra.get("radius"),
            has_fitted_fields=bool(checkpoint.extra.get("training", {}).get("fields_are_fitted", True)),
        )

    @property
    def num_classes(self) -> int:
        """Number of fields."""
        return self.mixture.num_classes

    @property
    def z_dim(self) -> int:
        """Length of a conformation; 0 for rigid classes."""
        return self.mixture.z_dim

    def members(self, class_index: int) -> Int[np.ndarray, "m"]:
        """Rows, in the latents, of the particles whose best class this is."""
        return np.flatnonzero(self.latents.best_class == class_index)

    @cached_property
    def junk_probability(self) -> Float[np.ndarray, "n"]:
        """Of each particle, that its images are noise alone."""
        return junk_probability(torch.from_numpy(self.latents.log_evidence)).numpy()

    def rows_of(self, particles: Int[np.ndarray, "m"], asked_by: str) -> Int[np.ndarray, "m"]:
        """Rows, in the latents, of particles named by their number in the input.

        Raises:
            UserError: If one is not part of the run.
        """
        order = np.argsort(self.latents.particle_index, kind="stable")
        known = self.latents.particle_index[order]
        place = np.searchsorted(known, particles).clip(0, len(known) - 1)
        strangers = particles[known[place] != particles]
        if len(strangers):
            raise UserError(
                f"{asked_by} names particle {strangers[0]}, which is not part of this run; wanted numbers of the "
                f"particle file, counted from 0, between {known[0]} and {known[-1]}"
                f"{'' if len(known) == known[-1] - known[0] + 1 else ' and among those selected by ind'}."
            )
        return order[place]

    def draw(self, class_index: int, conformation: Float[np.ndarray, "z"]) -> Float[Tensor, "d d d"]:
        """The density of a class in one conformation, on the CPU, in scale and band as the maps of the training."""
        map_path = self.folder.map_path(self.epoch, class_index)
        # A rigid class looks as it was written; drawing it again takes minutes at 320 px on a CPU.
        if (self.z_dim == 0 or not self.has_fitted_fields) and map_path.exists():
            return torch.from_numpy(read_map(map_path)[0])
        z = torch.from_numpy(np.ascontiguousarray(conformation, dtype=np.float32)).to(self.device)
        with torch.no_grad():
            return self.mixture.map(class_index, z, self.radius).float().cpu() * self.density_scale

    def mean_map(self, class_index: int) -> Float[Tensor, "d d d"]:
        """The density of a class at the mean conformation of its particles, as the training wrote it if it did."""
        map_path = self.folder.map_path(self.epoch, class_index)
        if map_path.exists():
            return torch.from_numpy(read_map(map_path)[0])
        return self.draw(class_index, self.latents.conformation[self.members(class_index)].mean(axis=0))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that are whole."""
        if not self.folder.metrics_path.exists():
            return []
        found = []
        for line in self.folder.metrics_path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the last line of a training that is still writing
                continue
            if isinstance(entry, dict):
                found.append(entry)
        return found


def read_run_settings(path: Path) -> Mapping[str, Any]:
    """The settings in a train-configs.yaml; none if there is no such file.

    Raises:
        UnreadableFile: If it is damaged.
    """
    if not path.exists():
        return {}
    try:
        settings = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UnreadableFile(
            f"{path} cannot be read as YAML ({error}); it was written by the training, restore it or move it away."
        ) from error
    return settings if isinstance(settings, dict) else {}
