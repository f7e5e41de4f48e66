"""Settings to begin with, from what was seen of the particles."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryohydra.data.inspection import Inspection

_USUAL_CLASSES = 4
_PARTICLES_PER_CLASS = 300
"""With fewer a class has no map worth reading."""


def recommended(inspection: Inspection, given: Mapping[str, Any]) -> dict[str, Any]:
    """What to set beside what is given; nothing that is given changes.

    Args:
        given: Settings by key.
    """
    quick = dict(given.get("quick_config") or {})
    wanted: dict[str, Any] = {}
    num = inspection.num_images
    tilts = inspection.tilts
    if tilts is not None and quick.get("capture_setup") is None:
        quick["capture_setup"] = "et"
    if quick.get("capture_setup") == "et":
        num = tilts.num_particles if tilts is not None else num
        if tilts is not None:
            wanted["n_tilts"] = tilts.typical
        if inspection.rotation is not None:
            # Poses of tilt series are not found ab initio.
            quick.setdefault("pose_estimation", "refine")
    wanted["n_classes"] = max(1, min(_USUAL_CLASSES, num // _PARTICLES_PER_CLASS))
    held = inspection.num_images * (0 if inspection.table is None else inspection.table.box_size**2) * 4
    if held > memory_of_machine() // 2:
        wanted["lazy"] = True
    chosen = {**{key: value for key, value in wanted.items() if key not in given}, **given}
    return chosen | ({"quick_config": quick} if quick else {})


def setup_command(values: Mapping[str, Any]) -> str:
    """The command line that gives these settings to `setup`."""
    words = ["drgnai", "setup", "OUT"]
    for key in ("particles", "ctf", "pose", "datadir"):
        if values.get(key) is not None:
            words += [f"--{key}", _short(values[key])]
    for key, value in (values.get("quick_config") or {}).items():
        words += [f"--{key.replace('_', '-')}", str(value)] if key != "engine" else []
    cfgs = {key: value for key, value in values.items() if key not in _FLAGS}
    if (values.get("quick_config") or {}).get("engine"):
        cfgs["quick_config.engine"] = values["quick_config"]["engine"]
    words += ["--cfgs", *(f"{key}={_written(value)}" for key, value in cfgs.items())] if cfgs else []
    return shlex.join(words)


def memory_of_machine() -> int:
    """Bytes that programs can have, now; all of the machine's where it does not tell more."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


_FLAGS = ("particles", "ctf", "pose", "datadir", "quick_config")


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _short(path: str | Path) -> str:
    """Relative to here, where that is no detour."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
