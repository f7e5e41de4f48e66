"""The report: one HTML page that needs no other file and no network."""

import base64
import importlib.metadata
import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from cryohydra.analysis.class_analysis import ClassFindings, Film, ShownFigure
from cryohydra.analysis.classes import ClassSummary
from cryohydra.analysis.palette import class_colours
from cryohydra.analysis.run import Run
from cryohydra.io.atomic import write_atomically

_MOST_OPEN_CLASSES = 4


@dataclass(frozen=True)
class ReportContent:
    """All that the report tells."""

    run: Run
    summary: ClassSummary
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    overview: tuple[ShownFigure, ...]
    findings: tuple[ClassFindings, ...]
    is_inverted: bool


def write_report(content: ReportContent, path: Path) -> None:
    """Write the page."""
    parts = [
        _header(content),
        _warnings(content),
        _class_table(content),
        _overview(content),
        "<h2>Class by class</h2>" if len(content.findings) > 1 else "",
        f'<div class="{"sections" if any(found.films for found in content.findings) else "sections small-ones"}">'
        + "".join(_class_section(content, found) for found in content.findings)
        + "</div>",
        _files(content),
        _settings(content),
        f"<footer>Made by cryohydra {escape(_version())}, <code>drgnai analyze</code>.</footer>",
    ]
    name = escape(content.run.folder.path.resolve().name)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}, epoch {content.run.epoch}</title><style>{_resource('report.css')}</style></head>\n"
        f"<body><main>\n{''.join(parts)}\n</main><script>{_resource('report.js')}</script></body></html>\n"
    )
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _header(content: ReportContent) -> str:
    run = content.run
    facts = [
        (f"{len(run.latents):,}", "particles"),
        (str(run.num_classes), "class" if run.num_classes == 1 else "classes"),
        (str(run.z_dim) if run.z_dim else "rigid", "numbers per conformation" if run.z_dim else "classes"),
        (f"{run.mixture.box_size} px", "box"),
        (f"{run.pixel_size_angstrom:.3g} Å", "pixel"),
    ]
    if run.num_classes > 1:
        facts.insert(2, (f"{content.summary.effective_number:.1f}", "effective classes"))
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(label)}</span></div>" for value, label in facts)
    return (
        f"<h1>{escape(run.folder.path.resolve().name)}</h1>"
        f'<p class="quiet">Reconstruction after epoch {run.epoch}</p><div class="facts">{cells}</div>'
    )


def _warnings(content: ReportContent) -> str:
    warnings = "".join(f"<li>{escape(sentence)}</li>" for sentence in content.warnings)
    notes = "".join(f'<p class="notes">{escape(note)}</p>' for note in content.notes)
    return (f'<section class="warnings"><ul>{warnings}</ul></section>' if warnings else "") + notes


def _class_table(content: ReportContent) -> str:
    rows = "".join(_class_row(content, found) for found in content.findings)
    return f'<h2>{"Structure" if content.run.num_classes == 1 else "Classes"}</h2><div class="classes">{rows}</div>'


def _class_row(content: ReportContent, found: ClassFindings) -> str:
    summary, index = content.summary, found.class_index
    colour = class_colours(content.run.num_classes)[index]
    share, certainty = float(summary.share[index]), float(summary.certainty[index])
    size = f'<span class="number">{found.num_particles:,}</span> <span class="quiet">particles</span>'
    if content.run.num_classes > 1:
        sure = "" if np.isnan(certainty) else f", mean certainty {certainty:.2f}"
        size += (
            f'<div class="bar"><i style="width:{100 * share:.1f}%;background:{colour}"></i></div>'
            f'<span class="small quiet">{100 * share:.1f} % by probability{sure}</span>'
        )
    return (
        f'<article class="card class-row"><div class="head"><span class="swatch" style="background:{colour}"></span>'
        f'<a class="name" href="#class-{index}">Class {index}</a></div>'
        f"<figure>{_image(found.pictures.slices_png, f'Central slices of class {index}')}"
        "<figcaption>Central slices across z, y, x</figcaption></figure>"
        f"<figure>{_image(found.pictures.projections_png, f'Projections of class {index}')}"
        f'<figcaption>Projections along z, y, x</figcaption></figure><div class="size">{size}</div></article>'
    )


