"""Pictures of conformations: clouds, densities, clusters and traversals."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cryohydra.analysis.drawing import (
    count_on,
    draw_cloud,
    draw_hexagons,
    draw_values,
    figure_of,
    new_axes,
    new_figure,
    style_axes,
)
from cryohydra.analysis.landscape import Landscape
from cryohydra.analysis.palette import LIGHT, Theme, class_colours


@dataclass(frozen=True)
class PlaneNames:
    """What the two axes of a plane of conformations are called."""

    x: str
    y: str


def plot_cloud(xy: Float[np.ndarray, "n 2"], names: PlaneNames, theme: Theme = LIGHT, title: str = "") -> Figure:
    """Particles in a plane of conformations."""
    axes = new_axes(theme, 4.4, title=title, x=names.x, y=names.y)
    draw_cloud(axes, xy, theme, np.zeros(len(xy), dtype=np.int64), [theme.accent])
    return figure_of(axes)


def plot_values(
    xy: Float[np.ndarray, "n 2"], value: Float[np.ndarray, "n"], label: str, names: PlaneNames, theme: Theme = LIGHT
) -> Figure:
    """Particles in a plane of conformations, coloured by a number that each has."""
    axes = new_axes(theme, 4.4, x=names.x, y=names.y)
    draw_values(axes, xy, value, theme, label)
    return figure_of(axes)


def plot_hexagons(xy: Float[np.ndarray, "n 2"], names: PlaneNames, theme: Theme = LIGHT, title: str = "") -> Figure:
    """Density of particles in a plane of conformations."""
    axes = new_axes(theme, 4.4, title=title, x=names.x, y=names.y)
    draw_hexagons(axes, xy, theme)
    return figure_of(axes)


def plot_marginals(xy: Float[np.ndarray, "n 2"], names: PlaneNames, theme: Theme = LIGHT) -> Figure:
    """Particles in a plane of conformations, with a histogram along each axis."""
    figure = new_figure(theme, 4.8)
    grid = figure.add_gridspec(2, 2, width_ratios=[5, 1], height_ratios=[1, 5], hspace=0.02, wspace=0.02)
    axes = figure.add_subplot(grid[1, 0])
    style_axes(axes, theme, x=names.x, y=names.y)
    draw_cloud(axes, xy, theme, np.zeros(len(xy), dtype=np.int64), [theme.accent])
    above, beside = figure.add_subplot(grid[0, 0], sharex=axes), figure.add_subplot(grid[1, 1], sharey=axes)
    above.hist(xy[:, 0], bins=num_bins(len(xy)), range=axes.get_xlim(), color=theme.accent)
    beside.hist(xy[:, 1], bins=num_bins(len(xy)), range=axes.get_ylim(), color=theme.accent, orientation="horizontal")
    for side in (above, beside):
        side.set_facecolor(theme.paper)
        side.set_axis_off()
    return figure


def plot_clusters(
    xy: Float[np.ndarray, "n 2"],
    labels: Int[np.ndarray, "n"],
    centres: Float[np.ndarray, "c 2"],
    names: PlaneNames,
    theme: Theme = LIGHT,
    title: str = "",
) -> Figure:
    """Particles coloured by cluster, each cluster's number at its centre."""
    axes = new_axes(theme, 4.4, title=title, x=names.x, y=names.y)
    draw_cloud(axes, xy, theme, labels, class_colours(len(centres)))
    _draw_numbered(axes, centres, theme)
    return figure_of(axes)


def plot_numbered_hexagons(
    xy: Float[np.ndarray, "n 2"], centres: Float[np.ndarray, "c 2"], names: PlaneNames, theme: Theme = LIGHT
) -> Figure:
    """Density of particles with the numbers of the clusters."""
    axes = new_axes(theme, 4.4, x=names.x, y=names.y)
    draw_hexagons(axes, xy, theme)
    _draw_numbered(axes, centres, theme)
    return figure_of(axes)


