"""Pictures of classes: shares, probabilities, viewing directions, likeness, and how training went."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cryohydra.analysis.drawing import (
    count_on,
    dot_size,
    figure_of,
    new_axes,
    new_figure,
    style_axes,
    style_colour_bar,
)
from cryohydra.analysis.fsc_curves import FscCurve
from cryohydra.analysis.latent_plots import num_bins
from cryohydra.analysis.palette import DENSITY_MAP, LIGHT, Theme, class_colours


@dataclass(frozen=True)
class LearningCurve:
    """The loss of one stage of training."""

    stage: str
    images_seen: Float[np.ndarray, "m"]
    loss: Float[np.ndarray, "m"]


def plot_shares(
    share: Float[np.ndarray, "k"], hard_share: Float[np.ndarray, "k"], theme: Theme = LIGHT, title: str = ""
) -> Figure:
    """Each class's share: bars are mean probabilities, dots what comes of giving every particle to its best class."""
    num_classes = len(share)
    row_inch, font_size = (0.28, 9) if num_classes <= 16 else (0.15, 7)
    axes = new_axes(theme, 1.2 + row_inch * max(num_classes, 3), title=title, x="share of the particles")
    rows = np.arange(num_classes)
    axes.barh(rows, share, color=class_colours(num_classes), height=0.7)
    axes.plot(hard_share, rows, "o", color=theme.ink, markersize=font_size / 2.2)
    reach = float(max(share.max(), hard_share.max()))
    for row in rows:
        x = max(float(share[row]), float(hard_share[row])) + 0.025 * reach
        axes.text(x, float(row), f"{100 * share[row]:.1f} %", va="center", fontsize=font_size, color=theme.ink)
    axes.set_xlim(0, 1.18 * reach)
    axes.set_yticks(rows, [str(row) for row in rows], fontsize=font_size)
    axes.set_ylabel("class", color=theme.ink, fontsize=10)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    return figure_of(axes)


