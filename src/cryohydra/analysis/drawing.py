"""Paper, axes and clouds of points that look right from ten points to a million."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cryohydra.analysis.palette import DENSITY_MAP, Theme
from cryohydra.io.atomic import write_atomically

_WIDTH_INCH = 5.2
_DOTS_PER_INCH = 190
_MOST_SINGLE_POINTS = 20_000
"""Above this many points single dots hide each other and the plot shows shaded counts."""
_MOST_EXACT_RANGE = 500
"""Above this many points a few outliers may lie beyond the edge of a plot, which then says how many."""


def new_figure(theme: Theme, height_inch: float = 3.7, width_inch: float = _WIDTH_INCH) -> Figure:
    """An empty page in the theme's colours."""
    return Figure(figsize=(width_inch, height_inch), dpi=_DOTS_PER_INCH, facecolor=theme.paper, layout="constrained")


def new_axes(theme: Theme, height_inch: float = 3.7, *, title: str = "", x: str = "", y: str = "") -> Axes:
    """The only axes of a new page."""
    axes = new_figure(theme, height_inch).add_subplot()
    style_axes(axes, theme, title=title, x=x, y=y)
    return axes


def style_axes(axes: Axes, theme: Theme, *, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes the theme's ink, quiet frames and their labels."""
    axes.set_facecolor(theme.paper)
    axes.set_title(title, color=theme.ink, fontsize=11, loc="left")
    axes.set_xlabel(x, color=theme.ink, fontsize=10)
    axes.set_ylabel(y, color=theme.ink, fontsize=10)
    axes.tick_params(colors=theme.ink, labelsize=9, color=theme.faint)
    for side, spine in axes.spines.items():
        spine.set_color(theme.faint)
        spine.set_visible(side not in ("top", "right"))


def short_number(value: float | int) -> str:
    """A count as a short word: 950, 12k, 3.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def count_on(axis: Axis, num_ticks: int = 5) -> None:
    """Make an axis count: whole numbers, large ones shortened."""
    axis.set_major_locator(MaxNLocator(num_ticks, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def figure_of(axes: Axes) -> Figure:
    """The page that axes lie on."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def figure_to_png(figure: Figure) -> bytes:
    """The page as the bytes of a PNG file."""
    buffer = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    layout = figure.get_layout_engine()
    if layout is not None:
        # Laid out by hand, since `savefig` draws every figure twice to do so.
        layout.execute(figure)
        figure.set_layout_engine("none")
    canvas.print_png(buffer)
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> bytes:
    """Write the page to a PNG file, whole or not at all, and give back what is in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    png = figure_to_png(figure)
    with write_atomically(path) as temporary:
        temporary.write_bytes(png)
    return png


def dot_size(num_points: int) -> float:
    """Area of a dot in points squared: visible when few, no blot when many."""
    return float(np.clip(20000 / max(num_points, 1), 2.5, 40))


def dot_opacity(num_points: int) -> float:
    """Opacity of a dot: solid when few, see-through when many."""
    return float(np.clip(12 / max(num_points, 1) ** 0.35, 0.4, 0.95))


def draw_cloud(
    axes: Axes, xy: Float[np.ndarray, "n 2"], theme: Theme, labels: Int[np.ndarray, "n"], colours: list[str]
) -> None:
    """Draw labelled points: single dots while they can be told apart, mixed shades of colour beyond.

    Args:
        labels: For each point, the position of its colour in `colours`.
    """
    set_limits(axes, xy, theme)
    if len(xy) <= _MOST_SINGLE_POINTS:
        # Drawn in a mixed order, so that the last label does not cover the others.
        order = np.random.default_rng(0).permutation(len(xy))
        paint = np.array([to_rgb(colour) for colour in colours])[labels[order]]
        axes.scatter(xy[order, 0], xy[order, 1], s=dot_size(len(xy)), c=paint, alpha=dot_opacity(len(xy)), linewidths=0)
        return
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    num_bins = int(np.clip(np.sqrt(len(xy)), 150, 400))
    edges = [np.linspace(bottom, top, num_bins + 1), np.linspace(left, right, num_bins + 1)]
    counts = np.zeros((num_bins, num_bins))
    mixed = np.zeros((num_bins, num_bins, 3))
    for label, colour in enumerate(colours):
        chosen = xy[labels == label]
        count = np.histogram2d(chosen[:, 1], chosen[:, 0], bins=edges)[0]
        counts += count
        mixed += count[..., None] * np.array(to_rgb(colour))
    is_filled = counts > 0
    shade = np.zeros((num_bins, num_bins, 4))
    shade[is_filled, :3] = mixed[is_filled] / counts[is_filled, None]
    dense = np.log1p(np.percentile(counts[is_filled], 95)) if is_filled.any() else 1.0
    shade[is_filled, 3] = np.clip(np.log1p(counts[is_filled]) / dense, 0.3, 1)
    axes.imshow(shade, extent=(left, right, bottom, top), origin="lower", aspect="auto", interpolation="nearest")


def draw_values(
    axes: Axes, xy: Float[np.ndarray, "n 2"], value: Float[np.ndarray, "n"], theme: Theme, label: str
) -> None:
    """Draw points coloured by a number; where many share a spot, by its mean there."""
    set_limits(axes, xy, theme)
    low, high = np.percentile(value, [1, 99])
    if len(xy) <= _MOST_SINGLE_POINTS:
        shown: ScalarMappable = axes.scatter(
            xy[:, 0], xy[:, 1], s=dot_size(len(xy)), c=value, vmin=low, vmax=high, cmap=DENSITY_MAP, linewidths=0
        )
    else:
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        num_bins = int(np.clip(np.sqrt(len(xy)), 150, 400))
        edges = [np.linspace(bottom, top, num_bins + 1), np.linspace(left, right, num_bins + 1)]
        count = np.histogram2d(xy[:, 1], xy[:, 0], bins=edges)[0]
        total = np.histogram2d(xy[:, 1], xy[:, 0], bins=edges, weights=value)[0]
        shown = axes.imshow(
            np.ma.masked_where(count == 0, total / np.maximum(count, 1)), extent=(left, right, bottom, top),
            origin="lower", aspect="auto", interpolation="nearest", vmin=low, vmax=high, cmap=DENSITY_MAP,
        )  # fmt: skip
    bar = figure_of(axes).colorbar(shown, ax=axes, pad=0.02, shrink=0.85)
    style_colour_bar(bar.ax, theme, label)
    bar.outline.set_visible(False)


def draw_hexagons(axes: Axes, xy: Float[np.ndarray, "n 2"], theme: Theme) -> None:
    """Draw the number of points in each hexagon, on a logarithmic scale when it spans more than a decade."""
    across = int(np.clip(np.sqrt(len(xy)) / 1.5, 8, 60))
    set_limits(axes, xy, theme, margin=1 / across)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    hexagons = axes.hexbin(
        xy[:, 0], xy[:, 1], gridsize=across, extent=(left, right, bottom, top), mincnt=1, cmap=DENSITY_MAP, linewidths=0
    )
    counts = np.asarray(hexagons.get_array())
    if counts.size and counts.max() > 10:
        hexagons.set_norm(LogNorm(1, counts.max()))
    else:
        hexagons.set_clim(0, max(1, counts.max(initial=1)))
    bar = figure_of(axes).colorbar(hexagons, ax=axes, pad=0.02, shrink=0.85)
    style_colour_bar(bar.ax, theme, "particles")
    bar.outline.set_visible(False)


def style_colour_bar(axes: Axes, theme: Theme, label: str) -> None:
    """Give the scale beside a map the theme's ink."""
    axes.set_ylabel(label, color=theme.ink, fontsize=9)
    axes.tick_params(colors=theme.ink, labelsize=8, color=theme.faint, which="both")


def set_limits(axes: Axes, xy: Float[np.ndarray, "n 2"], theme: Theme, margin: float = 0.05) -> None:
    """Choose the visible range: all points when few, all but rare outliers, which are counted, when many.

    Args:
        margin: Empty space on each side, as a share of the range.
    """
    low, high = xy.min(axis=0), xy.max(axis=0)
    if len(xy) > _MOST_EXACT_RANGE:
        middle_low, middle_high = np.percentile(xy, [0.5, 99.5], axis=0)
        reach = 0.6 * (middle_high - middle_low)
        low, high = np.maximum(low, middle_low - reach), np.minimum(high, middle_high + reach)
    pad = np.where(high > low, margin * (high - low), np.maximum(0.5, 0.05 * np.abs(low)))
    axes.set_xlim(float(low[0] - pad[0]), float(high[0] + pad[0]))
    axes.set_ylim(float(low[1] - pad[1]), float(high[1] + pad[1]))
    num_outside = int(((xy < low - pad) | (xy > high + pad)).any(axis=1).sum())
    if num_outside:
        text = f"{num_outside:,} beyond the edge"
        axes.text(
            0.99, 0.01, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=theme.ink, alpha=0.8
        )