def plot_traversal(
    xy: Float[np.ndarray, "n 2"],
    path: Float[np.ndarray, "v 2"],
    names: PlaneNames,
    theme: Theme = LIGHT,
    *,
    is_density: bool = False,
    is_connected: bool = True,
) -> Figure:
    """Particles, or their density, with the conformations at which volumes were written."""
    axes = new_axes(theme, 4.4, x=names.x, y=names.y)
    if is_density:
        draw_hexagons(axes, xy, theme)
    else:
        draw_cloud(axes, xy, theme, np.zeros(len(xy), dtype=np.int64), ["#8c959f"])
    _widen_to(axes, path)
    if is_connected:
        axes.plot(path[:, 0], path[:, 1], color=theme.ink, linewidth=1)
    _draw_numbered(axes, path, theme)
    return figure_of(axes)


def plot_states(landscape: Landscape, theme: Theme = LIGHT) -> Figure:
    """Volumes in the plane of their first two principal components, as large as their shares, coloured by state."""
    plane, state = landscape.plane, landscape.state_of_volume
    # Of one volume, or two, there is no second component.
    xy = np.stack([plane[:, 0], plane[:, 1] if plane.shape[1] > 1 else np.zeros(len(plane))], axis=1)
    shares = enumerate(landscape.variance_share[:2], start=1)
    names = [*(f"volume PC{number} ({100 * share:.0f} %)" for number, share in shares), ""]
    axes = new_axes(theme, x=names[0], y=names[1])
    colours = class_colours(landscape.num_states)
    sizes = 20 + 3000 * landscape.volume_share
    axes.scatter(xy[:, 0], xy[:, 1], s=sizes, c=[colours[one] for one in state], linewidths=0, alpha=0.85)
    axes.axis("equal")
    axes.margins(0.12)
    _draw_numbered(axes, xy, theme)
    return figure_of(axes)


def plot_conformation_by_particle(
    z: Float[np.ndarray, "n"], particle: Int[np.ndarray, "n"], theme: Theme = LIGHT
) -> Figure:
    """A one-dimensional conformation against the particle's number."""
    axes = new_axes(theme, x="particle", y="conformation z")
    xy = np.stack([particle.astype(np.float64), z.astype(np.float64)], axis=-1)
    draw_cloud(axes, xy, theme, np.zeros(len(xy), dtype=np.int64), [theme.accent])
    count_on(axes.xaxis)
    return figure_of(axes)


def plot_conformation_histogram(
    z: Float[np.ndarray, "n"], marks: Float[np.ndarray, "v"], theme: Theme = LIGHT, title: str = ""
) -> Figure:
    """How a one-dimensional conformation is distributed; ticks mark where volumes were written."""
    axes = new_axes(theme, title=title, x="conformation z", y="particles")
    axes.hist(z, bins=num_bins(len(z)), color=theme.accent)
    axes.plot(marks, np.zeros(len(marks)), "|", color=theme.ink, markersize=14, clip_on=False)
    count_on(axes.yaxis)
    return figure_of(axes)


def num_bins(num_points: int) -> int:
    """Bars of a histogram: few for few points, never more than the eye can use."""
    return int(np.clip(np.sqrt(num_points), 5, 80))


def _widen_to(axes: Axes, points: Float[np.ndarray, "c 2"]) -> None:
    """Make the visible range reach points that lie outside it."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    (low_x, low_y), (high_x, high_y) = points.min(axis=0), points.max(axis=0)
    pad_x, pad_y = 0.03 * (right - left), 0.03 * (top - bottom)
    axes.set_xlim(min(left, float(low_x) - pad_x), max(right, float(high_x) + pad_x))
    axes.set_ylim(min(bottom, float(low_y) - pad_y), max(top, float(high_y) + pad_y))


def _draw_numbered(axes: Axes, points: Float[np.ndarray, "c 2"], theme: Theme) -> None:
    """Mark points and write their numbers beside them, readable on any background."""
    axes.scatter(points[:, 0], points[:, 1], s=18, color=theme.ink, edgecolors=theme.paper, linewidths=0.8, zorder=3)
    for number, (x, y) in enumerate(points):
        axes.annotate(
            str(number),
            (float(x), float(y)),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=9,
            color=theme.ink,
            path_effects=[withStroke(linewidth=2.5, foreground=theme.paper)],
            zorder=4,
        )