def plot_probabilities(
    best_probability: Float[np.ndarray, "n"],
    best_class: Int[np.ndarray, "n"],
    num_classes: int,
    theme: Theme = LIGHT,
    title: str = "",
) -> Figure:
    """How sure the particles are of their best class, stacked by class."""
    axes = new_axes(theme, title=title, x="probability of the best class", y="particles")
    edges = np.linspace(1 / num_classes if num_classes < 10 else 0.0, 1, max(num_bins(len(best_class)) // 2, 10) + 1)
    clipped = np.clip(best_probability, edges[0], 1)
    floor = np.zeros(len(edges) - 1)
    for label, colour in enumerate(class_colours(num_classes)):
        count = np.histogram(clipped[best_class == label], bins=edges)[0]
        axes.bar(edges[:-1], count, width=np.diff(edges), align="edge", bottom=floor, color=colour, linewidth=0)
        floor = floor + count
    axes.set_xlim(edges[0], 1)
    count_on(axes.yaxis)
    return figure_of(axes)


def plot_orientations(rotation: Float[np.ndarray, "n 3 3"], theme: Theme = LIGHT, title: str = "") -> Figure:
    """Viewing directions over the sphere, on a page of their own."""
    figure = new_figure(theme, 1.9, 3.6)
    draw_orientations(figure.add_subplot(projection="mollweide"), rotation, theme, title)
    return figure


def draw_orientations(axes: Axes, rotation: Float[np.ndarray, "n 3 3"], theme: Theme, title: str) -> None:
    """Viewing directions over the sphere (Mollweide axes), as density against an even spread of one.

    Single directions are drawn as dots while they are few.
    """
    axes.set_facecolor(theme.paper)
    direction = rotation[:, 2, :].astype(np.float64)
    longitude = np.arctan2(direction[:, 1], direction[:, 0])
    latitude = np.arcsin(np.clip(direction[:, 2], -1, 1))
    density = sphere_density(longitude, latitude, num_rows=int(np.clip(np.sqrt(len(rotation) / 13), 6, 60)))
    mesh = axes.pcolormesh(
        np.linspace(-np.pi, np.pi, density.shape[1] + 1), np.linspace(-np.pi / 2, np.pi / 2, len(density) + 1), density,
        cmap=DENSITY_MAP, vmin=0, vmax=max(density.max(), 2), rasterized=True, antialiased=False,
    )  # fmt: skip
    if len(rotation) <= 300:
        axes.scatter(longitude, latitude, s=dot_size(300) / 3, color="#ffffff", edgecolors="#000000", lw=0.4)
    bar = figure_of(axes).colorbar(mesh, ax=axes, orientation="vertical", shrink=0.75, pad=0.03)
    style_colour_bar(bar.ax, theme, "times even spread")
    bar.outline.set_visible(False)
    axes.set_title(title, color=theme.ink, fontsize=11, loc="left")
    axes.set_xticks(np.radians([-120, -60, 0, 60, 120]), [])
    axes.set_yticks(np.radians([-60, -30, 0, 30, 60]), ["-60°", "-30°", "0°", "30°", "60°"])
    axes.tick_params(colors=theme.ink, labelsize=8)
    axes.grid(color="#ffffff", alpha=0.25, linewidth=0.5)
    axes.spines["geo"].set_color(theme.faint)


def sphere_density(
    longitude: Float[np.ndarray, "n"], latitude: Float[np.ndarray, "n"], num_rows: int
) -> Float[np.ndarray, "y x"]:
    """Density of directions against an even spread of one, on a fine grid of latitude and longitude.

    Counted in cells about as wide as high, so that the poles are treated as every other place.
    """
    edges = np.linspace(-np.pi / 2, np.pi / 2, num_rows + 1)
    cells = np.round(2 * num_rows * np.cos((edges[1:] + edges[:-1]) / 2)).astype(np.int64).clip(1)
    first_cell = np.concatenate([[0], np.cumsum(cells)])

    def cell_of(longitude: Float[np.ndarray, "*m"], latitude: Float[np.ndarray, "*m"]) -> Int[np.ndarray, "*m"]:
        row = ((latitude / np.pi + 0.5) * num_rows).astype(np.int64).clip(0, num_rows - 1)
        column = ((longitude / (2 * np.pi) + 0.5) * cells[row]).astype(np.int64).clip(0, cells[row] - 1)
        return first_cell[row] + column

    area_share = np.repeat(np.diff(np.sin(edges)) / 2 / cells, cells)
    count = np.bincount(cell_of(longitude, latitude), minlength=first_cell[-1])
    density = count / (area_share * max(len(longitude), 1))
    fine = int(np.clip(3 * num_rows, 60, 180))
    fine_latitude = ((np.arange(fine) + 0.5) / fine - 0.5) * np.pi
    fine_longitude = ((np.arange(2 * fine) + 0.5) / fine - 1) * np.pi
    x, y = np.meshgrid(fine_longitude, fine_latitude)
    return density[cell_of(x, y)]


def plot_fsc_curves(curves: Sequence[FscCurve], num_classes: int, theme: Theme = LIGHT) -> Figure:
    """The half maps' correlation of each class against spatial frequency, and the line at 0.143."""
    axes = new_axes(theme, x="resolution (Å)", y="Fourier shell correlation")
    colours = class_colours(num_classes)
    for curve in curves:
        axes.plot(
            curve.frequency_per_angstrom, curve.correlation, color=colours[curve.class_index], linewidth=1.8,
            label=f"class {curve.class_index}: {curve.resolution_angstrom:.1f} Å",
        )  # fmt: skip
    axes.axhline(0.143, color=theme.ink, linewidth=0.8, linestyle="--")
    axes.set_xlim(left=0)
    axes.set_ylim(-0.1, 1.03)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{1 / value:.3g}" if value > 0 else "∞"))
    if len(curves) <= 12:
        axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink)
    return figure_of(axes)


def plot_likeness(correlation: Float[np.ndarray, "k k"], theme: Theme = LIGHT, title: str = "") -> Figure:
    """Correlation between the maps of every two classes; classes without a map stay blank."""
    num_classes = len(correlation)
    figure = new_figure(theme, 4.2)
    axes = figure.add_subplot()
    style_axes(axes, theme, title=title, x="class", y="class")
    shown = axes.imshow(np.ma.masked_invalid(correlation), cmap=DENSITY_MAP, vmin=0, vmax=1)
    step = 1 if num_classes <= 20 else 5
    axes.set_xticks(np.arange(0, num_classes, step))
    axes.set_yticks(np.arange(0, num_classes, step))
    if num_classes <= 10:
        for row, column in zip(*np.nonzero(np.isfinite(correlation)), strict=True):
            value = correlation[row, column]
            ink = "#000000" if value > 0.6 else "#ffffff"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(shown, ax=axes, shrink=0.85, pad=0.02)
    style_colour_bar(bar.ax, theme, "correlation")
    bar.outline.set_visible(False)
    return figure


def plot_differences(
    pairs: Sequence[tuple[str, Float[np.ndarray, "3 h w"]]], theme: Theme = LIGHT, title: str = ""
) -> Figure:
    """Rows of three pictures: one class, the class laid on it, and the difference, blue where the second has less.

    Args:
        pairs: A name for each row, and its pictures, all in one unit.
    """
    figure = new_figure(theme, 0.4 + 2.2 * len(pairs))
    panels = figure.subplots(len(pairs), 3, squeeze=False)
    for row, (name, pictures) in zip(panels, pairs, strict=True):
        low, high = np.percentile(pictures[:2], [1, 99.8])
        reach = max(float(np.abs(pictures[2]).max()), 1e-12)
        for axes, picture in zip(row[:2], pictures, strict=False):
            axes.imshow(picture, cmap="gray", vmin=low, vmax=high, origin="lower")
        row[2].imshow(pictures[2], cmap="RdBu_r", vmin=-reach, vmax=reach, origin="lower")
        for axes in row:
            axes.set_axis_off()
        row[1].set_title(name, color=theme.ink, fontsize=9)
    figure.suptitle(title, color=theme.ink, fontsize=11, x=0.01, ha="left")
    return figure


def plot_learning(curves: Sequence[LearningCurve], theme: Theme = LIGHT, title: str = "") -> Figure:
    """Loss against images seen, one panel for each stage, since the stages' losses do not compare."""
    num_rows = -(-len(curves) // 3)
    num_columns = -(-len(curves) // num_rows)
    figure = new_figure(theme, 3.2 if num_rows == 1 else 2.4 * num_rows)
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    figure.suptitle(title, color=theme.ink, fontsize=11, x=0.01, ha="left")
    for panel, curve in zip(panels, curves, strict=False):
        style_axes(panel, theme, x="images seen", y="loss" if panel.get_subplotspec().is_first_col() else "")
        panel.set_title(curve.stage, color=theme.ink, fontsize=9, loc="center")
        width = max(1, len(curve.loss) // 60)
        is_noisy = width > 1
        panel.plot(
            curve.images_seen, curve.loss, color=theme.accent, linewidth=1, alpha=0.35 if is_noisy else 1,
            marker="." if len(curve.loss) < 30 else "",
        )  # fmt: skip
        if is_noisy:
            kernel = np.ones(width) / width
            panel.plot(
                np.convolve(curve.images_seen, kernel, "valid"), np.convolve(curve.loss, kernel, "valid"),
                color=theme.accent, linewidth=1.8,
            )  # fmt: skip
        count_on(panel.xaxis, 2 if num_columns > 2 else 4)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.yaxis.get_major_formatter().set_useOffset(False)
        panel.tick_params(labelsize=8)
    return figure
