"""The whole way, as a new user goes it."""

import json
from pathlib import Path

import mrcfile
import pytest

from cryohydra.cli.demonstration import DEMO, INSTALLATION_TEST, QUICK_DEMO, Demonstration, simulate
from cryohydra.cli.main import main
from cryohydra.cli.progress import Progress
from cryohydra.config.files import read_configs
from cryohydra.config.reading import read_settings
from cryohydra.data.simulated import read_truth


@pytest.mark.slow
def test_quick_demo_finds_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", str(out), "--quick", "--seed", "0"]) == 0
    score = json.loads((out / "score.json").read_text())
    assert score["adjusted_rand_index"] >= 0.9
    # TRiC looks nearly the same in sixteen poses, and at this resolution its mirror image does too.
    pose_errors = {c["name"]: c["pose_error_degrees"] for c in score["classes"]}
    assert max(pose_errors["ribosome"], pose_errors["spliceosome"]) < 10
    (report,) = out.glob("out/analysis_*/report.html")
    assert str(report) in capsys.readouterr().out
    assert "Half maps of each class" in report.read_text(), "the report has FSC curves"
    maps = list(out.glob("out/reconstruct.epoch_*.class_*.mrc"))
    assert {path.stem.rpartition("_")[2] for path in maps} == {"0", "1", "2"}
    assert all(mrcfile.validate(path) for path in maps)


@pytest.mark.slow
def test_installation_test_reconstructs_something(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test"]) == 0
    assert "Installation was successful!" in capsys.readouterr().out


@pytest.mark.parametrize("demonstration", [DEMO, QUICK_DEMO, INSTALLATION_TEST])
def test_demonstrations_ask_for_what_exists(demonstration: Demonstration) -> None:
    settings = read_settings(demonstration.settings).settings
    assert (settings.z_dim > 0) == (demonstration.num_frames > 1)


def test_simulated_images_are_those_asked_for(tmp_path: Path) -> None:
    small = Demonstration(("tric", "spliceosome"), 20, 16, 28.0, snr=1.0, wanted_agreement=0.0)
    simulate(tmp_path, small, 3, Progress())
    truth = read_truth(tmp_path)
    assert truth.class_names == small.classes
    assert (len(truth.labels), truth.box_size, truth.snr) == (20, 16, 1.0)
    assert main(["setup", str(tmp_path / "run"), "--particles", str(tmp_path / "particles.star")]) == 0
    assert read_configs(tmp_path / "run" / "configs.yaml").settings.particles == tmp_path / "particles.star"


def test_demo_wants_a_new_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").touch()
    assert main(["demo", str(tmp_path), "--quick"]) == 2
    assert "new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
