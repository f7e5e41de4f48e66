"""`drgnai setup`: what is asked is written, bad input writes nothing, flags are never ignored in silence."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from cryohydra.cli.arguments import parse_assignments
from cryohydra.cli.main import main
from cryohydra.config.files import read_configs
from cryohydra.errors import UserError
from cryohydra.io.ctf_file import write_ctf_file


def configs(out: Path) -> dict[str, object]:
    """What the file sets."""
    return yaml.safe_load((out / "configs.yaml").read_text())


def test_first_setup_writes_what_was_asked(tmp_path: Path, particle_files) -> None:
    out = tmp_path / "run"
    assert (
        main(["setup", str(out), *particle_files.flags, "--reconstr", "het", "--cfgs", "n_classes=3", "lr=1e-3"]) == 0
    )
    assert configs(out) == {
        "quick_config": {
            "capture_setup": "spa",
            "reconstruction_type": "het",
            "pose_estimation": "abinit",
            "conf_estimation": "autodecoder",
        },
        "particles": str(particle_files.particles),
        "ctf": str(particle_files.ctf),
        "n_classes": 3,
        "lr": "1e-3",
    }
    assert read_configs(out / "configs.yaml").settings.lr == 1e-3
    assert (out / "out").is_dir()


def test_without_a_word_classes_are_rigid(tmp_path: Path, particle_files) -> None:
    out = tmp_path / "run"
    assert main(["setup", str(out), *particle_files.flags]) == 0
    assert read_configs(out / "configs.yaml").settings.z_dim == 0


@pytest.mark.parametrize("flags", [["--conf", "encoder"], ["--cfgs", "z_dim=2"]])
def test_asking_for_conformations_asks_for_motion(tmp_path: Path, particle_files, flags: list[str]) -> None:
    out = tmp_path / "run"
    assert main(["setup", str(out), *particle_files.flags, *flags]) == 0
    assert read_configs(out / "configs.yaml").settings.conf_estimation == (
        "encoder" if "encoder" in flags else "autodecoder"
    )


def test_second_setup_changes_what_is_given_and_says_so(
    tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    main(["setup", str(out), *particle_files.flags, "--cfgs", "n_classes=3", "epochs_sgd=7"])
    before = configs(out)
    capsys.readouterr()
    assert main(["setup", str(out), "-c", "n_classes=4", "-c", "quick_config.engine=published"]) == 0
    said = capsys.readouterr().out
    assert "n_classes: 3 -> 4" in said
    assert "quick_config.engine: not set -> published" in said
    assert "epochs_sgd" not in said
    assert configs(out) == before | {"n_classes": 4, "quick_config": before["quick_config"] | {"engine": "published"}}
    assert yaml.safe_load((out / "configs.yaml.before").read_text()) == before


def test_setup_without_flags_leaves_the_file_alone(tmp_path: Path, particle_files) -> None:
    out = tmp_path / "run"
    main(["setup", str(out), *particle_files.flags])
    (out / "configs.yaml").write_text((out / "configs.yaml").read_text() + "# mine\n")
    before = (out / "configs.yaml").read_bytes()
    assert main(["setup", str(out)]) == 0
    assert (out / "configs.yaml").read_bytes() == before


def test_dataset_of_the_catalogue(tmp_path: Path, particle_files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later runs do not need the catalogue again."""
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(f"toy: {{particles: {particle_files.particles}, ctf: {particle_files.ctf}}}\n")
    monkeypatch.setenv("DRGNAI_DATASETS", str(catalogue))
    out = tmp_path / "run"
    assert main(["setup", str(out), "--dataset", "toy"]) == 0
    monkeypatch.delenv("DRGNAI_DATASETS")
    assert read_configs(out / "configs.yaml").settings.particles == particle_files.particles


def test_bad_input_writes_nothing(tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    short = tmp_path / "short.pkl"
    write_ctf_file(short, np.tile([16, 4.0, 15000.0, 15000.0, 0, 300, 2.7, 0.1, 0], (5, 1)))
    truncated = tmp_path / "cut.mrcs"
    truncated.write_bytes(particle_files.particles.read_bytes()[:3000])
    wrong = {
        "no such file": ["--particles", "nowhere.mrcs", "--ctf", str(particle_files.ctf)],
        "ctf of another length": ["--particles", str(particle_files.particles), "--ctf", str(short)],
        "truncated": ["--particles", str(truncated), "--ctf", str(particle_files.ctf)],
        "no ctf": ["--particles", str(particle_files.particles)],
        "no images": ["--ctf", str(particle_files.ctf)],
        "no poses": [*particle_files.flags, "--pose-estimation", "fixed"],
        "unknown key": [*particle_files.flags, "--cfgs", "n_clases=3"],
        "no value": [*particle_files.flags, "--cfgs", "n_classes"],
        "unknown dataset": ["--dataset", "nothing.yaml"],
    }
    for name, flags in wrong.items():
        assert main(["setup", str(tmp_path / "run"), *flags]) == 2, name
        err = capsys.readouterr().err
        assert err.startswith("drgnai: "), name
        assert "Traceback" not in err, name
        assert not (tmp_path / "run").exists(), name


def test_bad_change_leaves_the_experiment_as_it_was(tmp_path: Path, particle_files) -> None:
    out = tmp_path / "run"
    main(["setup", str(out), *particle_files.flags])
    before = (out / "configs.yaml").read_bytes()
    assert main(["setup", str(out), "--cfgs", "z_dim=-1"]) == 2
    assert (out / "configs.yaml").read_bytes() == before
    assert sorted(entry.name for entry in out.iterdir()) == ["configs.yaml", "out"]


def test_known_poses_are_opened(tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*particle_files.flags, "--pose", str(particle_files.pose), "--pose-estimation", "refine"]
    assert main(["setup", str(tmp_path / "run"), *flags]) == 0
    assert "given poses: with shifts" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["empiar_10076_7.star", "empiar_10076_7.cs"])
def test_real_particles(tmp_path: Path, shared_data: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--particles", str(shared_data / "particles" / "cryodrgn_tests" / name)]
    assert main(["setup", str(tmp_path / "run"), *flags, "--cfgs", "n_imgs_pose_search=14", "epochs_sgd=1"]) == 0
    assert "7 particles, 320 x 320 px, 1.31 A/px" in capsys.readouterr().out


def test_assignments() -> None:
    words = ["a=1", "b=text", "c=null", "d=[1, 2]", "quick_config.engine=published", "path=x=y"]
    assert parse_assignments(words) == {
        "a": 1,
        "b": "text",
        "c": None,
        "d": [1, 2],
        "quick_config": {"engine": "published"},
        "path": "x=y",
    }
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse_assignments(["n_classes"])
