"""Pickles of plain containers and numpy arrays; anything else in them is refused, not run."""

import collections
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cryohydra.errors import UnreadableFile
from cryohydra.io.atomic import write_atomically

_PLAIN_BUILTINS: dict[str, type] = {
    kind.__name__: kind for kind in (set, frozenset, complex, bytearray, range, slice, int, float, str, bytes, bool)
}


class ForbiddenContent(pickle.UnpicklingError):
    """A pickle asks for something that is neither a plain container nor a numpy array."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, scalars and arrays, written under numpy 1 or 2."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _PLAIN_BUILTINS:
            return _PLAIN_BUILTINS[name]
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        constructors = _array_constructors()
        key = module.replace("numpy.core", "numpy._core"), name
        if key in constructors:
            return constructors[key]
        raise ForbiddenContent(f"{module}.{name}")


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocols below 3 spell bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ForbiddenContent(f"bytes spelled in {encoding}")
    return text.encode("latin1")


def _array_constructors() -> dict[tuple[str, str], Callable[..., Any]]:
    """The functions by which numpy arrays and scalars are rebuilt, taken from arrays themselves."""
    rebuild_array = np.zeros(1).__reduce__()[0]
    rebuild_scalar = np.float64(0).__reduce__()[0]
    rebuild_from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    assert callable(rebuild_array) and callable(rebuild_scalar) and callable(rebuild_from_buffer)
    return {
        ("numpy._core.multiarray", "_reconstruct"): rebuild_array,
        ("numpy._core.multiarray", "scalar"): rebuild_scalar,
        ("numpy._core.numeric", "_frombuffer"): rebuild_from_buffer,
    }


def read_pickle(path: Path) -> Any:
    """Read containers, scalars and numpy arrays.

    Raises:
        UnreadableFile: If the file is missing, truncated, no pickle, or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file).load()
    except ForbiddenContent as error:
        raise UnreadableFile(
            f"{path} holds {error}, which is not read because loading it could run code; wanted only numpy arrays "
            "and plain containers. Save it again as such."
        ) from error
    except FileNotFoundError as error:
        raise UnreadableFile(f"{path} does not exist; give the path of a .pkl file.") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UnreadableFile(
            f"{path} cannot be read as a pickle ({type(error).__name__}: {error}); wanted a .pkl file of numpy arrays. "
            "It may be truncated or of another format: write it again."
        ) from error


def write_pickle(path: Path, content: Any) -> None:
    """Write containers, scalars and numpy arrays."""
    with write_atomically(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file, protocol=4)
