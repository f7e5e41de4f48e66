"""What the page asks of a run: quantities, images, volumes, ways through conformations, and what to keep."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from cryohydra._typing import Bool, Float
from cryohydra.analysis.chimerax import Scene, ShownMap, write_classes_script, write_motion_script
from cryohydra.analysis.movies import movie_suffix, write_movie
from cryohydra.analysis.palette import class_colours
from cryohydra.analysis.quantities import Quantity
from cryohydra.analysis.run import Run
from cryohydra.analysis.volumes import volume_path, write_text_table
from cryohydra.errors import UserError
from cryohydra.explorer.gallery import MOST_IMAGES, picture_particles
from cryohydra.explorer.http import (
    BINARY,
    JSON,
    Asked,
    Refusal,
    Reply,
    Request,
    Route,
    as_json,
    as_lines,
    read_json,
    whole_number,
)
from cryohydra.explorer.shelf import Shelf, pack, unpack
from cryohydra.explorer.sources import Source, Sources
from cryohydra.explorer.traversals import graph_path, straight_path, thin
from cryohydra.explorer.volumes import VolumePainter
from cryohydra.io.mrc import write_map

Export = Callable[[Path, Path], Iterator[str]]
"""Exports the particles of an `ind` file to a folder, with sentences as it goes."""

_MOST_FRAMES = 200
_LARGEST_MOVIE = 128 * 2**20
_LARGEST_FRAME = 2000
_SMALL = 2**20
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Conformation = list[float]
Frames = Annotated[list[Conformation], Field(min_length=1, max_length=_MOST_FRAMES)]


class VolumeAsked(Asked):
    """A class in one conformation."""

    class_index: int
    conformation: Conformation
    finest: int = Field(gt=0)


class ClassAsked(Asked):
    """A class whose volumes will be asked for."""

    class_index: int
    finest: int = Field(gt=0)


class WayAsked(Asked):
    """A way past some particles."""

    class_index: int
    particles: Annotated[list[int], Field(min_length=1, max_length=_MOST_FRAMES)]
    kind: Literal["straight", "graph", "particles"]
    count: int = Field(ge=1, le=_MOST_FRAMES)


class VolumesAsked(Asked):
    """A class in several conformations, to be kept."""

    class_index: int
    conformations: Frames
    name: str
    level: float
    """Of the surface that is seen, in the units of the maps."""


@dataclass(frozen=True)
class Opening:
    """How the page begins."""

    colour_by: str
    """Key of a quantity."""
    preselected: Bool[np.ndarray, "n"]


class Explorer:
    """Answers the page's requests about some sources, and keeps things on the run's shelf."""

    def __init__(self, sources: Sources, shelf: Shelf, opening: Opening, export: Export):
        self._sources, self._shelf, self._opening, self._export = sources, shelf, opening, export
        self._painter = VolumePainter()

    def routes(self) -> list[Route]:
        """Everything that is answered."""
        one = "/api/origins/{origin}"
        return [
            Route("GET", "/", lambda request: _page_file("index.html")),
            Route("GET", "/page/{name}", lambda request: _page_file(request.path["name"])),
            Route("GET", "/api/run", self._describe),
            Route("GET", one, self._describe_origin),
            Route("GET", one + "/columns/{quantity}", self._column),
            Route("POST", one + "/volume", self._volume, JSON, _SMALL),
            Route("POST", one + "/prepare", self._prepare, JSON, _SMALL),
            Route("POST", one + "/way", self._way, JSON, _SMALL),
            Route("POST", one + "/volumes", self._save_volumes, JSON, _SMALL),
            Route("GET", "/api/images", self._images),
            Route("GET", "/api/preselected", lambda request: Reply(BINARY, pack(self._opening.preselected))),
            Route("GET", "/api/selections/{name}", self._read_selection),
            Route("POST", "/api/selections/{name}", self._save_selection, BINARY, len(self._sources) // 8 + 1),
            Route("POST", "/api/selections/{name}/remove", self._remove_selection),
            Route("POST", "/api/selections/{name}/export", self._export_selection),
            Route("POST", "/api/movies/{name}", self._save_movie, BINARY, _LARGEST_MOVIE),
        ]

    def _describe(self, request: Request) -> Reply:
        return as_json(
            {
                "name": self._sources.folder.path.resolve().name,
                "folder": str(self._shelf.path),
                "num_particles": len(self._sources),
                "origins": [{"key": origin.key, "name": origin.name} for origin in self._sources.origins],
                "has_images": self._sources.particles is not None,
                "movie_suffix": movie_suffix(),
                "colour_by": self._opening.colour_by,
                "notes": self._sources.notes,
                "selections": self._saved_selections(),
            }
        )

    def _saved_selections(self) -> list[dict[str, Any]]:
        return [{"name": one.name, "count": one.count, "about": one.about} for one in self._shelf.selections()]

    def _describe_origin(self, request: Request) -> Reply:
        source = self._source(request)
        run = source.run
        return as_json(
            {
                "num_classes": run.num_classes,
                "class_colours": class_colours(run.num_classes),
                "z_dim": run.z_dim,
                "box_size": run.mixture.box_size,
                "pixel_size_angstrom": run.pixel_size_angstrom,
                "has_conformations": run.z_dim > 0 and run.has_fitted_fields,
                "quantities": [_as_offered(one) for one in self._sources.quantities(source.origin.key)],
            }
        )

    def _column(self, request: Request) -> Reply:
        try:
            values = self._sources.column(request.path["origin"], request.path["quantity"])
        except KeyError as error:
            raise Refusal(404, f"There is no quantity {error} here; choose one that the page offers.") from error
        return Reply(BINARY, values.astype("<f4").tobytes())

    def _volume(self, request: Request) -> Reply:
        source, asked = self._source(request), read_json(VolumeAsked, request.body)
        conformation = _conformations(source, asked.class_index, [asked.conformation])[0]
        density, voxel_size = self._painter.draw(source.run, asked.class_index, conformation, asked.finest)
        return Reply(BINARY, density.numpy().astype("<f4").tobytes(), {"X-Voxel-Size": f"{voxel_size:.6g}"})

    def _prepare(self, request: Request) -> Reply:
        source, asked = self._source(request), read_json(ClassAsked, request.body)
        _check_class(source, asked.class_index)
        self._painter.prepare(source.run, asked.class_index, asked.finest)
        return as_json({})

    def _way(self, request: Request) -> Reply:
        source, asked = self._source(request), read_json(WayAsked, request.body)
        if not all(0 <= particle < len(source.rows) and source.rows[particle] >= 0 for particle in asked.particles):
            raise Refusal(400, "One of the points is no particle of this epoch; choose points that are shown.")
        rows = source.rows[asked.particles]
        latents = source.run.latents
        conformation: Float[np.ndarray, "a z"] = latents.conformation[rows].astype(np.float64)
        if (latents.class_probability[rows].argmax(axis=1) != asked.class_index).any():
            raise UserError(
                "The points are of several classes, between which no conformation leads; show one class and "
                "choose the points again."
            )
        if asked.kind == "straight":
            found = straight_path(conformation, asked.count)
        elif asked.kind == "graph":
            members = source.run.members(asked.class_index)
            among = latents.conformation[members].astype(np.float64)
            way = graph_path(among, np.searchsorted(members, rows), np.random.default_rng(0))
            found = among[thin(way, asked.count)]
        else:
            found = conformation[thin(np.arange(len(rows)), asked.count)]
        return as_json({"conformations": found.tolist()})

    def _save_volumes(self, request: Request) -> Reply:
        source, asked = self._source(request), read_json(VolumesAsked, request.body)
        conformations = _conformations(source, asked.class_index, asked.conformations)
        folder = self._shelf.place("volumes", asked.name)

        def write() -> Iterator[dict[str, Any]]:
            folder.mkdir()
            write_text_table(folder / "z_values.txt", conformations)
            for number, conformation in enumerate(conformations):
                density = source.run.draw(asked.class_index, conformation).numpy()
                write_map(volume_path(folder, number), density, source.run.pixel_size_angstrom)
                yield {"says": f"{number + 1} of {len(conformations)} volumes written"}
            _write_script(folder, source.run, asked)
            yield {"saved": str(folder)}

        return as_lines(write())

    def _images(self, request: Request) -> Reply:
        if self._sources.particles is None:
            raise Refusal(404, "The images of this run could not be opened; the page says why.")
        words = request.query.get("particles", "").split(",")
        if not 0 < len(words) <= MOST_IMAGES:
            raise Refusal(400, f"{len(words)} images are asked for; wanted 1 to {MOST_IMAGES}.")
        most = len(self._sources) - 1
        particles = [whole_number({"particles": word}, "particles", 0, most) for word in words]
        smoothing = whole_number(request.query, "smoothing", 0, 20) / 2
        pictures = picture_particles(
            self._sources.particles.source, self._sources.image_rows[np.array(particles)], smoothing
        )
        return Reply(BINARY, pictures.tobytes(), {"X-Box-Size": str(pictures.shape[-1])})

    def _read_selection(self, request: Request) -> Reply:
        return Reply(BINARY, pack(self._shelf.read_selection(request.path["name"], self._sources.file_rows())))

    def _save_selection(self, request: Request) -> Reply:
        chosen = unpack(request.body, len(self._sources))
        about = request.query.get("about", "")[:1000]
        folder = self._shelf.save_selection(request.path["name"], about, chosen, self._sources.file_rows())
        return as_json({"saved": str(folder), "selections": self._saved_selections()})

    def _remove_selection(self, request: Request) -> Reply:
        self._shelf.move_aside(self._shelf.find("selections", request.path["name"]))
        return as_json({"selections": self._saved_selections()})

    def _export_selection(self, request: Request) -> Reply:
        name = request.path["name"]
        ind = self._shelf.find("selections", name) / "ind.pkl"
        if not ind.exists():
            raise Refusal(404, f"There is no selection '{name[:60]}'; save it first.")
        folder = self._shelf.place("exports", name)

        def export() -> Iterator[dict[str, Any]]:
            for sentence in self._export(ind, folder):
                yield {"says": sentence}
            names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            yield {"saved": f"{folder}: {', '.join(names)}"}

        return as_lines(export())

    def _save_movie(self, request: Request) -> Reply:
        height = whole_number(request.query, "height", 1, _LARGEST_FRAME)
        width = whole_number(request.query, "width", 1, _LARGEST_FRAME)
        frames_per_second = whole_number(request.query, "frames_per_second", 1, 60)
        size = height * width * 3
        if not request.body or len(request.body) % size:
            raise Refusal(400, f"{len(request.body)} bytes came; wanted whole frames of {width} x {height} x 3.")
        frames = np.frombuffer(request.body, dtype=np.uint8).reshape(-1, height, width, 3)
        path = self._shelf.place("movies", request.path["name"] + movie_suffix())
        write_movie(path, frames, frames_per_second)
        return as_json({"saved": str(path)})

    def _source(self, request: Request) -> Source:
        try:
            return self._sources.open(request.path["origin"])
        except KeyError as error:
            raise Refusal(404, "There is no such epoch; choose one that the page offers.") from error


def _as_offered(quantity: Quantity) -> dict[str, Any]:
    return {
        "key": quantity.key,
        "name": quantity.name,
        "group": quantity.group,
        "categories": quantity.categories,
        "colours": class_colours(len(quantity.categories)),
    }


def _conformations(source: Source, class_index: int, given: list[Conformation]) -> Float[np.ndarray, "v z"]:
    run = source.run
    _check_class(source, class_index)
    if any(len(one) != run.z_dim for one in given):
        raise Refusal(400, f"A conformation has not {run.z_dim} numbers; wanted the z_dim of the run.")
    return np.array(given, dtype=np.float64).reshape(len(given), run.z_dim)


def _write_script(folder: Path, run: Run, asked: VolumesAsked) -> None:
    """Open saved volumes in ChimeraX as they were seen: one after the other, or a single one."""
    colour = class_colours(run.num_classes)[asked.class_index]
    maps = [ShownMap(volume_path(folder, number), colour) for number in range(len(asked.conformations))]
    box_angstrom = run.mixture.box_size * run.pixel_size_angstrom
    scene = Scene(asked.level, box_angstrom, box_angstrom)
    write = write_motion_script if len(maps) > 1 else write_classes_script
    write(folder / "volumes.cxc", maps, scene)


def _check_class(source: Source, class_index: int) -> None:
    if not 0 <= class_index < source.run.num_classes:
        raise Refusal(400, f"There is no class {class_index}; wanted 0 to {source.run.num_classes - 1}.")


def _page_file(name: str) -> Reply:
    """A file of the page, by its own name: names with a folder in them are not among those."""
    package = resources.files("cryohydra")
    # Surfaces are drawn as in the report.
    files = {file.name: file for file in (package / "explorer" / "page").iterdir()}
    files["surfaces.js"] = package / "assets" / "web" / "surfaces.js"
    suffix = Path(name).suffix
    if name not in files or suffix not in _TYPES:
        raise Refusal(404, "There is no such file; open the address that `drgnai explore` printed.")
    return Reply(f"{_TYPES[suffix]}; charset=utf-8", files[name].read_bytes())
