"""Pictures of how far a class is borne out by its images."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from cryohydra._typing import Tensor
from cryohydra.analysis.drawing import figure_of, new_axes, new_figure, style_colour_bar
from cryohydra.analysis.palette import DENSITY_MAP, LIGHT, Theme
from cryohydra.analysis.proof import GOLD, HALF, ClassProof


def plot_half_map_fsc(proof: ClassProof, theme: Theme = LIGHT) -> Figure:
    """The half maps' correlations, and where the corrected one crosses 0.143 and 0.5."""
    axes = _axes(proof, theme, f"Half maps: {proof.made.label}")
    frequency, halves = proof.frequency_per_angstrom[1:], proof.halves
    if proof.made.start_radius is not None:
        start = proof.made.start_radius / (proof.box_size * proof.pixel_size_angstrom)
        axes.axvspan(0, start, color=theme.faint, alpha=0.5, linewidth=0, label="common start")
    axes.plot(frequency, halves.unmasked[1:], color=theme.ink, linewidth=1, alpha=0.7, label="unmasked")
    axes.plot(frequency, halves.masked[1:], color="#ffa90e", linewidth=1.2, label="masked")
    axes.plot(frequency, halves.randomised[1:], color="#bd1f01", linewidth=1, ls=":", label="phases randomised")
    axes.plot(frequency, halves.corrected[1:], color=theme.accent, linewidth=2.2, label="corrected")
    for threshold in (GOLD, HALF):
        _mark(axes, proof, halves.corrected, threshold, theme)
    _legend(axes, theme)
    return figure_of(axes)


def plot_model_fsc(proof: ClassProof, theme: Theme = LIGHT) -> Figure:
    """The neural map against the backprojection, and what a perfect map would reach."""
    axes = _axes(proof, theme, "Neural map against backprojection")
    frequency = proof.frequency_per_angstrom[1:]
    axes.plot(frequency, proof.expected[1:], color=theme.ink, linewidth=1.2, ls="--", label="a perfect map would reach")
    axes.plot(frequency, proof.model[1:], color=theme.accent, linewidth=2.2, label="neural map")
    _mark(axes, proof, proof.model, HALF, theme)
    _legend(axes, theme)
    return figure_of(axes)


def plot_local_agreement(proof: ClassProof, theme: Theme = LIGHT) -> Figure:
    """Central slices of both maps, and the correlation of the two around each voxel within the mask."""
    figure = new_figure(theme, 2.1)
    panels = figure.subplots(1, 3)
    middle = proof.box_size // 2
    neural, filtered = _slice(proof.neural, middle), _slice(proof.filtered, middle)
    inside = _slice(proof.mask, middle) > 0.5
    for axes, picture, title in zip(panels[:2], (neural, filtered), ("neural map", "backprojection"), strict=True):
        low, high = np.percentile(picture, [1, 99.8])
        axes.imshow(picture, cmap="gray", vmin=low, vmax=high, origin="lower")
        axes.contour(inside, levels=[0.5], colors="#ffa90e", linewidths=0.8)
        axes.set_title(title, color=theme.ink, fontsize=9)
    correlation = np.ma.masked_where(~inside, _slice(proof.local_correlation, middle))
    shown = panels[2].imshow(correlation, cmap=DENSITY_MAP, vmin=0, vmax=1, origin="lower")
    panels[2].set_title("local correlation", color=theme.ink, fontsize=9)
    for axes in panels:
        axes.set_facecolor(theme.paper)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(theme.faint)
    bar = figure.colorbar(shown, ax=panels[2], shrink=0.8, pad=0.03)
    style_colour_bar(bar.ax, theme, "")
    bar.outline.set_visible(False)
    return figure


def _slice(density: Float[Tensor, "d d d"], middle: int) -> Float[np.ndarray, "d d"]:
    return density[middle].cpu().numpy()


def _axes(proof: ClassProof, theme: Theme, title: str) -> Axes:
    axes = new_axes(theme, 3.5, title=title, x="resolution (Å)", y="Fourier shell correlation")
    highest = proof.box_size / 2 / (proof.box_size * proof.pixel_size_angstrom)
    axes.set_xlim(0, highest)
    axes.set_ylim(-0.12, 1.03)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "∞" if value <= 0 else f"{1 / value:.3g}"))
    axes.axhline(0, color=theme.faint, linewidth=0.8)
    for threshold in (GOLD, HALF):
        axes.axhline(threshold, color=theme.faint, linewidth=0.8, ls="--")
    return axes


def _mark(axes: Axes, proof: ClassProof, curve: Float[Tensor, "shells"], threshold: float, theme: Theme) -> None:
    """Say where a curve crosses a threshold."""
    found = proof.resolution(curve, threshold)
    place = 1 / found.angstrom
    if found.is_limit:
        return
    axes.plot([place], [threshold], "o", color=theme.accent, markersize=5)
    axes.annotate(
        f"{threshold:g}: {found}", (place, threshold), xytext=(6, 5), textcoords="offset points", fontsize=8.5,
        color=theme.ink, ha="left" if place < 0.78 * axes.get_xlim()[1] else "right",
        bbox={"facecolor": theme.paper, "alpha": 0.8, "pad": 1, "linewidth": 0},
    )  # fmt: skip


def _legend(axes: Axes, theme: Theme) -> None:
    axes.legend(
        fontsize=7.5, frameon=False, labelcolor=theme.ink, loc="upper center", bbox_to_anchor=(0.46, -0.17), ncols=5,
        handlelength=1.4, columnspacing=1.1,
    )  # fmt: skip
