"""The report: one HTML page that needs no other file and no network."""

import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryohydra.analysis.class_analysis import ClassFindings, Film, ShownFigure
from cryohydra.analysis.classes import ClassSummary
from cryohydra.analysis.examples import Examples
from cryohydra.analysis.fsc_curves import FscCurve
from cryohydra.analysis.markup import Markup, fill, join, json_in_page, png_address, web_asset
from cryohydra.analysis.packed_columns import PackedColumns
from cryohydra.analysis.palette import class_colours
from cryohydra.analysis.report_states import show_states, themed_picture
from cryohydra.analysis.run import Run
from cryohydra.analysis.structures import Structures
from cryohydra.io.atomic import write_atomically

_MOST_OPEN_CLASSES = 4
_UNPROVEN = (
    "No half maps have been made of these classes, so it is not known how far they can be believed. Make them and "
    "their Fourier shell correlations with `drgnai prove OUT`, then analyse again."
)
_MOST_BYTES = 23_000_000
"""Of the page, but for what is small whatever the run."""


@dataclass(frozen=True)
class ReportContent:
    """All that the report tells."""

    run: Run
    summary: ClassSummary
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    structures: Structures
    columns: PackedColumns
    fsc: tuple[FscCurve, ...]
    fsc_figures: tuple[ShownFigure, ...]
    differences: tuple[ShownFigure, ...]
    """Of classes that are alike."""
    overview: tuple[ShownFigure, ...]
    examples: dict[int, Examples]
    """By class."""
    findings: tuple[ClassFindings, ...]
    is_inverted: bool

    @property
    def colours(self) -> list[str]:
        """Of the classes."""
        return class_colours(self.run.num_classes)


class _Room:
    """What is left of the size of a page that can still be sent by mail."""

    def __init__(self, num_bytes: int):
        self.left = num_bytes

    def fit(self, part: Markup, instead: Markup) -> Markup:
        """A part if there is room for it, or what stands in its place."""
        if len(part) > self.left:
            return instead
        return self.keep(part)

    def keep(self, part: Markup) -> Markup:
        """A part that is shown whatever room there is."""
        self.left -= len(part)
        return part


def write_report(content: ReportContent, path: Path) -> None:
    """Write the page, of 25 MB at most: details of the last of many classes stay in their folders."""
    data = json_in_page(_data(content))
    room = _Room(_MOST_BYTES - len(data))
    parts = {
        "Structures": room.keep(_structures(content, path)),
        "Classes": _class_rows(content, room),
        "States": room.keep(show_states(content.findings, content.structures)),
        "Differences": _plots(content.differences),
        "Particles": _landscape(content),
        "Resolution": _plots(content.fsc_figures) or fill("paragraph", kind="quiet", text=_UNPROVEN),
        "Examples": _examples(content, room),
        "Training": _plots(content.overview),
        "Motions": _class_sections(content, room),
        "Reading this": _reading(content),
        "Settings": _settings(content),
    }
    parts = {heading: html for heading, html in parts.items() if html}
    keys = {heading: heading.lower().replace(" ", "-") for heading in parts}
    name = content.run.folder.path.resolve().name
    page = fill(
        "page",
        title=f"{name}, epoch {content.run.epoch}",
        name=name,
        epoch=content.run.epoch,
        style=web_asset("report.css"),
        script=join(web_asset(file) for file in ("surfaces.js", "scatter.js", "report.js")),
        navigation=join(fill("link", id=keys[heading], heading=heading) for heading in parts),
        facts=_facts(content),
        summary=_summary(content),
        sections=join(
            fill("section", id=keys[heading], heading=heading, content=html) for heading, html in parts.items()
        ),
        version=_version(),
        data=data,
    )
    with write_atomically(path) as temporary:
        temporary.write_text(page + "\n", encoding="utf-8")


def _data(content: ReportContent) -> dict[str, Any]:
    """What the scripts draw."""
    shown = [
        {
            "index": structure.class_index,
            "colour": structure.colour,
            "series": [asdict(series) for series in structure.series],
        }
        for structure in content.structures.shown
    ]
    scale = asdict(content.structures.scale)
    return {"structures": {"scale": scale, "classes": shown}, "particles": asdict(content.columns)}


