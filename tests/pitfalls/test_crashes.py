"""Combinations that ended the reference with a traceback: B1 to B23 of docs/decisions/pitfalls.md."""

from pathlib import Path

import numpy as np
import pytest

from cryohydra.cli.main import main
from cryohydra.config.reading import read_settings
from cryohydra.io.pickles import read_pickle, write_pickle
from cryohydra.io.pose_file import read_pose_file, write_pose_file

HET = ("--reconstr", "het")
FIXED = ("--pose-estimation", "fixed")
REFINE = ("--pose-estimation", "refine")
ABINIT = ("--pose-estimation", "abinit")


@pytest.mark.parametrize(
    ("quick", "cfgs"),
    [
        pytest.param((*HET, *FIXED, "--conf", "encoder"), ("z_dim=1",), id="B1 encoder, one class"),
        pytest.param(
            (*HET, *FIXED), ("z_dim=1", "n_classes=3", "variational_het=true", "beta_conf=0.1"),
            id="B2 variational, several classes",
        ),
        pytest.param(
            ABINIT, ("use_gt_trans=true", "n_classes=2", "n_imgs_pose_search=1", "n_iter=1"),
            id="B5 known shifts, several classes",
        ),
    ],
)  # fmt: skip
def test_it_trains_and_is_analysed(train, quick: tuple[str, ...], cfgs: tuple[str, ...]) -> None:
    """Also B11: more principal components asked for than there are."""
    run = train(*cfgs, quick=quick)
    flags = ["--pc", "3", "--n-per-pc", "2", "--ksample", "2", "--skip-umap"]
    assert main(["analyze", str(run.path), *flags]) == 0


def test_a_grid_is_analysed(train) -> None:
    """B10: a field without a network."""
    run = train("explicit_volume=true")
    assert main(["analyze", str(run.path)]) == 0
    assert (run.class_analysis_path(run.latest_epoch(), 0) / "vol_000.mrc").exists()


def test_rotations_without_shifts_can_be_refined(train, inputs: dict[str, str], tmp_path: Path) -> None:
    """B16: shifts start at the centre."""
    rotation, _ = read_pose_file(Path(inputs["pose"]))
    write_pose_file(tmp_path / "rotations.pkl", rotation, None)
    inputs["pose"] = str(tmp_path / "rotations.pkl")
    train(quick=REFINE)


def test_conformations_that_come_out_can_go_in(train, inputs: dict[str, str], tmp_path: Path) -> None:
    """B18: one row per particle serves every class; a row per particle and class serves each its own."""
    first = train("z_dim=1", "n_classes=2", quick=(*HET, *FIXED))
    saved = first.conformation_path(first.latest_epoch())
    refine = (*HET, *FIXED, "--conf", "refine")
    train("z_dim=1", "n_classes=2", f"initial_conf={saved}", quick=refine, name="again")
    write_pickle(tmp_path / "each.pkl", np.tile(read_pickle(saved)[:, None], (1, 2, 1)))
    train("z_dim=1", "n_classes=2", f"initial_conf={tmp_path / 'each.pkl'}", quick=refine, name="each")


@pytest.mark.parametrize("poses", ["fixed", "refine"])
def test_tilt_series_of_several_classes(tmp_path: Path, poses: str) -> None:
    """B3, B4."""
    tilts = ["--tilt-angles", "0", "3", "-3", "--n-images", "12", "--box", "32", "--apix", "14"]
    assert main(["simulate", str(tmp_path / "mix"), "--demo", "tric", *tilts]) == 0
    small = ["hypervolume_dim=8", "hypervolume_layers=1", "pe_dim=4", "epochs_sgd=1", "seed=0", "pose_only_phase=0"]
    words = [
        "--particles",
        str(tmp_path / "mix" / "particles.star"),
        "--capture-setup",
        "et",
        "--pose-estimation",
        poses,
    ]
    cfgs = [*small, "n_tilts=3", "n_classes=2", "l_start=4", "l_end=6", "max_freq=6"]
    out = tmp_path / "run"
    assert main(["setup", str(out), *words, "--cfgs", *cfgs]) == 0
    assert main(["train", str(out)]) == 0


def test_a_dataset_file_may_hold_numbers(tmp_path: Path, inputs: dict[str, str]) -> None:
    """B22."""
    text = f"particles: {inputs['particles']}\nctf: {inputs['ctf']}\ndose_per_tilt: 2.9\nangle_per_tilt: 3\n"
    (tmp_path / "set.yaml").write_text(text)
    assert main(["setup", str(tmp_path / "run"), "--dataset", str(tmp_path / "set.yaml")]) == 0


def test_keys_that_nothing_listens_to_are_named() -> None:
    """B15 and others: accepted, and said once."""
    given = {"verbose_time": True, "shuffle": False, "t_n_grid": 9, "tilt_axis_angle": 5.0}
    notes = read_settings(given).notes
    assert all(sum(key in note for note in notes) == 1 for key in given)
    assert read_settings({"t_n_grid": 7}).notes == ()
