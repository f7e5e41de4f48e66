"""configs.yaml, train-configs.yaml and the catalogue of datasets."""

from pathlib import Path

import pytest
import yaml

from cryohydra.config.catalogue import find_dataset
from cryohydra.config.files import read_configs, read_values, write_configs, write_train_configs
from cryohydra.config.paths import check_files_exist
from cryohydra.config.reading import read_settings
from cryohydra.config.settings import KEYS
from cryohydra.errors import UnknownSetting, UnreadableFile, UserError

VALUES = {"particles": "/data/p.star", "n_classes": 3, "lr": 1e-5, "quick_config": {"reconstruction_type": "homo"}}


def test_configs_hold_what_was_asked_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "configs.yaml"
    write_configs(path, VALUES)
    assert yaml.safe_load(path.read_text()) == VALUES


def test_configs_show_every_key_with_its_explanation(tmp_path: Path) -> None:
    path = tmp_path / "configs.yaml"
    write_configs(path, VALUES)
    lines = path.read_text().splitlines()
    for key in KEYS:
        (place,) = [i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{key}:")]
        assert lines[place - 1].startswith("# ")


def test_commented_lines_say_what_is_in_force(tmp_path: Path) -> None:
    """Taking all the marks away changes nothing."""
    path = tmp_path / "configs.yaml"
    write_configs(path, VALUES)
    keys = tuple(f"# {key}:" for key in KEYS)
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith(keys) else line for line in path.read_text().splitlines()
    )
    assert read_settings(yaml.safe_load(uncommented)).settings == read_settings(VALUES).settings


def test_train_configs_say_all_and_can_be_run_again(tmp_path: Path) -> None:
    path = tmp_path / "train-configs.yaml"
    settings = read_settings(VALUES | {"seed": 5}).settings
    write_train_configs(path, settings)
    record = yaml.safe_load(path.read_text())
    assert set(record) == set(KEYS) | {"versions"}
    assert record["versions"]["torch"]
    assert read_configs(path).settings == settings


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "just words", "a: b: c"])
def test_damaged_configs_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "configs.yaml"
    path.write_text(text)
    with pytest.raises(UnreadableFile, match=r"configs\.yaml"):
        read_configs(path)


def test_missing_configs_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="drgnai setup"):
        read_configs(tmp_path / "configs.yaml")


def test_relative_paths_count_from_here_then_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, run = tmp_path / "here", tmp_path / "run"
    here.mkdir()
    run.mkdir()
    (here / "both.mrcs").touch()
    (run / "both.mrcs").touch()
    (run / "one.pkl").touch()
    (run / "configs.yaml").write_text("particles: both.mrcs\nctf: one.pkl\nind: 5\n")
    monkeypatch.chdir(here)
    values = read_values(run / "configs.yaml")
    assert (values["particles"], values["ctf"], values["ind"]) == (here / "both.mrcs", run / "one.pkl", 5)


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    settings = read_settings({"particles": tmp_path / "a.mrcs", "ctf": tmp_path / "b.pkl"}).settings
    with pytest.raises(UnreadableFile, match=r"(?s)a\.mrcs.*b\.pkl"):
        check_files_exist(settings)


class TestDatasets:
    @pytest.fixture(autouse=True)
    def catalogue(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "catalogue.yaml"
        path.write_text("hand: {particles: hand.mrcs, ctf: ctf.pkl, dose_per_tilt: 2.5}\nodd: {particels: x}\n")
        (tmp_path / "hand.mrcs").touch()
        monkeypatch.setenv("DRGNAI_DATASETS", str(path))
        return tmp_path

    def test_label(self, catalogue: Path) -> None:
        found = find_dataset("hand")
        assert found["particles"] == catalogue / "hand.mrcs"
        assert found["dose_per_tilt"] == 2.5

    def test_unknown_label_and_key(self) -> None:
        with pytest.raises(UnknownSetting, match="Did you mean 'hand'"):
            find_dataset("hands")
        with pytest.raises(UnknownSetting, match="particels"):
            find_dataset("odd")

    def test_without_catalogue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DRGNAI_DATASETS")
        with pytest.raises(UserError, match="DRGNAI_DATASETS"):
            find_dataset("hand")

    def test_file_of_one_dataset(self, catalogue: Path) -> None:
        """Paths count from its folder; so do those written as if the file were a folder."""
        path = catalogue / "one.yaml"
        path.write_text("particles: hand.mrcs\nctf: ../hand.mrcs\n")
        found = find_dataset(str(path))
        assert [Path(found[key]).resolve() for key in ("particles", "ctf")] == [catalogue / "hand.mrcs"] * 2

    def test_configs_may_name_a_dataset(self, catalogue: Path) -> None:
        path = catalogue / "configs.yaml"
        path.write_text("dataset: hand\nctf: null\n")
        settings = read_configs(path).settings
        assert settings.particles == catalogue / "hand.mrcs"
        assert settings.dose_per_tilt == 2.5