def _facts(content: ReportContent) -> Markup:
    run = content.run
    facts = [
        (f"{len(run.latents):,}", "particles"),
        (str(run.num_classes), "class" if run.num_classes == 1 else "classes"),
        (
            str(run.z_dim) if run.z_dim else "rigid",
            ("classes", "conformation axis", "conformation axes")[min(run.z_dim, 2)],
        ),
        (f"{run.mixture.box_size} px", "box"),
        (f"{run.pixel_size_angstrom:.3g} Å", "pixel"),
    ]
    if run.num_classes > 1:
        facts.insert(2, (f"{content.summary.effective_number:.1f}", "effective classes"))
    return join(fill("fact", value=value, label=label) for value, label in facts)


def _summary(content: ReportContent) -> Markup:
    parts = [fill("paragraph", kind="lead", text=" ".join(content.sentences))]
    if content.warnings:
        parts.append(fill("warnings", items=join(fill("item", text=sentence) for sentence in content.warnings)))
    return join([*parts, *(fill("paragraph", kind="notes", text=note) for note in content.notes)])


def _structures(content: ReportContent, path: Path) -> Markup:
    panels = join(
        fill(
            "structure",
            index=structure.class_index,
            colour=structure.colour,
            poster=png_address(structure.picture),
            note=f"{100 * content.summary.share[structure.class_index]:.1f} % · {found.num_particles:,} particles",
        )
        for structure, found in zip(content.structures.shown, content.findings, strict=True)
    )
    scripts = [path.parent / "classes.cxc", *(film.folder / "motion.cxc" for film in _films(content))]
    names = [os.path.relpath(script, path.parent) for script in scripts if script.exists()]
    listed = ", ".join(names[:3]) + (" and so on" if len(names) > 3 else "")
    chimerax = f"Beside this page for ChimeraX, from the same side and at the same level: {listed}." if names else ""
    return fill("structures", panels=panels, level=f"{content.structures.scale.level:.3g}", chimerax=chimerax)


def _class_rows(content: ReportContent, room: _Room) -> Markup:
    return fill("classes", rows=join(_class_row(content, found, room) for found in content.findings))


def _class_row(content: ReportContent, found: ClassFindings, room: _Room) -> Markup:
    index = found.class_index
    orientation = Markup("")
    if found.orientations is not None:
        picture = join([themed_picture(found.orientations), fill("caption", text="Where particles are seen from")])
        orientation = room.fit(picture, fill("caption", text=f"Orientations: class_{index}/orientations.png"))
    return fill(
        "class_row",
        index=index,
        colour=content.colours[index],
        slices=room.keep(png_address(found.pictures.slices_png)),
        projections=room.keep(png_address(found.pictures.projections_png)),
        orientation=orientation,
        size=_size(content, found),
    )


def _size(content: ReportContent, found: ClassFindings) -> Markup:
    summary, index = content.summary, found.class_index
    certainty = float(summary.certainty[index])
    known = [curve for curve in content.fsc if curve.class_index == index]
    said = "; ".join(f"{curve.resolution_angstrom:.1f} Å ({curve.halves})" for curve in known)
    return fill(
        "size",
        count=f"{found.num_particles:,}",
        percent=f"{100 * summary.share[index]:.1f}",
        certainty="" if np.isnan(certainty) or content.run.num_classes == 1 else f", mean certainty {certainty:.2f}",
        resolution=fill("paragraph", kind="small", text=f"Resolution {said}" if said else "Resolution not measured"),
    )


def _landscape(content: ReportContent) -> Markup:
    columns = content.columns
    note = "Every dot is a particle; point at one to read its numbers. To select some, `drgnai explore OUT`."
    if columns.count < columns.total:
        note = f"{columns.count:,} of {columns.total:,} particles, picked at random. {note}"
    if content.run.z_dim:
        note += " Conformations are in each class's own axes: compare them within a class."
    return fill("landscape", note=note)


