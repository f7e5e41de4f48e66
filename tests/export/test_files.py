"""Tables of particles take in poses and classes, and lose nothing."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryohydra.data.cs_file import CsFile
from cryohydra.data.findings import ImageFindings, write_checked
from cryohydra.data.from_cs import cs_ctf
from cryohydra.data.new_star import new_star_file, star_of_cs
from cryohydra.data.star_file import StarFile
from cryohydra.errors import InputMismatch, UnreadableFile
from cryohydra.io.cs import read_cs, write_cs
from cryohydra.io.ctf_file import read_ctf_file
from cryohydra.io.pose_file import read_pose_file
from cryohydra.io.star import StarTable, read_star, star_version, write_star

from .conftest import box_of, made_up

WARP = "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
STAR_TABLES = [
    "cryodrgn_tests/empiar_10076_7.star",
    "cryodrgn_tests/relion5.star",
    "cryodrgn_tests/sta_testing_bin8.star",
    "tomodrgn_tests/10076_both_32_sim.star",
    "tomodrgn_tests/10076_classD_32_sim.star",
    "tomodrgn_tests/10076_classE_32_sim.star",
    f"tomodrgn_tests/{WARP}.star",
]
CS_TABLES = [
    "cryodrgn_tests/cryosparc_J2_particles_exported.cs",
    "cryodrgn_tests/cryosparc_P12_J24_001_particles.cs",
    "cryodrgn_tests/empiar_10076_7.cs",
]
WRITTEN_STAR = {
    "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst",
    "rlnClassNumber", "rlnParticleFigureOfMerit", "rlnRandomSubset",
}  # fmt: skip
WRITTEN_CS = {f"alignments3D/{name}" for name in ("pose", "shift", "psize_A", "class", "class_posterior", "split")}


def test_every_particle_table_of_the_data_is_tried(shared_data: Path) -> None:
    folder = shared_data / "particles"
    tables = {str(path.relative_to(folder)) for suffix in ("star", "cs") for path in folder.rglob(f"*.{suffix}")}
    assert tables - set(STAR_TABLES) - set(CS_TABLES) == {
        # No images in these: what RELION 5 keeps beside a table of particles.
        f"tomodrgn_tests/{WARP}_optimisation_set.star", f"tomodrgn_tests/{WARP}_tomograms.star"
    }  # fmt: skip


@pytest.mark.parametrize("name", STAR_TABLES)
def test_star_tables_lose_nothing(shared_data: Path, tmp_path: Path, name: str) -> None:
    original = shared_data / "particles" / name
    file = StarFile.read(original)
    rows = np.arange(len(file))[1::2]
    box, meant = box_of(file, 64, 2.0), made_up(file, rows)
    write_checked(file.having(meant, box), tmp_path / "a.star", meant, box[rows])

    before, after = read_star(original), read_star(tmp_path / "a.star")
    assert list(before) == list(after) and star_version(original) == star_version(tmp_path / "a.star")
    for block, table in before.items():
        again = after[block]
        if table.has("rlnImageName"):
            table = table[rows]
            assert set(again.columns) - set(table.columns) <= WRITTEN_STAR
        else:
            assert list(again.columns) == list(table.columns)
        assert list(again.columns)[: len(table.columns)] == list(table.columns)
        for column, values in table.columns.items():
            if column not in WRITTEN_STAR or column == "rlnRandomSubset":
                assert again.column(column).tolist() == values.tolist(), column


@pytest.mark.parametrize("name", STAR_TABLES)
def test_star_poses_are_in_relions_convention(shared_data: Path, name: str) -> None:
    file = StarFile.read(shared_data / "particles" / name)
    box, meant = box_of(file, 64, 2.0), made_up(file, np.arange(len(file)))
    made = file.having(meant, box)
    table = next(table for table in made.blocks.values() if table.has("rlnImageName"))
    euler = np.stack([table.floats(f"rlnAngle{angle}") for angle in ("Rot", "Tilt", "Psi")], axis=1)
    expected = Rotation.from_euler("ZYZ", euler, degrees=True).as_matrix().transpose(0, 2, 1)
    assert np.abs(meant.rotation - expected).max() < 1e-5
    has_groups = "optics" in made.blocks
    names = ("rlnOriginXAngst", "rlnOriginYAngst") if has_groups else ("rlnOriginX", "rlnOriginY")
    to_centre_px = -meant.shift_fraction * box.size_px[:, None]
    unit = box.pixel_size_angstrom[:, None] if has_groups else 1.0
    assert np.abs(np.stack([table.floats(name) for name in names], axis=1) - to_centre_px * unit).max() < 1e-5
    assert (table.floats("rlnClassNumber") == meant.class_index + 1).all()
    assert set(table.column("rlnRandomSubset")) <= {"1", "2"}


@pytest.mark.parametrize("name", CS_TABLES)
def test_cs_tables_lose_nothing(shared_data: Path, tmp_path: Path, name: str) -> None:
    original = shared_data / "particles" / name
    file = CsFile.read(original)
    rows = np.arange(len(file))[1::2]
    box, meant = box_of(file, 64, 2.0), made_up(file, rows)
    write_checked(file.having(meant, box), tmp_path / "a.cs", meant, box[rows])
    before, after = read_cs(original), read_cs(tmp_path / "a.cs")
    assert before.dtype.names is not None and after.dtype.names is not None
    assert after.dtype.names[: len(before.dtype.names)] == before.dtype.names
    for column in before.dtype.names:
        assert after.dtype[column] == before.dtype[column]
        if column not in WRITTEN_CS or column == "alignments3D/split":
            assert np.array_equal(after[column], before[column][rows]), column
    pose = Rotation.from_rotvec(after["alignments3D/pose"]).as_matrix().transpose(0, 2, 1)
    assert np.abs(pose - meant.rotation).max() < 1e-5


@pytest.mark.parametrize("name", CS_TABLES)
def test_cryosparc_tools_reads_what_is_written(shared_data: Path, tmp_path: Path, name: str) -> None:
    dataset = pytest.importorskip("cryosparc.dataset", reason="cryosparc-tools is not installed (extra `test`)")
    file = CsFile.read(shared_data / "particles" / name)
    meant = made_up(file, np.arange(len(file)))
    file.having(meant, box_of(file, 64, 2.0)).write(tmp_path / "a.cs")
    loaded = dataset.Dataset.load(tmp_path / "a.cs")
    assert (loaded["uid"] == file.records["uid"]).all()
    assert {"blob", "ctf", "alignments3D"} <= set(loaded.prefixes())
    pose = Rotation.from_rotvec(loaded["alignments3D/pose"]).as_matrix().transpose(0, 2, 1)
    assert np.abs(pose - meant.rotation).max() < 1e-5
    assert (loaded["alignments3D/class"] == meant.class_index).all()
    assert (loaded["blob/path"].astype(str) == file.records["blob/path"].astype(str)).all()


def their_poses(folder: Path, file: CsFile) -> ImageFindings:
    """The poses that another program read from a .cs, with classes of nobody."""
    rotation, shift = read_pose_file(folder / "pose.cs.pkl")
    assert shift is not None
    made = made_up(file, np.arange(len(file)))
    return ImageFindings(made.row, rotation, -shift, made.class_index, made.class_probability, made.half)


def test_poses_of_another_program_come_back_in_a_cs(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "particles" / "cryodrgn_tests"
    file = CsFile.read(folder / "cryosparc_P12_J24_001_particles.cs")
    meant = their_poses(folder, file)
    file.having(meant, box_of(file, 0, 0)).write(tmp_path / "a.cs")
    written = read_cs(tmp_path / "a.cs")
    # The program read them from this very file: what is written is what was there.
    turned = [Rotation.from_rotvec(r["alignments3D/pose"]) for r in (written, file.records)]
    assert (turned[0].inv() * turned[1]).magnitude().max() < 1e-5
    assert np.abs(written["alignments3D/shift"] - file.records["alignments3D/shift"]).max() < 180 * 1e-5
    ctf = cs_ctf(written, 180)
    assert ctf is not None and np.allclose(ctf, read_ctf_file(folder / "ctf2.pkl"), rtol=1e-5, atol=1e-5)


def test_poses_and_ctf_of_another_program_come_back_in_a_star_made_of_a_cs(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "particles" / "cryodrgn_tests"
    source = CsFile.read(folder / "cryosparc_P12_J24_001_particles.cs")
    star, _ = star_of_cs(source)
    meant = their_poses(folder, source)
    write_checked(star.having(meant, box_of(star, 0, 0)), tmp_path / "a.star", meant, box_of(star, 0, 0))
    blocks = read_star(tmp_path / "a.star")
    table, optics = blocks["particles"], blocks["optics"]
    ctf = read_ctf_file(folder / "ctf2.pkl")
    for column, name in {2: "rlnDefocusU", 3: "rlnDefocusV", 4: "rlnDefocusAngle", 8: "rlnPhaseShift"}.items():
        assert np.allclose(table.floats(name), ctf[:, column], rtol=1e-5, atol=1e-5)
    names = {0: "rlnImageSize", 1: "rlnImagePixelSize", 5: "rlnVoltage", 6: "rlnSphericalAberration",
             7: "rlnAmplitudeContrast"}  # fmt: skip
    group = table.floats("rlnOpticsGroup").astype(int) - 1
    for column, name in names.items():
        assert np.allclose(optics.floats(name)[group], ctf[:, column], rtol=1e-5)
    euler = np.stack([table.floats(f"rlnAngle{angle}") for angle in ("Rot", "Tilt", "Psi")], axis=1)
    expected = Rotation.from_euler("ZYZ", euler, degrees=True).as_matrix().transpose(0, 2, 1)
    assert np.abs(expected - meant.rotation).max() < 1e-5
    origin = np.stack([table.floats(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=1)
    assert np.abs(origin / (180 * 2.95) + meant.shift_fraction).max() < 1e-5
    assert table.floats("rlnRandomSubset").tolist() == (source.records["alignments3D/split"] + 1).tolist()
    name = table.column("rlnImageName")[0]
    assert name.startswith("000001@J19/extract/") and name.endswith("_particles.mrc:mrcs"), "a stack to RELION"


def test_a_damaged_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = StarTable(
        {"rlnImageName": np.array(["1@a.mrcs", "2@a.mrcs"]), "rlnDetectorPixelSize": np.array(["2", "2"])}
    )
    file = StarFile(tmp_path / "in.star", {"": table}, None)
    box, meant = box_of(file, 64, 2.0), made_up(file, np.arange(2))
    made = file.having(meant, box)
    other = file.having(meant[np.array([1, 0])], box)
    monkeypatch.setattr(StarFile, "write", lambda self, path: write_star(path, other.blocks, None))
    with pytest.raises(UnreadableFile, match="read again it differs in rotation"):
        write_checked(made, tmp_path / "a.star", meant, box)


def test_a_lost_column_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = StarTable({"rlnImageName": np.array(["1@a.mrcs"]), "rlnDetectorPixelSize": np.array(["2"])})
    file = StarFile(tmp_path / "in.star", {"": table}, None)
    box, meant = box_of(file, 64, 2.0), made_up(file, np.arange(1))
    made = file.having(meant, box)
    less = {"": StarTable({name: v for name, v in made.blocks[""].columns.items() if name != "rlnDetectorPixelSize"})}
    monkeypatch.setattr(StarFile, "write", lambda self, path: write_star(path, less, None))
    with pytest.raises(UnreadableFile, match="read again it differs in columns"):
        write_checked(made, tmp_path / "a.star", meant, box)


def test_a_passthrough_file_is_joined_by_uid(shared_data: Path, tmp_path: Path) -> None:
    file = CsFile.read(shared_data / "particles" / "cryodrgn_tests" / "empiar_10076_7.cs")
    uid = file.records["uid"]
    more = np.zeros(9, dtype=[("uid", "<u8"), ("location/center_x_frac", "<f4"), ("ctf/df1_A", "<f4")])
    more["uid"] = [1, *uid[::-1], 2]
    more["location/center_x_frac"] = np.arange(9)
    write_cs(tmp_path / "passthrough.cs", more)
    joined = file.joined(tmp_path / "passthrough.cs")
    assert joined.records["location/center_x_frac"].tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert np.array_equal(joined.records["ctf/df1_A"], file.records["ctf/df1_A"])
    write_cs(tmp_path / "passthrough.cs", more[:5])
    with pytest.raises(InputMismatch, match="lacks particles"):
        file.joined(tmp_path / "passthrough.cs")


def test_what_a_cs_lacks_is_read_from_the_passthrough_file_beside_it(shared_data: Path, tmp_path: Path) -> None:
    whole = CsFile.read(shared_data / "particles" / "cryodrgn_tests" / "empiar_10076_7.cs").records
    own = ["uid", *(name for name in whole.dtype.names if name.startswith("alignments3D/"))]
    passed = ["uid", *(name for name in whole.dtype.names if name not in own)]
    write_cs(tmp_path / "particles.cs", whole[own])
    with pytest.raises(UnreadableFile, match="lacks uid, blob/path"):
        CsFile.read(tmp_path / "particles.cs")
    write_cs(tmp_path / "passthrough_particles.cs", whole[passed][::-1])
    read = CsFile.read(tmp_path / "particles.cs").records
    assert set(read.dtype.names) == set(whole.dtype.names)
    for name in whole.dtype.names:
        assert np.array_equal(read[name], whole[name]), name


def test_a_star_made_anew_has_a_group_for_each_optics(tmp_path: Path) -> None:
    row = [64, 2.0, 15000, 14000, 30, 300, 2.7, 0.1, 90]
    ctf = np.array([row, row, row], dtype=float)
    ctf[1, 5] = 200
    file = new_star_file(tmp_path / "a.mrcs", np.array(["/a.mrcs"] * 3), np.arange(3), 32, ctf)
    optics = file.blocks["optics"]
    assert optics.floats("rlnVoltage").tolist() == [200, 300]
    assert file.blocks["particles"].column("rlnOpticsGroup").tolist() == ["2", "1", "2"]
    # The table was made for a box of 64 px.
    assert optics.floats("rlnImagePixelSize").tolist() == [4, 4]
    with pytest.raises(InputMismatch, match="describes 3 images but .* holds 2"):
        new_star_file(tmp_path / "a.mrcs", np.array(["/a.mrcs"] * 2), np.arange(2), 32, ctf)


def test_values_that_look_like_syntax_come_back(tmp_path: Path) -> None:
    values = ["[0.1,-0.2,0]", "", "a b", "1@a#b.mrcs", "#1", "it's", "?", ".", "_x", "data_y", "loop_"]
    write_star(tmp_path / "a.star", {"particles": StarTable({"rlnImageName": np.array(values)})})
    assert read_star(tmp_path / "a.star")["particles"].column("rlnImageName").tolist() == values
    assert "\n[0.1,-0.2,0]\n" in (tmp_path / "a.star").read_text(), "as RELION writes lists"


def test_findings_are_compared() -> None:
    findings = ImageFindings(
        np.arange(2), np.tile(np.eye(3), (2, 1, 1)), np.zeros((2, 2)), np.zeros(2, int), np.ones(2), np.zeros(2, int)
    )
    assert findings.differences(findings) == ()
    moved = ImageFindings(findings.row, findings.rotation, findings.shift_fraction + 1e-4, findings.class_index,
                          findings.class_probability, findings.half)  # fmt: skip
    assert findings.differences(moved) == ("shift_fraction",)
    assert findings.differences(findings[np.array([0])]) == ("2 images instead of 1",)
