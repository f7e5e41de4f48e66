"""cryoSPARC's .cs files: structured arrays in numpy's own format."""

from pathlib import Path

import numpy as np

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


def write_cs(path: Path, records: np.ndarray) -> None:
    """Write records as a .cs file."""
    assert records.dtype.names is not None
    with write_atomically(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, records, allow_pickle=False)