def _examples(content: ReportContent, room: _Room) -> Markup:
    if not content.examples:
        return Markup("")
    rows = join(
        room.fit(
            fill(
                "examples",
                index=index,
                colour=content.colours[index],
                particles=", ".join(str(particle) for particle in shown.particles),
                picture=png_address(shown.picture),
            ),
            Markup(""),
        )
        for index, shown in content.examples.items()
    )
    finest = next(iter(content.examples.values())).smooth_angstrom
    return fill("all_examples", rows=rows, finest=f"{finest:.0f}")


def _class_sections(content: ReportContent, room: _Room) -> Markup:
    sections = join(
        room.fit(
            _class_section(content, found),
            fill(
                "paragraph",
                kind="quiet",
                text=f"Class {found.class_index}: its films and figures, for which this page has no room, are in "
                f"class_{found.class_index}/ beside it.",
            ),
        )
        for found in content.findings
    )
    return fill("class_sections", sections=sections) if sections else sections


def _class_section(content: ReportContent, found: ClassFindings) -> Markup:
    """What a class has to show beyond its row in the table; nothing if it is rigid and unremarkable."""
    parts = [fill("paragraph", kind="quiet", text=note) for note in found.notes]
    shown = [_film(film) for film in found.films] + [_figure(figure) for figure in found.figures]
    if shown:
        parts.append(fill("plots", plots=join(shown)))
    if found.tiles:
        tiles = join(fill("tile", picture=png_address(tile.picture), caption=tile.caption) for tile in found.tiles)
        parts.append(fill("tiles", tiles=tiles))
    if not parts:
        return Markup("")
    return fill(
        "class_section",
        index=found.class_index,
        colour=content.colours[found.class_index],
        count=f"{found.num_particles:,}",
        open=Markup(" open" if len(content.findings) <= _MOST_OPEN_CLASSES else ""),
        content=join(parts),
    )


def _films(content: ReportContent) -> list[Film]:
    return [film for found in content.findings for film in found.films]


def _film(film: Film) -> Markup:
    frames = join(
        fill("frame", picture=png_address(frame), caption=f"{film.caption}, volume {number}")
        for number, frame in enumerate(film.frames)
    )
    return fill("film", caption=film.caption, frames=frames, last=film.count - 1, spread=png_address(film.spread))


def _plots(figures: Iterable[ShownFigure]) -> Markup:
    plots = join(_figure(figure) for figure in figures)
    return fill("plots", plots=plots) if plots else plots


def _figure(figure: ShownFigure) -> Markup:
    return fill("figure", picture=themed_picture(figure), caption=figure.caption)


def _reading(content: ReportContent) -> Markup:
    sign = "negative (--invert was given)" if content.is_inverted else "positive"
    rows = {
        "Classes": "Counted from 0 here and on the command line; from 1 in STAR files (rlnClassNumber).",
        "Particle numbers": (
            "--sample-z-idx, --trajectory-1d, --direct-traversal-txt and centers_ind.txt name particles by their place "
            "in the particle file, counted from 0, before any selection by ind."
        ),
        "Arrays": (
            "labels.pkl and umap.pkl of a class have a row for every particle of the run, in the order of latents.npz; "
            "particles of other classes hold -1 and nan."
        ),
        "Density": f"In the volumes written, density is {sign}. Pictures here always show it bright.",
        "Hand": "Images do not determine it: a map and its mirror image, with poses to match, fit equally well.",
        "Surfaces": (
            f"Drawn from maps of {content.structures.scale.size} voxels of "
            f"{content.structures.scale.voxel_angstrom:.3g} Å to a side around the particles; the .mrc files hold all."
        ),
    }
    return fill("table", rows=_rows(rows))


def _settings(content: ReportContent) -> Markup:
    settings = dict(content.run.settings)
    versions = settings.pop("versions", None)
    recorded = {str(name): str(version) for name, version in versions.items()} if isinstance(versions, dict) else {}
    if not settings:
        return Markup("")
    rows = _rows({key: str(value) for key, value in settings.items()})
    return fill("settings", settings=rows, versions=_rows({**recorded, "This page by cryohydra": _version()}))


def _rows(texts: dict[str, str]) -> Markup:
    return join(fill("table_row", name=name, value=text) for name, text in texts.items())


def _version() -> str:
    try:
        return importlib.metadata.version("cryohydra")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "(not installed)"
