"""Figures for TensorBoard: what is known of particles and classes while training goes on.

Drawn when an epoch is saved, from a few thousand particles of each class at most; fields are evaluated for a few.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.hartley import hartley_to_image, shift_hartley
from cryohydra.geometry.rotations import matrix_to_euler
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.slices import FieldSlices
from cryohydra.physics.pose import Pose
from cryohydra.training.pose_errors import PoseErrors, pose_errors
from cryohydra.training.state import TrainingState

_MOST_POINTS = 3000
_FEWEST = 3
_NUM_PAIRS = 4
_CHUNK = 256


@dataclass(frozen=True)
class Reference:
    """What was given of the particles, to look at and to compare with; training does not learn from it."""

    labels: Int[Tensor, "n"] | None = None
    poses: Pose | None = None
    """Axes n t 1."""
    order_palette: str | None = None
    """Colours by the order of particles: rainbow, or any other word for a linear scale; None for no such figure."""


class Pictures:
    """Draws what is known of a state.

    Args:
        reference: What was given to compare with.
    """

    def __init__(self, reference: Reference | None = None):
        self.reference = reference or Reference()

    def scalars(self, state: TrainingState) -> Iterator[tuple[str, float]]:
        """Names and numbers for this moment."""
        yield "Mask Radius", float(state.drawn_radius)
        for name, values in self.histograms(state):
            what, of_class = name.split("/")
            yield f"{what} Median/{of_class}", float(values.median())
            yield f"{what} Mean/{of_class}", float(values.mean())

    def histograms(self, state: TrainingState) -> Iterator[tuple[str, Float[Tensor, "n"]]]:
        """Names and values, one for each particle."""
        for k, _, errors in self._errors(state):
            yield f"Rotation Error/Class {k}", errors.angle_degrees
            yield f"Out-of-Plane Angle Error/Class {k}", errors.out_of_plane_degrees
            yield f"Translation Error/Class {k}", errors.shift_px

    def _errors(self, state: TrainingState) -> Iterator[tuple[int, Pose, PoseErrors]]:
        """Of each class with particles, the given poses and what the estimated ones are off, if poses were given."""
        given = self.reference.poses
        if given is None:
            return
        for k, rows in _members(state):
            if len(rows) >= _FEWEST:
                on_host = rows.cpu()
                picked = Pose(given.rotation[on_host].to(state.device), given.shift_px[on_host].to(state.device))
                yield k, picked, pose_errors(_poses(state, rows, k), picked)

    def figures(self, state: TrainingState) -> Iterator[tuple[str, Figure]]:
        """Names and figures for this moment."""
        posterior = state.classes.log_posterior().exp().cpu()
        if state.num_classes > 1:
            yield "Ratio per Class", _shares(posterior)
        if state.num_classes == 3:
            yield "Posterior over Classes", _triangle(posterior, self.reference.labels)
        for k, rows in _members(state):
            if len(rows) < _FEWEST:
                continue
            yield f"Image/Class {k}", _pairs(*_images_and_predictions(state, k, rows[:_NUM_PAIRS]))
            direction = _poses(state, rows, k).rotation[:, 0, 0, 2].cpu().numpy()
            yield f"Out-of-Plane Distribution/Class {k}", _sphere(direction)
            if not state.mixture.z_dim:
                continue
            z = _conformations(state, rows.cpu(), k)
            yield f"Conformation - PCA/Class {k}", _plane(z)
            if self.reference.labels is not None:
                yield f"Colored PCA/Class {k}", _plane(z, self.reference.labels[rows.cpu()].numpy(), "tab10")
            if self.reference.order_palette is not None:
                palette = "rainbow" if self.reference.order_palette == "rainbow" else "viridis"
                yield f"PCA by Order/Class {k}", _plane(z, rows.cpu().numpy(), palette)
        for k, given, errors in self._errors(state):
            euler = [torch.rad2deg(matrix_to_euler(of.rotation[:, 0, 0])) for of in (given, errors.aligned)]
            yield f"Euler Angles/Class {k}", _against(euler[0], euler[1], ("rot", "tilt", "psi"), "degrees")
            shift = [of.shift_px[:, 0, 0] for of in (given, errors.aligned)]
            yield f"Translation/Class {k}", _against(shift[0], shift[1], ("x", "y"), "pixels")


def _poses(state: TrainingState, rows: Int[Tensor, "m"], class_index: int) -> Pose:
    """Of one class; the class axis has length one."""
    only = slice(class_index, class_index + 1)
    return Pose(state.poses.rotation[rows][:, :, only], state.poses.shift_px[rows][:, :, only])


def _members(state: TrainingState) -> Iterator[tuple[int, Int[Tensor, "m"]]]:
    """Rows of each class's particles, evenly thinned."""
    best = state.classes.log_posterior().argmax(1)
    for k in range(state.num_classes):
        rows = torch.nonzero(best == k).squeeze(-1)
        yield k, rows[:: max(1, -(-len(rows) // _MOST_POINTS))]


@torch.no_grad()
def _conformations(state: TrainingState, rows: Int[Tensor, "m"], class_index: int) -> Float[np.ndarray, "m z"]:
    means = [state.conformations.of(part, state.images).mean[:, class_index] for part in rows.split(_CHUNK)]
    return torch.cat(means).cpu().double().numpy()


@torch.no_grad()
def _images_and_predictions(
    state: TrainingState, class_index: int, rows: Int[Tensor, "m"]
) -> tuple[Float[Tensor, "m d d"], Float[Tensor, "m d d"]]:
    """First tilts of particles as they came, and what is predicted of them in the band that is known, without noise."""
    on_host, band = rows.cpu(), state.band(state.drawn_radius)
    pose = _poses(state, rows, class_index)
    which = torch.full_like(rows, class_index)
    if state.fields_are_fitted or state.maps is None:
        conformation = torch.stack([state.mean_conformation(k) for k in range(state.num_classes)])
        slices: SliceSource = FieldSlices(state.mixture, conformation)
    else:
        band = state.band(min(band.radius, state.maps.lattice.radius))
        slices = LatticeSlices.of_maps(state.maps.lattice, state.maps.values, GridSlicers())
    cut = slices.of_candidates(band, which, pose.rotation[:, 0, 0])
    predicted = state.ctf(on_host, band)[:, 0] * shift_hartley(cut, band.frequencies, pose.shift_px[:, 0, 0])
    image = hartley_to_image(state.images.hartley(on_host)[:, 0])
    return image.cpu(), hartley_to_image(band.scatter(predicted)).cpu()


def _pairs(images: Float[Tensor, "m d d"], predictions: Float[Tensor, "m d d"]) -> Figure:
    """Images above, predictions below."""
    figure = Figure(figsize=(1.6 * len(images), 3.4), dpi=80)
    for row, (pictures, what) in enumerate(((images, "image"), (predictions, "prediction"))):
        for column, picture in enumerate(pictures.numpy()):
            axes = figure.add_subplot(2, len(images), row * len(images) + column + 1)
            axes.imshow(picture, cmap="gray")
            axes.set(xticks=[], yticks=[], ylabel=what if column == 0 else "")
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.02, top=0.98, wspace=0.05, hspace=0.05)
    return figure


def _against(given: Float[Tensor, "n c"], estimated: Float[Tensor, "n c"], names: tuple[str, ...], unit: str) -> Figure:
    """Estimated numbers over given ones, a panel for each."""
    figure = Figure(figsize=(2.6 * len(names), 2.8), dpi=80)
    for column, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), column + 1)
        axes.scatter(given[:, column].cpu(), estimated[:, column].cpu(), s=2)
        axes.set(title=name, xlabel=f"given ({unit})", ylabel="estimated" if column == 0 else "")
    figure.subplots_adjust(left=0.1, right=0.98, bottom=0.2, top=0.88, wspace=0.3)
    return figure


