"""A file is either whole or not there."""

from pathlib import Path

import pytest

from cryohydra.io.atomic import write_atomically


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".mrc" and temporary.parent == tmp_path and not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
