"""Pickles hold data or are refused."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from cryohydra.errors import UnreadableFile
from cryohydra.io.pickles import read_pickle, write_pickle


class Runs:
    """Would run a command if it were unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    content = {"a": (np.arange(6.0).reshape(2, 3).T, np.float32(2), [1, None, True]), "b": {1, 2}, "c": b"\xff"}
    path.write_bytes(pickle.dumps((content, OrderedDict(x=1)), protocol=protocol))
    read, ordered = read_pickle(path)
    assert np.array_equal(read["a"][0], content["a"][0]) and read["a"][1:] == content["a"][1:]
    assert (read["b"], read["c"], ordered) == (content["b"], content["c"], {"x": 1})


def test_names_of_numpy_1_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(np.arange(3), protocol=2).replace(b"numpy._core", b"numpy.core"))
    assert read_pickle(path).tolist() == [0, 1, 2]


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(Runs(f"touch {tmp_path}/harm")))
    with pytest.raises(UnreadableFile, match="system"):
        read_pickle(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(np.arange(100))[:80], b"cnumpy\nload\n.", b"\x80\x05."])
def test_damaged_files_are_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="a.pkl"):
        read_pickle(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="does not exist"):
        read_pickle(tmp_path / "a.pkl")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_pickle(tmp_path / "a.pkl", [1, "x"])
    assert read_pickle(tmp_path / "a.pkl") == [1, "x"]
