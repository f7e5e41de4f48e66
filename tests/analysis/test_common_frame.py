"""Classes side by side."""

import json

import numpy as np
import pytest
import torch

from cryohydra.analysis.analyze import analyze
from cryohydra.analysis.classes import compare_maps
from cryohydra.analysis.common_frame import bring_together, poses_in_frame
from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.fourier.alignment import Alignment, apply_alignment
from cryohydra.geometry.rotations import geodesic_angle, random_rotations
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.mrc import read_map, write_map
from cryohydra.io.pose_file import read_pose_file
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.pose import Pose, follow_map


def point(x: float, y: float, z: float) -> torch.Tensor:
    axis = torch.arange(32) - 16
    square = (axis[:, None, None] - z) ** 2 + (axis[:, None] - y) ** 2 + (axis - x) ** 2
    return torch.exp(-square / 4.5)


@pytest.fixture(scope="module")
def two_states() -> tuple[torch.Tensor, torch.Tensor, Alignment]:
    """A complex; the same with something more, turned, shifted and mirrored; and what brings it back."""
    generator = torch.Generator().manual_seed(5)
    first = demo_class("spliceosome", 32, 13.0).maps[0]
    more = first + 1.5 * first.max() * point(9, 5, -5)
    rotation, shift = random_rotations(1, generator)[0], torch.tensor([1.0, -0.5, 1.5])
    moved = apply_alignment(more, Alignment(rotation, shift, True, 0.0))
    # W(f) = conj V(f A) exp(-2 pi i f.s), so V(g) = conj W(g A^T) exp(-2 pi i g.(A^T s)).
    back = Alignment(rotation.T, rotation.T @ shift, True, 0.0)
    return first, moved, back


def test_what_one_class_has_more_is_the_difference(two_states) -> None:
    first, moved, back = two_states
    likeness = compare_maps([first, moved], lambda sentence: None).correlation
    placements = bring_together({0: first, 1: moved}, likeness, 0, 13.0, lambda sentence: None)
    assert [placement.neighbour for placement in placements] == [None, 0]
    laid = placements[1]
    assert laid.alignment.is_mirrored and laid.alignment.correlation > 0.9
    assert float(geodesic_angle(laid.alignment.rotation, back.rotation).rad2deg()) < 2
    z, y, x = np.unravel_index(int(laid.difference.argmax()), laid.difference.shape)
    assert np.linalg.norm([x - 16 - 9, y - 16 - 5, z - 16 + 5]) <= 1.5
    inside = (point(9, 5, -5) > 0.01).float()
    assert float((laid.difference * (1 - inside)).norm() / laid.difference.norm()) < 0.4


def test_poses_follow_their_classes_into_the_frame(two_states) -> None:
    first, moved, back = two_states
    generator = torch.Generator().manual_seed(0)
    true = Pose(random_rotations(8, generator)[:, None, None], torch.randn(8, 1, 1, 2, generator=generator))
    # The mirrored inverse of a mirrored alignment has a shift of the same sign.
    as_found = follow_map(true, Alignment(back.rotation.T, back.rotation.T @ back.shift_px, True, 0.0))
    best = np.array([0, 1] * 4)
    rotation = torch.where(torch.from_numpy(best == 1)[:, None, None, None, None], as_found.rotation, true.rotation)
    shift = torch.where(torch.from_numpy(best == 1)[:, None, None, None], as_found.shift_px, true.shift_px)
    latents = Latents(
        rotation[:, :, 0].numpy(), shift[:, :, 0].numpy(), np.eye(2)[best], np.zeros((8, 0)), np.zeros((8, 0)),
        np.zeros(8), np.arange(8),
    )  # fmt: skip
    likeness = np.array([[1, 0.9], [0.9, 1]])
    placements = bring_together({0: first, 1: moved}, likeness, 0, 13.0, lambda sentence: None)
    found = poses_in_frame(latents, placements)
    assert float(geodesic_angle(found.rotation, true.rotation).rad2deg().max()) < 2
    assert float((found.shift_px - true.shift_px).abs().max()) < 0.5


def test_each_class_is_laid_on_the_one_it_is_most_like() -> None:
    maps = {k: point(float(k), 3.0, -2.0) for k in (0, 2, 3)}
    likeness = np.full((4, 4), np.nan)
    likeness[np.ix_([0, 2, 3], [0, 2, 3])] = [[1, 0.2, 0.8], [0.2, 1, 0.5], [0.8, 0.5, 1]]
    placements = bring_together(maps, likeness, 0, 3.0, lambda sentence: None)
    assert [(p.class_index, p.neighbour) for p in placements] == [(0, None), (2, 3), (3, 0)]


def test_the_analysis_writes_the_frame(make_run) -> None:
    run = make_run([40, 30, 0], 0)
    folder = run.frame_path(3)
    report = analyze(run.path, AnalyzeOptions(skip_umap=True))
    assert sorted(file.name for file in folder.iterdir()) == [
        "class_0.mrc", "class_1.mrc", "class_1_minus_0.mrc", "classes.json", "differences.png", "pose.pkl",
    ]  # fmt: skip
    content = json.loads((folder / "classes.json").read_text())
    assert [found["laid_on"] for found in content["classes"]] == [None, 0]
    assert content["likeness"][2] == [None] * 3 and content["likeness"][0][0] == 1
    assert "one_frame" in report.read_text()
    density, pixel_size = read_map(folder / "class_1.mrc")
    reference, _ = read_map(folder / "class_0.mrc")
    assert pixel_size == pytest.approx(3.5)
    assert np.allclose(read_map(folder / "class_1_minus_0.mrc")[0], density - reference, atol=1e-5)
    rotations, shifts = read_pose_file(folder / "pose.pkl")
    latents = read_latents(run.latents_path(3))
    stays = latents.best_class == 0
    assert shifts is not None and np.allclose(rotations[stays], latents.rotation[stays, 0], atol=1e-6)
    assert not np.allclose(rotations[~stays], latents.rotation[~stays, 0], atol=0.1)


def test_maps_that_the_training_wrote_are_taken(make_run) -> None:
    run = make_run([20, 20], 0)
    for k in range(2):
        write_map(run.map_path(3, k), point(4, 2, k).numpy()[4:28, 4:28, 4:28], 3.5)
    analyze(run.path, AnalyzeOptions(skip_umap=True))
    assert np.array_equal(read_map(run.frame_path(3) / "class_0.mrc")[0], read_map(run.map_path(3, 0))[0])