def _overview(content: ReportContent) -> str:
    return f"<h2>Overview</h2>{_plots(content.overview)}" if content.overview else ""


def _class_section(content: ReportContent, found: ClassFindings) -> str:
    index = found.class_index
    colour = class_colours(content.run.num_classes)[index]
    is_open = " open" if len(content.findings) <= _MOST_OPEN_CLASSES else ""
    notes = "".join(f'<p class="quiet">{escape(note)}</p>' for note in found.notes)
    films = "".join(_film(film) for film in found.films)
    tiles = "".join(
        f'<figure class="tile">{_image(tile.picture, tile.caption)}<figcaption>{escape(tile.caption)}</figcaption>'
        "</figure>"
        for tile in found.tiles
    )
    return (
        f'<details class="class" id="class-{index}"{is_open}><summary><span class="swatch" '
        f'style="background:{colour}"></span>Class {index}, {found.num_particles:,} particles</summary>{notes}'
        + (f'<div class="films">{films}</div>' if films else "")
        + _plots(found.figures)
        + (
            '<div class="card"><h3 style="margin-top:0">Conformations at k-means centres, with the number of '
            f'particles of each</h3><div class="tiles">{tiles}</div></div>'
            if tiles
            else ""
        )
        + "</details>"
    )


def _film(film: Film) -> str:
    frames = "".join(_image(frame, f"{film.caption}, volume {number}") for number, frame in enumerate(film.frames))
    return (
        f'<figure class="film card"><h3 style="margin-top:0">{escape(film.caption)}</h3><div class="frames">{frames}'
        '</div><div class="controls"><button type="button">Play</button><input type="range" min="0" '
        f'max="{len(film.frames) - 1}" value="0" aria-label="{escape(film.caption)}"></div>'
        f"{_image(film.spread, 'Where the volumes differ')}"
        '<figcaption class="small quiet">Above: projections along z, y, x. Below: where they differ (standard '
        "deviation; brighter is more).</figcaption></figure>"
    )


def _plots(figures: Iterable[ShownFigure]) -> str:
    return f'<div class="plots">{"".join(_plot(figure) for figure in figures)}</div>'


def _plot(figure: ShownFigure) -> str:
    """A figure in the reader's theme."""
    light, dark = _data_address(figure.light_png), _data_address(figure.dark_png)
    caption = escape(figure.caption)
    return (
        f'<figure><picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{caption}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def _files(content: ReportContent) -> str:
    sign = "negative (--invert was given)" if content.is_inverted else "positive"
    rows = [
        ("Classes", "Counted from 0 here and on the command line; from 1 in STAR files (rlnClassNumber)."),
        (
            "Particle numbers",
            "--sample-z-idx, --trajectory-1d, --direct-traversal-txt and centers_ind.txt name particles by their place "
            "in the particle file, counted from 0, before any selection by ind.",
        ),
        (
            "Arrays",
            "labels.pkl and umap.pkl of a class have a row for every particle of the run, in the order of latents.npz; "
            "particles of other classes hold -1 and nan.",
        ),
        ("Density", f"In the volumes written, density is {sign}. Pictures here always show it bright."),
        ("Hand", "Images do not determine it: a map and its mirror image, with poses to match, fit equally well."),
    ]
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows)
    return f'<h2>Reading this</h2><div class="card"><table>{cells}</table></div>'


def _settings(content: ReportContent) -> str:
    if not content.run.settings:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>"
        for key, value in content.run.settings.items()
    )
    summary = "<summary>All settings of the run</summary>"
    return f'<h2>Settings</h2><details class="card">{summary}<table>{rows}</table></details>'


def _image(png: bytes, description: str) -> str:
    return f'<img src="{_data_address(png)}" alt="{escape(description)}">'


def _data_address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _resource(name: str) -> str:
    return importlib.resources.files("cryohydra.analysis").joinpath(name).read_text(encoding="utf-8")


def _version() -> str:
    try:
        return importlib.metadata.version("cryohydra")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "(not installed)"
