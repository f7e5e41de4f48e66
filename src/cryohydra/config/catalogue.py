"""Datasets by name: the catalogue that $DRGNAI_DATASETS points to, and files that describe one dataset."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryohydra.config.paths import with_resolved_paths
from cryohydra.config.yaml_mapping import read_mapping
from cryohydra.errors import UnknownSetting, UserError

VARIABLE = "DRGNAI_DATASETS"
ENTRY_KEYS = ("particles", "ctf", "pose", "datadir", "labels", "ind", "dose_per_tilt", "angle_per_tilt")


def find_dataset(dataset: str) -> dict[str, Any]:
    """Settings of a dataset: a label of the catalogue, or a .yaml file that describes it, paths absolute.

    Paths in a catalogue count from the current folder, then from the catalogue's; those in a file of one
    dataset from its folder.

    Raises:
        UserError: If there is no such dataset, or its description cannot be used.
    """
    if Path(dataset).suffix in {".yaml", ".yml"}:
        return _from_file(Path(dataset).expanduser().absolute())
    return _from_catalogue(dataset)


def with_dataset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with those of the dataset they name; what is set beside it wins.

    A dataset that was looked up before, so that particles are known, is not looked up again.
    """
    if values.get("dataset") is None or values.get("particles") is not None:
        return dict(values)
    return find_dataset(str(values["dataset"])) | {key: value for key, value in values.items() if value is not None}


def _from_file(path: Path) -> dict[str, Any]:
    # The reference joins paths to the file as if it were a folder; descriptions written for it keep working.
    return with_resolved_paths(_checked(read_mapping(path), f"{path}"), [path.parent, path])


def _from_catalogue(label: str) -> dict[str, Any]:
    location = os.environ.get(VARIABLE)
    if not location:
        raise UserError(
            f"Dataset '{label}' is to be looked up, but {VARIABLE} is not set; set it to the path of a catalogue "
            "(a .yaml file of label: {particles: ..., ctf: ...}), or give --particles instead of --dataset."
        )
    path = Path(location).expanduser().absolute()
    catalogue = read_mapping(path)
    if label not in catalogue:
        close = difflib.get_close_matches(label, [str(name) for name in catalogue], n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise UnknownSetting(f"The catalogue {path} has no dataset '{label}', only {', '.join(catalogue)}.{hint}")
    entry = catalogue[label]
    if not isinstance(entry, Mapping):
        raise UserError(f"Dataset '{label}' in {path} is {entry!r}; wanted {{particles: FILE, ctf: FILE}}.")
    return with_resolved_paths(_checked(entry, f"Dataset '{label}' in {path}"), [Path.cwd(), path.parent])


def _checked(entry: Mapping[str, Any], origin: str) -> Mapping[str, Any]:
    unknown = [f"'{key}'" for key in entry if key not in ENTRY_KEYS]
    if unknown:
        raise UnknownSetting(f"{origin}: unknown {', '.join(unknown)}; a dataset may have {', '.join(ENTRY_KEYS)}.")
    if "particles" not in entry:
        raise UserError(f"{origin}: 'particles' is missing; name the file of the images.")
    return entry
