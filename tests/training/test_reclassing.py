"""Classes merged, dropped and split into the start of a new run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from cryohydra.cli.main import USER_ERROR, main
from cryohydra.config.files import read_configs
from cryohydra.errors import UserError
from cryohydra.fourier.alignment import Alignment, align_map, apply_alignment
from cryohydra.geometry.rotations import geodesic_angle, random_rotations
from cryohydra.io.latents import read_latents
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import load_checkpoint
from cryohydra.physics.pose import Pose, follow_map
from cryohydra.training.reclassing import Origin, plan_classes, reclass

KNOWN = {"refine_gt_poses": True, "n_classes": 3}
SMALL = [
    "hypervolume_dim=16", "hypervolume_layers=1", "pe_dim=8", "epochs_sgd=1", "seed=0", "log_heavy_interval=0",
    "n_imgs_pose_search=300", "t_extent=1",
]  # fmt: skip


def test_each_old_class_is_somewhere_or_dropped() -> None:
    assert plan_classes(5, [[4, 1]], [3], [0]) == (
        Origin((0,), 0), Origin((0,), 1), Origin((4, 1)), Origin((2,)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("merge", "drop", "split", "message"),
    [
        ([], [3], [], "no class 3; classes are 0 to 2"),
        ([[0, 1]], [1], [], "Class 1 is named more than once"),
        ([], [], [], "Nothing is to be changed"),
        ([[1]], [], [], "name two classes or more"),
        ([], [0, 1, 2], [], "keep at least one"),
    ],
)
def test_what_makes_no_sense_is_told(merge, drop, split, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_classes(3, merge, drop, split)


def test_merged_particles_take_the_pose_of_their_likeliest_class(prepare, tmp_path: Path, monkeypatch) -> None:
    old = prepare(tmp_path / "old", **KNOWN)[0]
    old.run()
    state = old.state
    # Class 2 becomes class 0 elsewhere and of the other hand, and holds half of its particles.
    generator = torch.Generator().manual_seed(1)
    away = Alignment(random_rotations(1, generator)[0], torch.tensor([0.5, -0.3, 0.2]), True, 0.0)
    maps = {k: state.class_map(k) for k in range(3)}
    maps[2] = apply_alignment(maps[0], away)
    monkeypatch.setattr(state, "class_map", maps.__getitem__)
    true = Pose(state.poses.rotation[:, :, :1].clone(), state.poses.shift_px[:, :, :1].clone())
    moved = follow_map(true, away)
    state.poses.rotation[:, :, 2], state.poses.shift_px[:, :, 2] = moved.rotation[:, :, 0], moved.shift_px[:, :, 0]
    is_in_two = torch.arange(len(state)) % 2 == 1
    state.poses.rotation[is_in_two, :, 0] = torch.eye(3)
    state.classes.log_evidence[:] = 0
    state.classes.log_evidence[is_in_two, 2], state.classes.log_evidence[~is_in_two, 0] = 9, 9
    state.classes.log_weight[:] = torch.tensor([0.5, 0.2, 0.3]).log()
    new = prepare(tmp_path / "new", **{**KNOWN, "n_classes": 2})[0].state
    reclass(state, new, plan_classes(3, [[0, 2]], [], []))
    assert new.maps is not None and torch.equal(new.maps.values[1], state.maps.values[1])
    assert align_map(maps[2], maps[0]).is_mirrored
    # A map of 16 px is aligned to a few degrees.
    assert float(geodesic_angle(new.poses.rotation[:, :, :1], true.rotation).rad2deg().max()) < 5
    assert float((new.poses.shift_px[:, :, :1] - true.shift_px).abs().max()) < 0.5


@pytest.fixture(params=["refine", "abinit"])
def trained(request: pytest.FixtureRequest, prepare, tiny_folder: Path, tmp_path: Path) -> Path:
    """A run of three classes, trained."""
    words = ["setup", str(tmp_path / "run"), "--particles", str(tiny_folder / "particles.star"), "--pose-estimation"]
    assert main([*words, request.param, "--cfgs", "n_classes=3", *SMALL]) == 0
    assert main(["train", str(tmp_path / "run"), "--no-analysis"]) == 0
    return tmp_path / "run"


def test_a_new_run_starts_from_the_classes_that_are_left(trained: Path, tmp_path: Path, capsys) -> None:
    old = RunFolder(trained)
    before = {file: file.read_bytes() for file in old.results.rglob("*.*") if file.is_file()}
    largest = str(read_latents(old.latents_path(old.latest_epoch())).class_probability.sum(0).argmax())
    others = [k for k in "012" if k != largest]
    words = ["reclass", str(trained), "-o", str(tmp_path / "new"), "--split", largest]
    assert main([*words, "--merge", ",".join(others)]) == 0
    said = capsys.readouterr().out
    assert f"class {largest}, second half" in said and f"class {others[0]} and {others[1]} of" in said
    assert {file: file.read_bytes() for file in before} == before
    settings = read_configs(tmp_path / "new" / "configs.yaml").settings
    assert settings.n_classes == 3 and settings.load == tmp_path / "new" / "start.pkl"
    values = load_checkpoint(settings.load).extra["training"]["maps"][0]
    kept = load_checkpoint(old.weights_path(old.latest_epoch())).extra["training"]["maps"][0]
    halves = [k for k in range(3) if not any(torch.equal(values[k], was) for was in kept)]
    assert len(halves) == 2
    # The two halves lie on opposite sides of the whole.
    sides = [values[k] - kept[int(largest)] for k in halves]
    assert float((sides[0] * sides[1]).sum()) < 0
    assert main(["train", str(tmp_path / "new"), "--no-analysis"]) == 0
    # Ab initio is over: maps are known.
    first = json.loads(RunFolder(tmp_path / "new").metrics_path.read_text().splitlines()[0])
    assert first["stage"] in {"search", "classes at known poses"}
    assert main([*words]) == USER_ERROR
    assert "is not empty" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "new")
    assert main(["reclass", str(trained), "-o", str(tmp_path / "new"), "--merge", "0,x"]) == USER_ERROR
    assert "write class numbers" in capsys.readouterr().err
