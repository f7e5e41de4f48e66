"""Files that settings name: where they are, and that they are there."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cryohydra.config.settings import Settings
from cryohydra.errors import UnreadableFile

PATH_KEYS = tuple(key for key, field in Settings.model_fields.items() if "Path" in str(field.annotation))


def is_path(key: str, value: Any) -> bool:
    """Whether a value of a key names a file or folder; `ind` may also be a number."""
    return key in PATH_KEYS and isinstance(value, str | Path) and not str(value).strip().isdigit()


def resolve(value: str | Path, folders: Iterable[Path]) -> Path:
    """An absolute path: from the first of the folders where the file is, else from the first of all."""
    direct = [(folder / Path(value).expanduser()).absolute() for folder in folders]
    candidates = [*direct, *(Path(os.path.normpath(path)) for path in direct)]
    return next((path for path in candidates if path.exists()), candidates[0])


def with_resolved_paths(values: Mapping[str, Any], folders: Iterable[Path]) -> dict[str, Any]:
    """The values with every path made absolute."""
    places = tuple(folders)

    def resolved(key: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [resolved(key, entry) for entry in value]
        return resolve(value, places) if is_path(key, value) else value

    return {key: resolved(key, value) for key, value in values.items()}


def check_files_exist(settings: Settings) -> None:
    """See that every file that the settings name is there.

    Raises:
        UnreadableFile: If some are not, naming all of them.
    """
    values = {key: getattr(settings, key) for key in PATH_KEYS}
    named = [(key, path) for key, value in values.items() for path in (value if isinstance(value, tuple) else (value,))]
    missing = [f"{key}: {path}" for key, path in named if is_path(key, path) and not Path(path).exists()]
    if len(missing) == 1:
        raise UnreadableFile(f"There is no such file: {missing[0]}. Check the spelling and the folder.")
    if missing:
        listing = "\n".join(f"  - {entry}" for entry in missing)
        raise UnreadableFile(f"{len(missing)} files do not exist; check their spelling and folders:\n{listing}")
