"""One picture of a set of particles before training: what a microscopist wants to see first."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cryohydra._typing import Tensor
from cryohydra.analysis.class_plots import draw_orientations
from cryohydra.analysis.drawing import count_on, new_figure, save_figure, style_axes
from cryohydra.analysis.palette import LIGHT, Theme, class_colours
from cryohydra.data.inspection import Inspection

_COLUMNS, _ROWS = 7, 4
_LOW_PASS_ANGSTROM = 20.0
_LOW_PASS = 0.2
"""In cycles per pixel, where that is coarser."""
_MOST_GROUPS = 8


def picture_inspection(inspection: Inspection, path: Path, theme: Theme = LIGHT) -> None:
    """Draw particles, their mean, power spectrum with the noise, defocus and views, as far as they are known."""
    save_figure(plot_inspection(inspection, theme), path)


def plot_inspection(inspection: Inspection, theme: Theme = LIGHT) -> Figure:
    """The picture as a figure."""
    figure = new_figure(theme, height_inch=6.6, width_inch=11.5)
    grid = GridSpec(2, 12, figure=figure, height_ratios=[1.1, 1])
    figure.suptitle(_title(inspection), color=theme.ink, fontsize=13, x=0.006, ha="left")
    _draw_montage(figure.add_subplot(grid[0, :6]), inspection, theme)
    _draw_mean(figure.add_subplot(grid[0, 6:9]), inspection, theme)
    _draw_profile(figure.add_subplot(grid[0, 9:]), inspection, theme)
    _draw_spectrum(figure.add_subplot(grid[1, :4]), inspection, theme)
    _draw_defocus(figure.add_subplot(grid[1, 4:8]), inspection, theme)
    if inspection.rotation is None:
        _say_nothing(figure.add_subplot(grid[1, 8:]), theme, "Views", "no poses are given")
    else:
        axes = figure.add_subplot(grid[1, 8:], projection="mollweide")
        draw_orientations(axes, inspection.rotation, theme, "Views of the given poses")
    return figure


def _draw_montage(axes: Axes, inspection: Inspection, theme: Theme) -> None:
    """Some images, evenly spaced over the set, low-passed so that particles can be seen."""
    survey = inspection.survey
    if survey is None or not len(survey.shown):
        _say_nothing(axes, theme, "Particles", "no images were found")
        return
    pixel = _pixel_size(inspection)
    cutoff = _LOW_PASS if pixel is None else min(pixel / _LOW_PASS_ANGSTROM, _LOW_PASS)
    images = _low_passed(survey.shown, cutoff)
    size, gap = images.shape[-1], max(1, images.shape[-1] // 40)
    sheet = np.full((_ROWS * (size + gap) - gap, _COLUMNS * (size + gap) - gap), np.nan)
    for number, image in enumerate(images[: _ROWS * _COLUMNS].numpy()):
        row, column = divmod(number, _COLUMNS)
        low, high = np.percentile(image, [1, 99])
        top, left = row * (size + gap), column * (size + gap)
        sheet[top : top + size, left : left + size] = (image - low) / max(high - low, 1e-12)
    axes.imshow(np.ma.masked_invalid(sheet), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    how = "5 px" if pixel is None else f"{pixel / cutoff:.3g} Å"
    _frame_picture(axes, theme, f"Particles, low-passed to {how}")
    axes.set_anchor("NW")


def _draw_mean(axes: Axes, inspection: Inspection, theme: Theme) -> None:
    """The mean of all images, with a bar of a length in angstrom."""
    survey, pixel = inspection.survey, _pixel_size(inspection)
    if survey is None or not len(survey.rows):
        _say_nothing(axes, theme, "Mean image", "no images were found")
        return
    mean = survey.mean.numpy()
    low, high = np.percentile(mean, [0.5, 99.5])
    axes.imshow(mean, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), interpolation="bilinear")
    if pixel is not None:
        length = _round_length(len(mean) * pixel / 4)
        end = 0.95 * len(mean)
        left, middle = end - length / pixel, end - length / pixel / 2
        edged = [Stroke(linewidth=4, foreground="#000000"), Normal()]
        axes.plot([left, end], [end, end], linewidth=2.5, color="#ffffff", solid_capstyle="butt", path_effects=edged)
        words = axes.text(
            middle, 0.93 * len(mean), f"{length:g} Å", ha="center", va="bottom", fontsize=9, color="#ffffff"
        )
        words.set_path_effects([Stroke(linewidth=2, foreground="#000000"), Normal()])
    _frame_picture(axes, theme, f"Mean of {len(survey.rows):,} images")
    axes.set_anchor("NW")


def _draw_profile(axes: Axes, inspection: Inspection, theme: Theme) -> None:
    """Brightness of the mean image against the distance from its centre."""
    survey, seen = inspection.survey, inspection.polarity
    if survey is None or not len(survey.rows):
        _say_nothing(axes, theme, "Polarity", "no images were found")
        return
    mean = survey.mean.numpy().astype(np.float64)
    size, pixel = len(mean), _pixel_size(inspection)
    axis = np.arange(size) - size // 2
    distance = np.round(np.hypot(axis[:, None], axis[None])).astype(int).ravel()
    profile = (np.bincount(distance, mean.ravel()) / np.bincount(distance))[: size // 2]
    x = np.arange(len(profile)) * (1.0 if pixel is None else pixel)
    colour = "undecided" if seen is None or seen.known_from == "habit" else (
        "white on dark" if seen.is_white else "dark on white"
    )  # fmt: skip
    unit = "px" if pixel is None else "Å"
    style_axes(axes, theme, title=f"Polarity: {colour}", x=f"distance from the centre, {unit}", y="mean brightness")
    axes.axhline(0, color=theme.faint, linewidth=1)
    axes.plot(x, profile, color=theme.accent, linewidth=2)
    axes.fill_between(x, 0, profile, color=theme.accent, alpha=0.15, linewidth=0)
    axes.set_xlim(0, x[-1])
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.yaxis.get_offset_text().set_fontsize(8)


def _draw_spectrum(axes: Axes, inspection: Inspection, theme: Theme) -> None:
    """Radial power of the images, and of the noise measured outside the particles."""
    survey, pixel = inspection.survey, _pixel_size(inspection)
    if survey is None or not len(survey.rows):
        _say_nothing(axes, theme, "Power spectrum", "no images were found")
        return
    power, noise = survey.power.numpy()[1:], survey.noise.numpy()[:, 1:]
    size = survey.mean.shape[0]
    x = np.arange(1, len(power) + 1) / size / (1.0 if pixel is None else pixel)
    title = f"Power: signal about {survey.signal_to_noise:.2g} of the noise"
    style_axes(axes, theme, title=title, x="resolution" if pixel else "cycles per pixel", y="power per pixel")
    noise_ink, image_ink = class_colours(3)[1], theme.accent
    mean_noise = noise.mean(0)
    axes.fill_between(x, mean_noise, np.maximum(power, mean_noise), color=image_ink, alpha=0.18, linewidth=0)
    axes.plot(x, power, color=image_ink, linewidth=2, label="images")
    for one in noise if 1 < len(noise) <= _MOST_GROUPS else ():
        axes.plot(x, one, color=noise_ink, linewidth=0.8, alpha=0.6)
    axes.plot(x, mean_noise, color=noise_ink, linewidth=2, label="noise, fitted outside the particles")
    axes.set_yscale("log")
    highest = max(power.max(), mean_noise.max())
    axes.set_ylim(max(min(power.min(), mean_noise.min()) / 1.5, 1e-5 * highest), 1.8 * highest)
    axes.set_xlim(0, x[-1])
    if pixel is not None:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{1 / s:.3g} Å" if s > 0 else "∞"))
    axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink, loc="upper right")


def _draw_defocus(axes: Axes, inspection: Inspection, theme: Theme) -> None:
    """Images at each defocus, by optics group."""
    ctf = inspection.ctf
    if ctf is None or not np.isfinite(ctf[:, 2:4]).all():
        _say_nothing(axes, theme, "Defocus", "no CTF is known")
        return
    style_axes(axes, theme, title="Defocus", x="underfocus, µm", y="images")
    defocus = (ctf[:, 2] + ctf[:, 3]) / 2e4
    assert inspection.table is not None
    group = inspection.table.group
    numbers = np.unique(group)
    parts = [defocus[group == number] for number in numbers] if len(numbers) <= _MOST_GROUPS else [defocus]
    low, high = defocus.min(), defocus.max()
    margin = max(0.02 * (high - low), 0.005)
    edges = np.linspace(low - margin, high + margin, int(np.clip(np.sqrt(len(defocus)) * 1.5, 8, 60)) + 1)
    colours = [theme.accent] if len(parts) == 1 else class_colours(len(parts))
    labels = [f"group {number}" for number in numbers[: len(parts)]]
    axes.hist(parts, bins=edges.tolist(), stacked=True, color=colours, label=labels)
    if len(parts) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink)
    count_on(axes.yaxis, 4)


def _frame_picture(axes: Axes, theme: Theme, title: str) -> None:
    axes.set_title(title, color=theme.ink, fontsize=11, loc="left")
    axes.set_axis_off()


def _say_nothing(axes: Axes, theme: Theme, title: str, why: str) -> None:
    """An empty panel that tells why it is empty."""
    _frame_picture(axes, theme, title)
    frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=theme.faint, linestyle=(0, (4, 4)))
    axes.add_patch(frame)
    axes.text(
        0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=theme.ink, alpha=0.7
    )


def _pixel_size(inspection: Inspection) -> float | None:
    """Angstrom per pixel of most images, if it is known."""
    sizes = [group.pixel_size_angstrom for group in inspection.groups if group.pixel_size_angstrom > 0]
    return float(np.median(sizes)) if sizes else None


def _round_length(length: float) -> float:
    """1, 2 or 5 times a power of ten, no longer."""
    decade = 10.0 ** np.floor(np.log10(length))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= length))


def _low_passed(images: Float[Tensor, "s d d"], cutoff: float) -> Float[Tensor, "s d d"]:
    """Images without what is finer than `cutoff` cycles per pixel."""
    frequency = torch.fft.fftfreq(images.shape[-1])
    square = frequency[:, None].square() + frequency.square()
    return torch.fft.ifft2(torch.fft.fft2(images) * torch.exp(-square / (2 * (cutoff / 1.5) ** 2))).real


def _title(inspection: Inspection) -> str:
    table = inspection.table
    words = [inspection.particles.name, f"{inspection.num_images:,} images"]
    if table is not None and table.box_size:
        words.append(f"{table.box_size} px")
    if inspection.groups:
        words.append(f"{inspection.groups[0].pixel_size_angstrom:.4g} Å/px")
    return "   ·   ".join(words)
