"""Scripts that open classes and motions in ChimeraX, all from one side, at one level."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryohydra.io.atomic import write_atomically

_FIELD_OF_VIEW = math.radians(30)
"""ChimeraX's own."""


@dataclass(frozen=True)
class Scene:
    """What all scripts of an analysis share."""

    level: float
    """In the units of the maps, for positive density."""
    box_angstrom: float
    shown_angstrom: float
    """Side of the part of the box that is to fill the window."""


@dataclass(frozen=True)
class ShownMap:
    """A map and its colour."""

    path: Path
    colour: str
    is_inverted: bool = False


def write_classes_script(path: Path, maps: Sequence[ShownMap], scene: Scene) -> None:
    """Maps side by side, turned together."""
    lines = ["# The classes side by side. Open it in an empty session."]
    for number, shown in enumerate(maps, 1):
        lines += [f"open {_quoted(shown.path, path)} id {number}", _style(number, shown, scene)]
    lines += [*_view(scene), f"tile #1-{len(maps)}" if len(maps) > 1 else ""]
    _write(path, lines)


def write_motion_script(path: Path, maps: Sequence[ShownMap], scene: Scene) -> None:
    """Maps of one class one after the other, there and back, until `vseries stop #1`."""
    names = " ".join(_quoted(shown.path, path) for shown in maps)
    lines = [
        "# The states of a motion, played there and back. Open it in an empty session.",
        f"open {names} vseries true id 1",
        _style(1, maps[0], scene),
        *_view(scene),
        "vseries play #1 direction oscillate loop true maxFrameRate 10",
        "# To keep it as a film, in place of the line above:",
        "#   movie record; vseries play #1 direction oscillate maxFrameRate 10; wait 40; movie encode motion.mp4",
    ]
    _write(path, lines)


def _style(number: int, shown: ShownMap, scene: Scene) -> str:
    level = -scene.level if shown.is_inverted else scene.level
    return f"volume #{number} level {level:.5g} style surface color {shown.colour} step 1"


def _view(scene: Scene) -> list[str]:
    centre = scene.box_angstrom / 2
    distance = scene.shown_angstrom / 2 / math.tan(_FIELD_OF_VIEW / 2) + scene.shown_angstrom / 2
    axes = ("1,0,0", "0,1,0", "0,0,1")
    place = (centre, centre, centre + distance)
    camera = ",".join(f"{axis},{where:.2f}" for axis, where in zip(axes, place, strict=True))
    return ["set bgColor white", "lighting soft", "graphics silhouettes true", f"view matrix camera {camera}"]


def _quoted(target: Path, script: Path) -> str:
    """As seen from the script: ChimeraX goes to its folder to run it."""
    return '"' + Path(os.path.relpath(target, script.parent)).as_posix() + '"'


def _write(path: Path, lines: Sequence[str]) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("\n".join(line for line in lines if line) + "\n")
