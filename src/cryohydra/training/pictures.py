"""Figures for TensorBoard: what is known of particles and classes while training goes on.

Drawn when an epoch is saved, from a few thousand particles of each class at most; no field is evaluated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryohydra._typing import Float, Int, Tensor
from cryohydra.geometry.rotations import geodesic_angle
from cryohydra.physics.pose import Pose
from cryohydra.training.state import TrainingState

_MOST_POINTS = 3000
_MOST_FRAMES = 200
_FEWEST = 3
_CHUNK = 256


@dataclass(frozen=True)
class Reference:
    """What was given of the particles, to look at and to compare with; training does not learn from it."""

    labels: Int[Tensor, "n"] | None = None
    poses: Pose | None = None
    """Axes n t 1."""
    order_palette: str | None = None
    """Colours by the order of particles: rainbow, or any other word for a linear scale; None for no such figure."""


@dataclass(frozen=True)
class PoseErrors:
    """How far the poses of one class's particles are from given ones, after one rotation, hand and shift."""

    angle_degrees: Float[Tensor, "n"]
    """Of the whole rotation."""
    out_of_plane_degrees: Float[Tensor, "n"]
    """Between the viewing directions."""
    shift_px: Float[Tensor, "n"]


def pose_errors(estimated: Pose, reference: Pose) -> PoseErrors:
    """Compare the first tilt of the first class of each particle.

    A field has a frame and hand of its own: the rotation is the one, of those that single particles
    propose, with the smallest median error, for either hand.
    """
    own, given = estimated.rotation[:, 0, 0].float(), reference.rotation[:, 0, 0].float()
    mirror = torch.diag(torch.tensor([-1.0, -1.0, 1.0], device=own.device))
    aligned = min((_in_frame_of(given, hand) for hand in (own, mirror @ own)), key=lambda found: float(found[0]))[1]
    cosine = (aligned[:, 2] * given[:, 2]).sum(-1).clamp(-1, 1)
    moved = (estimated.shift_px - reference.shift_px)[:, 0, 0].double()
    # The map may lie off the centre of its box: an offset o moves each image by R o.
    planes = own[:, :2].double()
    offset = torch.linalg.lstsq(planes.flatten(0, 1).cpu(), moved.reshape(-1, 1).cpu()).solution[:, 0].to(moved)
    return PoseErrors(
        torch.rad2deg(geodesic_angle(aligned, given)),
        torch.rad2deg(torch.arccos(cosine)),
        (moved - planes @ offset).norm(dim=-1).float(),
    )


def _in_frame_of(
    given: Float[Tensor, "n 3 3"], own: Float[Tensor, "n 3 3"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "n 3 3"]]:
    """The smallest median of 1 - cos(angle), and the rotations in the frame that has it."""
    proposed = own.mT @ given  # the frame's rotation, as each particle sees it
    chosen = proposed[torch.linspace(0, len(own) - 1, min(len(own), _MOST_FRAMES)).long()]
    trace = chosen.flatten(1) @ proposed.flatten(1).T
    median = ((3 - trace) / 2).median(dim=1).values
    best = int(median.argmin())
    return median[best], own @ chosen[best]


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
        given = self.reference.poses
        if given is None:
            return
        for k, rows in _members(state):
            if len(rows) < _FEWEST:
                continue
            on_host = rows.cpu()
            picked = Pose(given.rotation[on_host].to(state.device), given.shift_px[on_host].to(state.device))
            errors = pose_errors(_poses(state, rows, k), picked)
            for name, values in (
                ("Rotation Error", errors.angle_degrees),
                ("Out-of-Plane Angle Error", errors.out_of_plane_degrees),
                ("Translation Error", errors.shift_px),
            ):
                yield f"{name} Median/Class {k}", float(values.median())
                yield f"{name} Mean/Class {k}", float(values.mean())

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
