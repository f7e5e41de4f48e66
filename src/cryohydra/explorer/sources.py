"""Epochs and runs that are looked at together, all brought into the order of one list of particles."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryohydra._typing import Float, Int
from cryohydra.analysis.quantities import Quantity, align, column, quantities_of_particles, quantities_of_run
from cryohydra.analysis.run import Run
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import UserError
from cryohydra.io.run_folder import RunFolder

OpenParticles = Callable[[Run], ParticleSet]
"""Opens the images that a run was trained on."""


@dataclass(frozen=True)
class Origin:
    """One epoch of one run, by name; it need not be opened yet."""

    key: str
    name: str
    path: Path
    epoch: int


@dataclass(frozen=True)
class Source:
    """One epoch of one run, opened, its particles in the order of the explorer's list."""

    origin: Origin
    run: Run
    rows: Int[np.ndarray, "n"]
    """Of its latents; -1 for a particle that it does not know."""
    quantities: tuple[Quantity, ...]


class Sources:
    """The run that is explored, its other epochs, and other runs to compare it with.

    Args:
        path: The run; its particles, at `epoch`, make the list that everything else is brought to.
        epoch: -1 for the last one.
        others: Further runs, of the same particle file.
        kmeans: See `quantities_of_run`.

    Raises:
        UserError: If one of them cannot be opened, or another run shares no particle with the first.
    """

    def __init__(self, path: Path, epoch: int, others: Sequence[Path], open_particles: OpenParticles, kmeans: int = -1):
        run = Run.open(path, epoch)
        self._kmeans = kmeans
        self._lock = threading.Lock()
        self.particle_index: Int[np.ndarray, "n"] = run.latents.particle_index
        self.origins = _origins(run, others)
        self.folder = run.folder
        self._opened = {self.origins[0].key: self._source(self.origins[0], run, kmeans)}
        notes = []
        for other in others:
            newest = next(origin for origin in self.origins if origin.path == other)
            notes += self._check_shares_particles(newest)
        self.particles, self.image_rows, note = self._open_particles(run, open_particles)
        self._input_quantities = () if self.particles is None else tuple(quantities_of_particles(self.particles))
        self.notes = (*notes, *note)

    def __len__(self) -> int:
        return len(self.particle_index)

    @property
    def first(self) -> Source:
        """The epoch that was asked for."""
        return self.open(self.origins[0].key)

    def open(self, key: str) -> Source:
        """An epoch, read from disk when first asked for.

        Raises:
            KeyError: If there is no such origin.
            UserError: If it cannot be read.
        """
        with self._lock:
            if key not in self._opened:
                origin = {origin.key: origin for origin in self.origins}[key]
                self._opened[key] = self._source(origin, Run.open(origin.path, origin.epoch))
            return self._opened[key]

    def quantities(self, key: str) -> tuple[Quantity, ...]:
        """What can be plotted of an epoch, with what the input says."""
        return (*self.open(key).quantities, *self._input_quantities)

    def column(self, key: str, quantity: str) -> Float[np.ndarray, "n"]:
        """One quantity of all particles, as float32; NaN where it is not known.

        Raises:
            KeyError: If there is no such origin or quantity.
        """
        source = self.open(key)
        of_run = {found.key: found for found in source.quantities}
        if quantity in of_run:
            return column(of_run[quantity], source.rows)
        return column({found.key: found for found in self._input_quantities}[quantity], self.image_rows)

    def file_rows(self) -> Int[np.ndarray, "n t"]:
        """Rows of each particle's images in the particle file, as `ind` names them.

        Raises:
            UserError: If they are not known, because they are tilt series whose file could not be opened.
        """
        if self.particles is not None:
            return self.particles.rows.numpy()[self.image_rows]
        if self.first.run.latents.rotation.shape[1] > 1:
            raise UserError(
                "Which rows of the particle file are the tilts of a particle is told by that file alone, and it could "
                "not be opened; put it where the run found it and start the explorer again."
            )
        return self.particle_index[:, None]

    def _source(self, origin: Origin, run: Run, kmeans: int = -1) -> Source:
        rows = align(run.latents.particle_index, self.particle_index)
        return Source(origin, run, rows, tuple(quantities_of_run(run, kmeans)))

    def _check_shares_particles(self, origin: Origin) -> list[str]:
        other = self.open(origin.key)
        if (other.rows < 0).all():
            raise UserError(
                f"{origin.path} knows none of the particles of {self.folder.path}; wanted a run of the same particle "
                "file. Compare runs of one file only."
            )
        ours, theirs = (
            self._opened[self.origins[0].key].run.settings.get("particles"),
            other.run.settings.get("particles"),
        )
        if ours == theirs:
            return []
        return [
            f"{origin.path} was trained on {theirs}, not on {ours}: its particles are matched by their rows, which is "
            "right only if both files list the same particles in the same order."
        ]

    def _open_particles(
        self, run: Run, open_particles: OpenParticles
    ) -> tuple[ParticleSet | None, Int[np.ndarray, "n"], tuple[str, ...]]:
        """The images, where each particle is among them, and why there are none."""
        nowhere = np.full(len(self), -1)
        try:
            particles = open_particles(run)
        except UserError as error:
            return None, nowhere, (f"Images, defocus and labels are left out. {error}",)
        rows = align(particles.index.numpy(), self.particle_index)
        if (rows < 0).any():
            sentence = (
                f"The particle file no longer holds particle {self.particle_index[rows < 0][0]} of the run, so images, "
                "defocus and labels are left out. Restore the file, and `ind`, as they were for the training."
            )
            return None, nowhere, (sentence,)
        return particles, rows, ()


def _origins(run: Run, others: Sequence[Path]) -> tuple[Origin, ...]:
    """The chosen epoch first, then the other epochs of its run, then those of other runs, the newest first."""
    own = [run.epoch, *(epoch for epoch in reversed(run.folder.epochs()) if epoch != run.epoch)]
    named = [(run.folder.path, epoch, f"epoch {epoch}") for epoch in own if _is_complete(run.folder, epoch)]
    for other in others:
        folder = RunFolder(other)
        folder.latest_epoch()  # says what is wrong with a folder that holds none
        name = other.resolve().name
        epochs = [epoch for epoch in reversed(folder.epochs()) if _is_complete(folder, epoch)]
        named += [(other, epoch, f"{name}, epoch {epoch}") for epoch in epochs]
    return tuple(Origin(f"s{number}", name, path, epoch) for number, (path, epoch, name) in enumerate(named))


def _is_complete(folder: RunFolder, epoch: int) -> bool:
    return folder.latents_path(epoch).exists()