def _page(draw: Callable[[Axes], None], projection: str | None = None) -> Figure:
    figure = Figure(figsize=(4, 3.2), dpi=80)
    draw(figure.add_subplot(projection=projection))
    figure.subplots_adjust(left=0.18, bottom=0.17)  # the layout engines cost more than the drawing
    return figure


def _shares(posterior: Float[Tensor, "n k"]) -> Figure:
    """Particles by best class (bars) and by probability (dots)."""
    hard = torch.bincount(posterior.argmax(1), minlength=posterior.shape[1]) / len(posterior)
    classes = np.arange(posterior.shape[1])

    def draw(axes: Axes) -> None:
        axes.bar(classes, hard.numpy(), color="C0")
        axes.plot(classes, posterior.mean(0).numpy(), "k.")
        axes.set(xlabel="class", ylabel="share of the particles")

    return _page(draw)


def _triangle(posterior: Float[Tensor, "n 3"], labels: Int[Tensor, "n"] | None) -> Figure:
    """Three classes: a particle that is sure lies in a corner."""
    step = max(1, len(posterior) // _MOST_POINTS)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    place = (posterior[::step].float() @ corners).numpy()
    colours = posterior.argmax(1) if labels is None else labels

    def draw(axes: Axes) -> None:
        axes.scatter(place[:, 0], place[:, 1], s=4, c=colours[::step].numpy(), cmap="tab10")
        axes.set_aspect("equal")
        axes.set_axis_off()
        for k, corner in enumerate(corners.tolist()):
            axes.annotate(f"class {k}", corner)

    return _page(draw)


def _sphere(direction: Float[np.ndarray, "n 3"]) -> Figure:
    longitude = np.arctan2(direction[:, 1], direction[:, 0])
    latitude = np.arcsin(np.clip(direction[:, 2], -1, 1))

    def draw(axes: Axes) -> None:
        axes.scatter(longitude, latitude, s=3)
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=False, labelleft=False)

    return _page(draw, "mollweide")


def _plane(z: Float[np.ndarray, "n z"], values: Int[np.ndarray, "n"] | None = None, palette: str = "tab10") -> Figure:
    """The first two principal components; one number is shown against the particles' order."""
    centred = z - z.mean(0)
    axes_of_z = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    projected = centred @ axes_of_z[:, :2]
    second = projected[:, 1] if projected.shape[1] > 1 else np.arange(len(projected))

    def draw(axes: Axes) -> None:
        axes.scatter(
            projected[:, 0],
            second,
            s=3,
            c="C0" if values is None else values,
            cmap=palette if values is not None else None,
        )
        axes.set(xlabel="PC1", ylabel="PC2" if projected.shape[1] > 1 else "particle")

    return _page(draw)
