"""All that is written and shown of one class."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from cryohydra._typing import Tensor
from cryohydra.analysis import latent
from cryohydra.analysis.class_plots import plot_differences, plot_orientations
from cryohydra.analysis.class_states import States, study_states
from cryohydra.analysis.drawing import figure_to_png, save_figure
from cryohydra.analysis.latent_plots import (
    PlaneNames,
    plot_cloud,
    plot_clusters,
    plot_conformation_by_particle,
    plot_conformation_histogram,
    plot_hexagons,
    plot_marginals,
    plot_numbered_hexagons,
    plot_states,
    plot_traversal,
    plot_values,
)
from cryohydra.analysis.maps import SHOWN_BOX_SIZE, shrink_map
from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.analysis.palette import DARK, LIGHT, Theme
from cryohydra.analysis.pictures import DensityPictures, picture_density, picture_each, picture_motion, picture_series
from cryohydra.analysis.requests import Requests
from cryohydra.analysis.run import Run
from cryohydra.analysis.volumes import VolumeWriter, write_text_table
from cryohydra.data.source import ParticleSource
from cryohydra.io.atomic import write_atomically
from cryohydra.io.pickles import write_pickle

DrawFigure = Callable[[Theme], Figure]
_UMAP_NAMES = PlaneNames("UMAP 1", "UMAP 2")
_FEWEST_FOR_UMAP = 5
_MOST_DIFFERENCES = 4


@dataclass(frozen=True)
class ShownFigure:
    """A figure of the report, once for each theme."""

    caption: str
    light_png: bytes
    dark_png: bytes


def show_figure(path: Path, draw: DrawFigure, caption: str) -> ShownFigure:
    """Write a figure to a file, and keep it for the report in both themes."""
    return ShownFigure(caption, save_figure(draw(LIGHT), path), figure_to_png(draw(DARK)))


@dataclass(frozen=True)
class Film:
    """Volumes of a series as pictures to page through."""

    caption: str
    folder: Path
    """Of the volumes."""
    frames: list[bytes]
    spread: bytes
    """Where the frames differ."""
    name: str
    """Short, as in a list to choose from."""

    @property
    def count(self) -> int:
        """Number of volumes."""
        return len(self.frames)


@dataclass(frozen=True)
class Tile:
    """One picture with its caption."""

    caption: str
    picture: bytes


@dataclass(frozen=True)
class ClassFindings:
    """What the report shows of one class."""

    class_index: int
    num_particles: int
    density: Float[Tensor, "n n n"]
    """Shrunk; at the conformation of the particle nearest to the mean."""
    pictures: DensityPictures
    orientations: ShownFigure | None
    """None if it has no particles."""
    states: States | None
    """None if it has no particles or is rigid."""
    landscape: ShownFigure | None
    """Of its states."""
    state_differences: ShownFigure | None
    """None if there are not several states."""
    films: tuple[Film, ...]
    tiles: tuple[Tile, ...]
    figures: tuple[ShownFigure, ...]
    notes: tuple[str, ...]


class ClassAnalysis:
    """Works through one class of a run, filling its folder and gathering what the report shows."""

    def __init__(
        self,
        run: Run,
        class_index: int,
        requests: Requests,
        options: AnalyzeOptions,
        source: ParticleSource | None,
        says: Callable[[str], None],
    ):
        self.run, self.options, self.requests, self.class_index = run, options, requests, class_index
        self.source = source
        self.members = run.members(class_index)
        self.conformation: Float[np.ndarray, "m z"] = run.latents.conformation[self.members].astype(np.float64)
        self.folder = run.folder.class_analysis_path(run.epoch, class_index)
        self.volumes = VolumeWriter(run, class_index, options.invert, says)
        self.says = says
        self._films: list[Film] = []
        self._tiles: list[Tile] = []
        self._figures: list[ShownFigure] = []
        self._notes: list[str] = []
        self._states: States | None = None
        self._landscape: ShownFigure | None = None
        self._state_differences: ShownFigure | None = None

    def perform(self) -> ClassFindings:
        """Write everything and tell what was found."""
        self.folder.mkdir(parents=True, exist_ok=True)
        centre = np.zeros(self.run.z_dim)
        if len(self.members) and self.run.z_dim:
            centre = self.conformation[latent.central_particle(self.conformation)]
        density = shrink_map(self.volumes.draw(centre), SHOWN_BOX_SIZE)
        if not len(self.members):
            self._note(f"No particle has class {self.class_index} as its best; its map is drawn at z = 0.")
        if not len(self.members) or not self.run.z_dim:
            self.volumes.write(self.folder, centre[None])
        elif self.run.z_dim == 1:
            self._study_line()
        else:
            self._study_space()
        for series in self.requests.of_class(self.class_index):
            self.volumes.write(self.folder / series.folder_name, series.conformations)
        return ClassFindings(
            class_index=self.class_index,
            num_particles=len(self.members),
            density=density,
            pictures=picture_density(density),
            orientations=self._study_orientations(),
            states=self._states,
            landscape=self._landscape,
            state_differences=self._state_differences,
            films=tuple(self._films),
            tiles=tuple(self._tiles),
            figures=tuple(self._figures),
            notes=tuple(self._notes),
        )

    def _study_line(self) -> None:
        """A conformation of one number."""
        points = latent.percentile_points(self.conformation, self.options.n_per_pc)
        z, particles = self.conformation[:, 0], self.run.latents.particle_index[self.members]
        self._save("z.png", lambda theme: plot_conformation_by_particle(z, particles, theme))
        self._save(
            "z_hist.png",
            lambda theme: plot_conformation_histogram(z, points[:, 0], theme),
            "How the conformations z spread; ticks mark the volumes above.",
        )
        densities = self.volumes.write(self.folder, points)
        self._add_film("Volumes at the 5th to 95th percentile of z", "z", self.folder, densities)
        self._study_clusters({})

    def _study_space(self) -> None:
        """A conformation of two numbers or more."""
        components = latent.fit_principal_components(self.conformation)
        projected = components.project(self.conformation)
        plane, names = projected[:, :2], PlaneNames(components.axis_name(0), components.axis_name(1))
        self._save("z_pca.png", lambda theme: plot_cloud(plane, names, theme))
        self._save("z_pca_marginals.png", lambda theme: plot_marginals(plane, names, theme))
        caption = "Density of particles over the first two principal components of z."
        self._save("z_pca_hexbin.png", lambda theme: plot_hexagons(plane, names, theme), caption)
        planes = {"z_pca": (plane, names)}
        embedded = self._embed()
        if embedded is not None:
            planes["umap"] = (embedded, _UMAP_NAMES)
        self._study_clusters(planes)
        self._traverse(components, projected, embedded)

    def _embed(self) -> Float[np.ndarray, "m 2"] | None:
        """The UMAP plane, where it is wanted and can be had."""
        if self.run.z_dim <= 2 or self.options.skip_umap:
            return None
        if not latent.has_umap():
            return None  # said once, for all classes
        if len(self.members) < _FEWEST_FOR_UMAP:
            self._note(f"Class {self.class_index} has too few particles for UMAP.")
            return None
        self.says(f"Class {self.class_index}: laying {len(self.members):,} conformations out with UMAP.")
        embedded = latent.embed_umap(self.conformation, self.requests.seed)
        write_pickle(self.folder / "umap.pkl", self._for_all_particles(embedded.astype(np.float64), np.nan))
        self._save("umap.png", lambda theme: plot_cloud(embedded, _UMAP_NAMES, theme))
        self._save("umap_marginals.png", lambda theme: plot_marginals(embedded, _UMAP_NAMES, theme))
        caption = "Density of particles in the UMAP plane."
        self._save("umap_hexbin.png", lambda theme: plot_hexagons(embedded, _UMAP_NAMES, theme), caption)
        return embedded

    def _study_clusters(self, planes: dict[str, tuple[Float[np.ndarray, "m 2"], PlaneNames]]) -> None:
        clusters = latent.cluster_conformations(self.conformation, self.options.ksample, self.requests.seed)
        count = len(clusters.centres)
        if count < self.options.ksample:
            self._note(
                f"Class {self.class_index} has {len(self.members):,} particles of {count} different conformations, "
                f"so k-means made {count} groups instead of {self.options.ksample}."
            )
        folder = self.folder / f"kmeans{count}"
        densities = self.volumes.write(folder, clusters.centres)
        write_pickle(folder / "labels.pkl", self._for_all_particles(clusters.labels, -1))
        write_text_table(folder / "centers.txt", clusters.centres)
        particles = self.run.latents.particle_index[self.members][clusters.centre_rows]
        with write_atomically(folder / "centers_ind.txt") as temporary:
            np.savetxt(temporary, particles, fmt="%d")
        for stem, (plane, names) in planes.items():
            self._draw_clusters(folder, stem, plane, names, clusters)
        sizes = np.bincount(clusters.labels, minlength=count)
        for number, picture in enumerate(picture_each(densities)):
            self._tiles.append(Tile(f"{number}: {sizes[number]:,}", picture))
        self._study_states(clusters, densities)

    def _study_states(self, clusters: latent.Clusters, densities: list[Float[Tensor, "n n n"]]) -> None:
        """Which of the volumes at the clusters' centres are states that images tell apart."""
        self.says(f"Class {self.class_index}: looking for states among {len(densities)} volumes.")
        seed = self.requests.seed
        states = study_states(self.volumes, self.folder, self.members, clusters, densities, self.source, seed)
        landscape, self._states = states.landscape, states
        write_pickle(states.folder / "labels.pkl", self._for_all_particles(landscape.state_of_particle, -1))
        caption = "Each dot is a volume, as large as its share, coloured by state; numbers as at the k-means pictures."
        path = self.folder / "landscape.png"
        self._landscape = show_figure(path, lambda theme: plot_states(landscape, theme), caption)
        rows = [
            _difference_row(states, number) for number in range(1, min(landscape.num_states, _MOST_DIFFERENCES + 1))
        ]
        if rows:
            caption = "Projections of neighbouring states, along the axis along which they differ most: red is gained."
            path = self.folder / "state_differences.png"
            self._state_differences = show_figure(path, lambda theme: plot_differences(rows, theme), caption)

    def _draw_clusters(
        self, folder: Path, stem: str, plane: Float[np.ndarray, "m 2"], names: PlaneNames, clusters: latent.Clusters
    ) -> None:
        centres = plane[clusters.centre_rows]
        caption = "K-means groups of conformations; numbers as under the pictures." if stem == "z_pca" else ""
        self._save(
            f"{folder.name}/{stem}.png",
            lambda theme: plot_clusters(plane, clusters.labels, centres, names, theme),
            caption,
        )
        self._save(f"{folder.name}/{stem}_hex.png", lambda theme: plot_numbered_hexagons(plane, centres, names, theme))

    def _traverse(
        self,
        components: latent.PrincipalComponents,
        projected: Float[np.ndarray, "m z"],
        embedded: Float[np.ndarray, "m 2"] | None,
    ) -> None:
        """Volumes along principal components."""
        for component in range(min(self.options.pc, self.run.z_dim)):
            if components.variance_share[component] < 1e-12:
                self._note(
                    f"The conformations of class {self.class_index} do not vary along component {component + 1}; "
                    "it was not traversed."
                )
                return
            num_points = self.options.n_per_pc
            points = latent.traverse_component(components, self.conformation, component, num_points)
            stem = f"pc{component + 1}_{num_points}"
            densities = self.volumes.write(self.folder / stem, points)
            caption = f"Along principal component {component + 1}, 5th to 95th percentile"
            self._add_film(caption, f"Component {component + 1}", self.folder / stem, densities)
            # Beside the traversed component: the first other one.
            other = 1 if component == 0 else 0
            shown = [min(component, other), max(component, other)]
            plane, path = projected[:, shown], components.project(points)[:, shown]
            names = PlaneNames(*(components.axis_name(number) for number in shown))
            self._save_traversal(f"{stem}/pca_traversal.png", plane, path, names, is_density=False)
            self._save_traversal(f"{stem}/pca_traversal_hex.png", plane, path, names, is_density=True)
            if embedded is not None:
                self._show_in_umap(stem, embedded, projected, components.project(points), component)

    def _save_traversal(
        self,
        name: str,
        plane: Float[np.ndarray, "m 2"],
        path: Float[np.ndarray, "v 2"],
        names: PlaneNames,
        *,
        is_density: bool,
    ) -> None:
        self._save(name, lambda theme: plot_traversal(plane, path, names, theme, is_density=is_density))

    def _show_in_umap(
        self,
        stem: str,
        embedded: Float[np.ndarray, "m 2"],
        projected: Float[np.ndarray, "m z"],
        points: Float[np.ndarray, "v z"],
        component: int,
    ) -> None:
        """A traversal in the UMAP plane, at the particles nearest to its points."""
        nearest = np.array([np.square(projected - point).sum(axis=1).argmin() for point in points])
        path, along = embedded[nearest], projected[:, component]
        self._save(
            f"{stem}/umap.png", lambda theme: plot_values(embedded, along, f"PC{component + 1}", _UMAP_NAMES, theme)
        )
        self._save(
            f"{stem}/umap_traversal.png",
            lambda theme: plot_traversal(embedded, path, _UMAP_NAMES, theme, is_connected=False),
        )
        self._save(
            f"{stem}/umap_traversal_connected.png", lambda theme: plot_traversal(embedded, path, _UMAP_NAMES, theme)
        )

    def _study_orientations(self) -> ShownFigure | None:
        if not len(self.members):
            return None
        rotation = self.run.latents.rotation[self.members].reshape(-1, 3, 3)
        caption = "Where on the sphere the particles are seen from; 1 is an even spread"
        return show_figure(self.folder / "orientations.png", lambda theme: plot_orientations(rotation, theme), caption)

    def _save(self, name: str, draw: DrawFigure, caption: str = "") -> None:
        """Write a figure into the class's folder; with a caption it is shown in the report too."""
        if caption:
            self._figures.append(show_figure(self.folder / name, draw, caption))
        else:
            save_figure(draw(LIGHT), self.folder / name)

    def _add_film(self, caption: str, name: str, folder: Path, densities: list[Tensor]) -> None:
        self._films.append(Film(caption, folder, picture_series(densities), picture_motion(densities), name))

    def _note(self, sentence: str) -> None:
        self._notes.append(sentence)
        self.says(sentence)

    def _for_all_particles(
        self, values: Float[np.ndarray, "m *c"] | Int[np.ndarray, "m *c"], filler: float | int
    ) -> Float[np.ndarray, "n *c"] | Int[np.ndarray, "n *c"]:
        """Values of the class's particles in an array of the run's, so that it lines up with the other files."""
        spread = np.full((len(self.run.latents), *values.shape[1:]), filler, dtype=values.dtype)
        spread[self.members] = values
        return spread


def _difference_row(states: States, number: int) -> tuple[str, Float[np.ndarray, "3 n n"]]:
    """A state and the one before it, and what comes from the one to the other."""
    before, after = states.densities[number - 1], states.densities[number]
    axis = max(range(3), key=lambda one: float((after - before).sum(one).square().sum()))
    pictures = torch.stack([one.sum(axis) for one in (before, after, after - before)]).numpy()
    return f"state {number - 1} | state {number} | what changes", pictures
