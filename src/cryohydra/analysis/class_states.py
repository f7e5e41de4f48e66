"""The states of one class: found, written beside its volumes, and shown."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from cryohydra._typing import Tensor
from cryohydra.analysis.landscape import FEWEST_IN_STATE, Landscape, TellsApart, find_landscape
from cryohydra.analysis.latent import Clusters
from cryohydra.analysis.posed_images import posed_images
from cryohydra.analysis.run import Run
from cryohydra.analysis.volumes import VolumeWriter
from cryohydra.data.source import ParticleSource
from cryohydra.fourier.band import Band, largest_radius
from cryohydra.fourier.lattice import Lattice
from cryohydra.fourier.lattice_density import density_on_lattice
from cryohydra.inference.told_apart import ClassResiduals
from cryohydra.io.atomic import write_atomically

_MOST_IMAGES = 1500
"""Of a class, picked at random, that are asked whether states differ."""
_FINEST = 16
"""Fourier pixels of the box up to which they are asked: the time it takes goes with the cube of it."""


@dataclass(frozen=True)
class States:
    """What was found of the states of one class."""

    landscape: Landscape
    densities: tuple[Float[Tensor, "n n n"], ...]
    """One of each state, shrunk."""
    folder: Path
    """Of their maps."""
    finest_angstrom: float | None
    """Detail up to which images were asked; None if there were no images to ask."""

    @property
    def names(self) -> tuple[str, ...]:
        """Each with its share."""
        return tuple(f"State {number}: {100 * share:.0f} %" for number, share in enumerate(self.landscape.share))


def study_states(
    volumes: VolumeWriter,
    folder: Path,
    members: Int[np.ndarray, "m"],
    clusters: Clusters,
    densities: list[Float[Tensor, "n n n"]],
    source: ParticleSource | None,
    seed: int,
) -> States:
    """Find the states of a class and write landscape.csv, states.csv and a map of each state.

    Args:
        folder: Of the class.
        members: Rows of the class's particles.
        clusters: Of their conformations.
        densities: At the clusters' centres, shrunk.
        source: The particles of the run; without it, or of a class of few particles, there is one state.
    """
    run, class_index = volumes.run, volumes.class_index
    probability = run.latents.class_probability[members, class_index].astype(np.float64)
    judge = None
    if source is not None and len(members) >= 2 * FEWEST_IN_STATE and len(densities) > 1:
        sizes = np.bincount(clusters.labels, minlength=len(densities))
        mean = torch.einsum("v,vzyx->zyx", torch.from_numpy(sizes / sizes.sum()).float(), torch.stack(densities))
        judge = _Judge(run, source, class_index, members, mean, seed)
    tells_apart: TellsApart = judge.tells_apart if judge is not None else lambda first, second: False
    landscape = find_landscape(densities, clusters, probability, tells_apart)
    central = landscape.central_volume
    drawn = volumes.write(folder / "states", clusters.centres[central])
    _write_tables(folder, landscape, clusters)
    return States(landscape, tuple(drawn), folder / "states", None if judge is None else judge.finest_angstrom)


class _Judge:
    """Asks images of a class whether two groups of its particles differ."""

    def __init__(
        self,
        run: Run,
        source: ParticleSource,
        class_index: int,
        members: Int[np.ndarray, "m"],
        mean: Float[Tensor, "n n n"],
        seed: int,
    ):
        box_size, shown_size = run.mixture.box_size, mean.shape[-1]
        radius = min(_FINEST, run.radius or _FINEST, largest_radius(shown_size))
        self.finest_angstrom = box_size * run.pixel_size_angstrom / radius
        self._generator = torch.Generator().manual_seed(seed)
        asked = torch.randperm(len(members), generator=self._generator)[:_MOST_IMAGES].sort().values.numpy()
        # Where each of the class's particles is among those asked; -1 for the others.
        self._place: Int[np.ndarray, "m"] = np.full(len(members), -1)
        self._place[asked] = np.arange(len(asked))
        band, lattice = Band(box_size, radius, run.device), Lattice(box_size, radius)
        images = posed_images(run, source, class_index, members[asked], band)
        # A lattice counts in steps of the whole box, so that of the shrunk map has the same points; see `shrink_map`.
        values = density_on_lattice(Lattice(shown_size, radius), mean) * (box_size / shown_size) ** 2
        with torch.no_grad():
            self._residuals = ClassResiduals.of(images, band, lattice, values.to(run.device))

    @torch.no_grad()
    def tells_apart(self, first: Int[np.ndarray, "m"], second: Int[np.ndarray, "n"]) -> bool:
        """Whether both groups have enough particles and their images differ."""
        places = [self._place[group] for group in (first, second)]
        asked = [torch.from_numpy(place[place >= 0]) for place in places]
        if min(len(group) for group in asked) < FEWEST_IN_STATE // 2:
            return False
        return self._residuals.separation(asked[0], asked[1], self._generator).is_told


def _write_tables(folder: Path, landscape: Landscape, clusters: Clusters) -> None:
    """A row for each sampled volume, and a row for each state."""
    components = [f"pc{number + 1}" for number in range(landscape.plane.shape[1])]
    sizes = np.bincount(clusters.labels, minlength=len(clusters.centres))
    _write_csv(
        folder / "landscape.csv",
        ["volume", "state", "share", "particles", *components],
        [
            [str(volume), str(state), f"{share:.4f}", str(size), *(f"{along:.6g}" for along in place)]
            for volume, (state, share, size, place) in enumerate(
                zip(landscape.state_of_volume, landscape.volume_share, sizes, landscape.plane, strict=True)
            )
        ],
    )
    counts = np.bincount(landscape.state_of_particle, minlength=landscape.num_states)
    _write_csv(
        folder / "states.csv",
        ["state", "share", "particles", "volume", *(f"z{n + 1}" for n in range(clusters.centres.shape[1]))],
        [
            [
                str(state),
                f"{landscape.share[state]:.4f}",
                str(counts[state]),
                str(volume),
                *(f"{value:.6g}" for value in clusters.centres[volume]),
            ]
            for state, volume in enumerate(landscape.central_volume)
        ],
    )


def _write_csv(path: Path, heading: list[str], rows: list[list[str]]) -> None:
    with write_atomically(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([heading, *rows])
