"""cryoSPARC's .cs files, structured arrays in numpy's own format, and the .csg files that name them."""

from datetime import datetime
from pathlib import Path

import numpy as np
import yaml

from cryohydra.errors import UnreadableFile
from cryohydra.io.atomic import write_atomically


def read_cs(path: Path) -> np.ndarray:
    """The records of a .cs file.

    Raises:
        UnreadableFile: If the file is missing or not a .cs file.
    """
    try:
        with open(path, "rb") as file:
            records = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise UnreadableFile(f"{path} does not exist; give the path of a .cs file.") from error
    except (ValueError, OSError, EOFError) as error:
        raise UnreadableFile(
            f"{path} cannot be read as a .cs file ({error}); it may be truncated or of another format. Export it again."
        ) from error
    if records.dtype.names is None or records.ndim != 1:
        raise UnreadableFile(f"{path} holds a plain array; wanted cryoSPARC's records, with fields such as blob/path.")
    return records


def with_columns(records: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
    """The same records with some columns replaced in their places, or added at the end."""
    names = records.dtype.names or ()
    # Each column's own type, without the padding that a structure in a file may have.
    fields = [(name, records.dtype[name]) for name in names]
    fields += [
        (name, np.dtype((values.dtype, values.shape[1:]))) for name, values in columns.items() if name not in names
    ]
    made = np.empty(len(records), dtype=fields)
    for name, _ in fields:
        made[name] = columns[name] if name in columns else records[name]
    return made


def write_cs(path: Path, records: np.ndarray) -> None:
    """Write records as a .cs file."""
    assert records.dtype.names is not None
    with write_atomically(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, records, allow_pickle=False)


def write_csg(path: Path, cs_path: Path, records: np.ndarray) -> None:
    """Write the description by which cryoSPARC imports the particles of a .cs file in the same folder.

    Args:
        records: Of that file.
    """
    prefixes = dict.fromkeys(name.partition("/")[0] for name in records.dtype.names or () if "/" in name)
    content = {
        "created": datetime.now().isoformat(sep=" "),
        "group": {
            "description": "Particles as exported by cryohydra.",
            "name": "particles",
            "title": cs_path.stem,
            "type": "particle",
        },
        "results": {
            # ">" stands for the folder of the .csg.
            prefix: {
                "metafile": f">{cs_path.name}",
                "num_items": len(records),
                "type": "particle.alignments3D" if prefix.startswith("alignments_class_") else f"particle.{prefix}",
            }
            for prefix in prefixes
        },
        "version": "v4.0.0",
    }
    with write_atomically(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False))
