"""What TensorBoard shows: pose errors are those after alignment, and every class has its figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cryohydra.cli.main import main
from cryohydra.geometry.rotations import geodesic_angle, random_rotations, rotation_vector_to_matrix
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_stack
from cryohydra.io.pickles import write_pickle
from cryohydra.io.pose_file import write_pose_file
from cryohydra.physics.pose import Pose
from cryohydra.training.pose_errors import pose_errors


def as_pose(rotation: torch.Tensor, shift_px: torch.Tensor) -> Pose:
    return Pose(rotation[:, None, None], shift_px[:, None, None])


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_frame_a_hand_and_an_offset_are_no_errors(is_mirrored: bool, generator: torch.Generator) -> None:
    """What images do not determine is not held against a class."""
    given, frame = random_rotations(50, generator), random_rotations(1, generator)
    own = given @ frame
    if is_mirrored:
        own = torch.diag(torch.tensor([-1.0, -1.0, 1.0])) @ own
    offset = torch.tensor([3.0, -2.0, 1.0])
    errors = pose_errors(as_pose(own, (own @ offset)[:, :2]), as_pose(given, torch.zeros(50, 2)))
    assert errors.angle_degrees.max() < 0.2  # arccos near one, in float32
    assert errors.out_of_plane_degrees.max() < 0.2
    assert errors.shift_px.max() < 1e-4
    assert errors.aligned.shift_px.abs().max() < 1e-4
    assert float(geodesic_angle(errors.aligned.rotation[:, 0, 0], given).max()) < 0.01


def test_a_turn_of_each_particle_is_its_error(generator: torch.Generator) -> None:
    given = random_rotations(200, generator)
    axis = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=-1)
    turn = rotation_vector_to_matrix(axis * np.deg2rad(5.0))
    moved = torch.randn(200, 2, generator=generator)
    errors = pose_errors(as_pose(given @ turn, moved), as_pose(given, torch.zeros(200, 2)))
    # The best frame of those that particles propose is itself off by up to the same turn.
    assert 3 < errors.angle_degrees.median() < 10
    assert (errors.out_of_plane_degrees <= errors.angle_degrees + 0.1).all()  # float32
    assert float(errors.shift_px.mean()) == pytest.approx(float(moved.norm(dim=-1).mean()), rel=0.05)


def _trained(tmp_path: Path, *more: str) -> EventAccumulator:
    """The board of a small training of noise with given poses and labels."""
    num_images, box_size = 24, 16
    random = np.random.default_rng(0)
    write_stack(tmp_path / "p.mrcs", random.standard_normal((num_images, box_size, box_size)).astype(np.float32), 4.0)
    row = [box_size, 4.0, 15000.0, 15000.0, 0, 300, 2.7, 0.1, 0]
    write_ctf_file(tmp_path / "ctf.pkl", np.tile(row, (num_images, 1)))
    rotation = random_rotations(num_images, torch.Generator().manual_seed(0)).double().numpy()
    write_pose_file(tmp_path / "pose.pkl", rotation, np.zeros((num_images, 2)))
    write_pickle(tmp_path / "labels.pkl", np.arange(num_images) % 3)
    files = {key: str(tmp_path / f"{key}.pkl") for key in ("ctf", "pose")}
    small = ["hypervolume_dim=8", "hypervolume_layers=1", "pe_dim=4", "epochs_sgd=1", "seed=0", "n_classes=3"]
    flags = [
        "--particles",
        str(tmp_path / "p.mrcs"),
        *(word for key, path in files.items() for word in (f"--{key}", path)),
    ]
    more = [*small, "z_dim=2", f"labels={tmp_path / 'labels.pkl'}", "color_palette=rainbow", *more]
    out = tmp_path / "run"
    assert main(["setup", str(out), *flags, "--reconstr", "het", "--pose-estimation", "refine", "--cfgs", *more]) == 0
    assert main(["train", str(out), "--no-analysis"]) == 0
    board = EventAccumulator(str(out / "out" / "summaries"))
    board.Reload()
    return board


def test_a_training_leaves_figures_of_every_class(tmp_path: Path) -> None:
    tags = _trained(tmp_path).Tags()
    assert {"Data Loss", "Mask Radius"} <= set(tags["scalars"])
    assert {"Ratio per Class", "Posterior over Classes"} <= set(tags["images"])
    for kind in (
        "Image",
        "Euler Angles",
        "Translation",
        "Out-of-Plane Distribution",
        "Conformation - PCA",
        "Colored PCA",
        "PCA by Order",
    ):
        assert any(tag.startswith(f"{kind}/Class") for tag in tags["images"]), kind
    assert any(tag.startswith("Rotation Error Median/Class") for tag in tags["scalars"])
    assert any(tag.startswith("Rotation Error/Class") for tag in tags["histograms"])


def test_what_is_added_to_the_loss_has_curves_of_its_own(tmp_path: Path) -> None:
    regularisers = ["trans_l1_regularizer=0.1", "l2_smoothness_regularizer=0.1", "variational_het=true"]
    board = _trained(tmp_path, *regularisers, "beta_conf=0.1", "epochs_sgd=2")
    for name in ("KL Div. Conf.", "L1 Reg. Trans.", "L2 Smoothness Loss"):
        assert any(point.value > 0 for point in board.Scalars(name)), name


def test_no_figures_are_drawn_where_none_are_asked_for(tmp_path: Path) -> None:
    tags = _trained(tmp_path, "log_heavy_interval=0").Tags()
    assert "Data Loss" in tags["scalars"]
    assert not tags["images"] and not tags["histograms"]
