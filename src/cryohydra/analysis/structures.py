"""Classes and their motions as surfaces: for the page, for ChimeraX, and as films."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from cryohydra._typing import Float, Tensor
from cryohydra.analysis.chimerax import Scene, ShownMap, write_classes_script, write_motion_script
from cryohydra.analysis.class_analysis import ClassFindings, Film
from cryohydra.analysis.embedded_maps import PackedScale, PackedSeries, choose_scale, crop_map, pack_series
from cryohydra.analysis.movies import movie_suffix, write_movie
from cryohydra.analysis.palette import class_colours
from cryohydra.analysis.run import Run
from cryohydra.analysis.surfaces import picture_surface, shade_surface
from cryohydra.analysis.volumes import volume_path
from cryohydra.io.mrc import read_map

_FILM_SIZE = 200
"""Pixels to a side; even, as MP4 wants."""


@dataclass(frozen=True)
class Structure:
    """One class to be turned and moved."""

    class_index: int
    colour: str
    picture: bytes
    """What is seen where nothing can be turned."""
    series: tuple[PackedSeries, ...]
    """The class as it is, its motions, and its states if there are several."""
    state_pictures: tuple[bytes, ...]
    """Of its states."""


@dataclass(frozen=True)
class Structures:
    """All classes on one scale."""

    scale: PackedScale
    shown: tuple[Structure, ...]


def gather_structures(
    run: Run, findings: Sequence[ClassFindings], is_inverted: bool, says: Callable[[str], None]
) -> Structures:
    """Pack the classes for the page; write scripts for ChimeraX and a film of each motion beside the volumes."""
    filled = [found.density for found in findings if found.num_particles] or [found.density for found in findings]
    num_maps = sum(1 + sum(film.count for film in found.films) + len(_states_of(found)) for found in findings)
    scale = choose_scale(filled, num_maps, run.mixture.box_size * run.pixel_size_angstrom)
    scene = Scene(scale.level, run.mixture.box_size * run.pixel_size_angstrom, 1.1 * scale.size * scale.voxel_angstrom)
    colours = class_colours(run.num_classes)
    shown, maps = [], []
    for found in findings:
        colour = colours[found.class_index]
        cropped = crop_map(found.density, scale)
        series = [pack_series("As it is", [cropped], scale)]
        for film in found.films:
            says(f"Class {found.class_index}: filming {film.count} volumes in {film.folder.name}.")
            densities = [crop_map(density, scale) for density in _read_back(film, is_inverted)]
            series.append(pack_series(film.name, densities, scale))
            frames = np.stack([_on_white(density, scale.level, colour) for density in densities])
            write_movie(film.folder / f"motion{movie_suffix()}", frames)
            frame_maps = [ShownMap(volume_path(film.folder, n), colour, is_inverted) for n in range(film.count)]
            write_motion_script(film.folder / "motion.cxc", frame_maps, scene)
        states = [crop_map(density, scale) for density in _states_of(found)]
        if found.states is not None and len(states) > 1:
            series.append(pack_series("States", states, scale, found.states.names))
        pictures = tuple(picture_surface(density, scale.level, colour) for density in states)
        picture = picture_surface(cropped, scale.level, colour)
        shown.append(Structure(found.class_index, colour, picture, tuple(series), pictures))
        path = run.folder.map_path(run.epoch, found.class_index)
        if path.exists():
            maps.append(ShownMap(path, colour))
    if maps:
        write_classes_script(run.folder.analysis_path(run.epoch) / "classes.cxc", maps, scene)
    return Structures(scale, tuple(shown))


def _states_of(found: ClassFindings) -> tuple[Float[Tensor, "n n n"], ...]:
    return () if found.states is None else found.states.densities


def _read_back(film: Film, is_inverted: bool) -> list[Float[Tensor, "d d d"]]:
    """Volumes from their files: all of a large run's would not fit into memory together."""
    sign = -1 if is_inverted else 1
    return [sign * torch.from_numpy(read_map(volume_path(film.folder, number))[0]) for number in range(film.count)]


def _on_white(density: Float[Tensor, "n n n"], level: float, colour: str) -> UInt8[np.ndarray, "h w 3"]:
    picture = shade_surface(density, level, colour, size=_FILM_SIZE).astype(np.float64)
    opacity = picture[..., 3:] / 255
    return (picture[..., :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)
