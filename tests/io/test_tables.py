"""STAR, .cs, CTF and pose files."""

from pathlib import Path

import numpy as np
import pytest

from cryohydra.errors import UnreadableFile
from cryohydra.io.cs import read_cs, write_cs
from cryohydra.io.ctf_file import read_ctf_file, write_ctf_file
from cryohydra.io.pickles import write_pickle
from cryohydra.io.pose_file import read_pose_file, write_pose_file
from cryohydra.io.star import StarTable, read_star, write_star

CTF = np.array([[64, 1.5, 1e4, 9e3, 30, 300, 2.7, 0.1, 0]] * 3)


def test_star_files_come_back(tmp_path: Path) -> None:
    optics = StarTable({"rlnOpticsGroup": np.array(["1"]), "rlnOpticsGroupName": np.array(["a b"])})
    names = np.array(["1@a#b.mrcs", "2@a'b.mrcs"])
    particles = StarTable({"rlnImageName": names, "rlnDefocusU": np.array([1.5, -2])})
    write_star(tmp_path / "a.star", {"optics": optics, "particles": particles})
    blocks = read_star(tmp_path / "a.star")
    assert list(blocks) == ["optics", "particles"] and len(blocks["particles"]) == 2
    assert list(blocks["particles"].columns) == ["rlnImageName", "rlnDefocusU"]
    assert blocks["optics"].column("rlnOpticsGroupName").tolist() == ["a b"]
    assert blocks["particles"].column("rlnImageName").tolist() == names.tolist()
    assert blocks["particles"].floats("rlnDefocusU").tolist() == [1.5, -2]
    assert blocks["particles"].has("rlnImageName") and not blocks["particles"].has("rlnVoltage")


def test_only_files_with_optics_groups_are_of_relion_31(tmp_path: Path) -> None:
    table = StarTable({"rlnOpticsGroup": np.array(["1"])})
    for blocks in ({"": table}, {"optics": table, "particles": table}):
        write_star(tmp_path / "a.star", blocks)
        assert ("# version 30001" in (tmp_path / "a.star").read_text()) == ("optics" in blocks)


@pytest.mark.parametrize("text", ["", "hello", "data_\nloop_\n_rlnA\n_rlnB\n1 2 3\n", "\x00\x01\x02"])
def test_what_is_no_star_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.star").write_text(text)
    with pytest.raises(UnreadableFile, match="a.star"):
        read_star(tmp_path / "a.star")["particles"].column("rlnImageName")


def test_star_columns_are_named_in_errors(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text("data_\nloop_\n_rlnA\n_rlnB\n1 x\n")
    table = read_star(tmp_path / "a.star")[""]
    with pytest.raises(UnreadableFile, match="a.star has no column _rlnC; there are _rlnA, _rlnB"):
        table.column("rlnC")
    with pytest.raises(UnreadableFile, match="no number in column _rlnB"):
        table.floats("rlnB")
    with pytest.raises(UnreadableFile, match="does not exist"):
        read_star(tmp_path / "b.star")


def test_cs_files_come_back(tmp_path: Path) -> None:
    records = np.array([(1, b"a.mrc"), (2, b"b.mrc")], dtype=[("uid", "<u8"), ("blob/path", "S5")])
    write_cs(tmp_path / "a.cs", records)
    assert np.array_equal(read_cs(tmp_path / "a.cs"), records)


def test_what_is_no_cs_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cs"
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    contents = (b"", b"junk", (tmp_path / "a.npy").read_bytes(), (tmp_path / "objects.npy").read_bytes())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match="a.cs"):
            read_cs(path)


def test_ctf_files_come_back(tmp_path: Path) -> None:
    write_ctf_file(tmp_path / "ctf.pkl", CTF)
    assert np.allclose(read_ctf_file(tmp_path / "ctf.pkl"), CTF, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CTF[:, :8], r"shape \(3, 8\); wanted"),
        ((CTF, CTF), "a tuple; wanted"),
        (np.where(CTF == 300, np.nan, CTF), "not finite"),
        (np.where(CTF == 300, 0, CTF), "voltage of 0 in row 0"),
        (CTF.astype(str), "wanted a table of numbers"),
    ],
)
def test_wrong_ctf_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    write_pickle(tmp_path / "ctf.pkl", content)
    with pytest.raises(UnreadableFile, match=message):
        read_ctf_file(tmp_path / "ctf.pkl")


def test_pose_files_come_back(tmp_path: Path) -> None:
    rotations, shifts = np.stack([np.eye(3)] * 2), np.array([[0.1, -0.2], [0, 0.3]])
    write_pose_file(tmp_path / "pose.pkl", rotations, shifts)
    read = read_pose_file(tmp_path / "pose.pkl")
    assert np.array_equal(read[0], rotations) and read[1] is not None and np.array_equal(read[1], shifts)
    write_pose_file(tmp_path / "pose.pkl", rotations, None)
    assert read_pose_file(tmp_path / "pose.pkl")[1] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CTF, "Is it a pose file"),
        ({"a": 1}, "holds a dict; wanted rotations"),
        ((np.stack([np.eye(3)] * 2), np.zeros((3, 2))), r"shape \(3, 2\); wanted \(2, 2\)"),
        ((np.stack([np.eye(3)] * 2), np.full((2, 2), 7.5)), "in pixels"),
        ((np.stack([np.eye(3)] * 2), np.full((2, 2), np.nan)), "not finite"),
        (np.stack([np.eye(3), 2 * np.eye(3)]), "the first in row 1"),
        (np.stack([np.eye(3), -np.eye(3)]), "no rotations"),
    ],
)
def test_wrong_pose_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    write_pickle(tmp_path / "pose.pkl", content)
    with pytest.raises(UnreadableFile, match=message):
        read_pose_file(tmp_path / "pose.pkl")


def test_real_tables_are_read(shared_data: Path) -> None:
    folder = shared_data / "particles"
    assert list(read_star(folder / "cryodrgn_tests" / "relion5.star")) == ["optics", "particles"]
    assert len(read_star(folder / "tomodrgn_tests" / "10076_both_32_sim.star")[""]) == 1296
    assert len(read_cs(folder / "cryodrgn_tests" / "cryosparc_P12_J24_001_particles.cs")) == 2019
    rotations, shifts = read_pose_file(folder / "cryodrgn_tests" / "sta_pose.pkl")
    assert rotations.shape == (219, 3, 3) and shifts is not None
    assert read_ctf_file(folder / "tomodrgn_tests" / "ctf_classD.pkl").shape == (576, 9)
