"""`drgnai check`: a verdict, a page, a report, a picture, and a command that works."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from cryohydra.cli.main import main
from cryohydra.config.recommendation import setup_command

CANNOT = 1


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures go to the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def checked(*words: str) -> tuple[int, dict]:
    """The exit status and the report, without the cost."""
    code = main(["check", *words, "--no-cost", "--json", "check.json"])
    return code, json.loads(Path("check.json").read_text())


def test_a_good_set_gets_a_page_a_picture_and_a_command_that_works(
    particle_files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(particle_files.particles), "--ctf", str(particle_files.ctf), "-c", "n_classes=2", "seed=3"]
    code, found = checked(*words)
    page = capsys.readouterr().out
    assert code == 0 and found["can_be_trained_on"] and found["num_images"] == found["num_images_found"] == 12
    assert "can be trained on" in page and found["setup_command"] in page
    assert Path("p.check.png").read_bytes().startswith(b"\x89PNG")
    command = shlex.split(found["setup_command"].replace("OUT", str(tmp_path / "run")))
    assert main(command[1:]) == 0
    written = yaml.safe_load((tmp_path / "run" / "configs.yaml").read_text())
    assert written["n_classes"] == 2 and written["seed"] == 3


def test_what_cannot_be_trained_on_has_status_one_and_no_command(
    particle_files, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = checked(str(particle_files.particles))
    assert code == CANNOT and not found["can_be_trained_on"] and found["setup_command"] is None
    assert [finding["severity"] for finding in found["findings"]].count("error") == 1
    # Lines are as wide as the terminal, and paths may be long.
    assert "does not tell the CTF" in " ".join(capsys.readouterr().out.split())


def test_settings_that_do_not_go_with_the_images_are_findings(particle_files) -> None:
    flags = [str(particle_files.particles), "--ctf", str(particle_files.ctf)]
    write = particle_files.ctf.with_name("ind.pkl")
    write.write_bytes(b"no pickle")
    code, found = checked(*flags, "-c", f"ind={write}")
    assert code == CANNOT and any("ind.pkl" in finding["sentence"] for finding in found["findings"])


def test_images_that_are_cropped_are_looked_at_cropped(particle_files) -> None:
    flags = [str(particle_files.particles), "--ctf", str(particle_files.ctf)]
    code, found = checked(*flags, "-c", "downsample=8")
    assert code == 0 and found["box_size"] == 8
    code, found = checked(*flags, "-c", "downsample=7")
    assert code == CANNOT and any("cropped in Fourier space to 7" in one["sentence"] for one in found["findings"])


def test_a_command_is_quoted() -> None:
    command = setup_command({"particles": "/a folder/p.star", "lazy": True, "ind": None, "n_classes": 3})
    assert shlex.split(command)[3:] == [
        "--particles", "/a folder/p.star", "--cfgs", "lazy=true", "ind=null", "n_classes=3",
    ]  # fmt: skip


def test_setup_tells_all_problems_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.star").write_text(
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
        "_rlnImagePixelSize\n_rlnCtfDataAreCtfPremultiplied\n1 300000 2.7 10 2 1\n\n"
        "data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnDefocusU\n1@gone.mrcs 1 15000\n"
    )
    assert main(["setup", str(tmp_path / "run"), "--particles", str(tmp_path / "p.star")]) == 2
    said = capsys.readouterr().err
    for wanted in (
        "multiplied by their CTF",
        "gone.mrcs, which is not there",
        "voltage of 300000",
        "amplitude contrast of 10",
    ):
        assert said.count(wanted) == 1
    assert not (tmp_path / "run").exists()


WARP = "tomodrgn_tests/warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
REAL: dict[str, tuple[bool, list[str]]] = {
    "cryodrgn_tests/empiar_10076_7.star": (True, ["dark particles on white"]),
    "cryodrgn_tests/empiar_10076_7.cs": (True, []),
    "cryodrgn_tests/sta_testing_bin8.star": (True, ["220 images, of which"]),
    "cryodrgn_tests/relion5.star": (False, ["toy_images_a.mrcs, which is not there (tried", "beam tilt"]),
    "cryodrgn_tests/cryosparc_J2_particles_exported.cs": (False, ["which is not there (tried"]),
    "cryodrgn_tests/cryosparc_P12_J24_001_particles.cs": (False, ["so it is with 49 more files"]),
    "tomodrgn_tests/10076_classD_32_sim.star": (True, ["has no magnification"]),
    "tomodrgn_tests/10076_classE_32_sim.star": (True, ["has no magnification"]),
    "tomodrgn_tests/10076_both_32_sim.star": (True, ["has no magnification"]),
    f"{WARP}.star": (False, ["multiplied by their CTF", "wanted number@file"]),
    f"{WARP}_optimisation_set.star": (False, ["give the file that it names", "angpix-12.star"]),
    f"{WARP}_tomograms.star": (False, ["no table with a column _rlnImageName"]),
}
"""Verdicts with the folder of the table as datadir, and what is said."""


def test_every_table_of_real_particles_is_in_the_list(shared_data: Path) -> None:
    folder = shared_data / "particles"
    tables = {str(path.relative_to(folder)) for kind in ("star", "cs") for path in folder.glob(f"*/*.{kind}")}
    assert tables == set(REAL)


@pytest.mark.parametrize("table", REAL)
def test_real_particles(table: str, shared_data: Path) -> None:
    path = shared_data / "particles" / table
    is_good, said = REAL[table]
    code, found = checked(str(path), "--datadir", str(path.parent))
    assert (code == 0, found["can_be_trained_on"]) == (is_good, is_good)
    told = " ".join(f"{finding['sentence']} {finding['advice']}" for finding in found["findings"])
    for sentence in said:
        assert sentence.casefold() in told.casefold()
    is_tilts = "_sim" in table or "sta_" in table
    assert (found["tilts"] is not None) == is_tilts
    if is_good:
        assert ("--capture-setup et" in found["setup_command"]) == is_tilts


def test_220_images_for_219_rows(shared_data: Path) -> None:
    folder = shared_data / "particles" / "cryodrgn_tests"
    stack = folder / "ay19102021_L3_position6_ribo_it09_bin8_1.82A.mrcs"
    code, found = checked(str(stack), "--ctf", str(folder / "sta_ctf.pkl"), "--pose", str(folder / "sta_pose.pkl"))
    assert code == CANNOT
    errors = [finding["sentence"] for finding in found["findings"] if finding["severity"] == "error"]
    assert len(errors) == 2
    assert all("describes 219 images but" in error and "holds 220" in error for error in errors)


def test_images_of_another_folder_are_not_found_and_the_places_are_named(shared_data: Path) -> None:
    table = shared_data / "particles" / "tomodrgn_tests" / "10076_classD_32_sim.star"
    code, found = checked(str(table))
    assert code == CANNOT
    assert f"tried {table.parent / 'data' / '10076_classD_32_sim.mrcs'}" in found["findings"][0]["sentence"]
