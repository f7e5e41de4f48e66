"""A run against the truth: a perfect one in another frame, and broken ones."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from cryohydra.analysis.truth import read_truth, score_run
from cryohydra.cli.main import main
from cryohydra.data.simulated import simulate_to_folder, write_truth
from cryohydra.errors import InputMismatch, UserError
from cryohydra.fourier.alignment import Alignment, apply_alignment
from cryohydra.geometry.rotations import random_rotations, rotation_vector_to_matrix
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.mrc import write_map
from cryohydra.io.run_folder import RunFolder
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
NUM_IMAGES = 90


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    classes = [
        demo_class("ribosome", 32, 14.0, num_frames=5),
        demo_class("spliceosome", 32, 14.0),
        demo_class("large_subunit", 32, 14.0),
    ]
    simulate_to_folder(folder, classes, Imaging(14.0, snr=0.5, shift_std_px=1.0), NUM_IMAGES, seed=3)
    return folder


@pytest.fixture(scope="module")
def perfect(data):
    """Latents and maps that are right but for class numbers, frames, hand and place, which images leave open."""
    truth = read_truth(data)
    generator = torch.Generator().manual_seed(8)
    run_class = np.array([2, 0, 3])  # class 1 of the run stays empty
    rotation, shift = torch.from_numpy(truth.rotation).clone(), torch.from_numpy(truth.shift_px).clone()
    maps = {1: np.zeros((32, 32, 32), dtype=np.float32)}
    for k in range(3):
        # The run's map is the true one at f @ frame, shifted: its poses R' have R = R' @ frame.
        frame, offset = random_rotations(1, generator)[0], torch.randn(3, generator=generator)
        is_mirrored = k == 1
        alignment = Alignment(frame, offset, is_mirrored, 0.0)
        maps[int(run_class[k])] = apply_alignment(torch.from_numpy(truth.maps[k]), alignment).numpy()
        rows = torch.from_numpy(truth.labels == k)
        own = rotation[rows] @ frame.T
        rotation[rows] = HALF_TURN @ own if is_mirrored else own
        # A map that lies at the offset would show particles there: they are said to be elsewhere.
        shift[rows] -= (rotation[rows] @ offset)[..., :2]
    probability = np.full((NUM_IMAGES, 4), 0.01)
    probability[np.arange(NUM_IMAGES), run_class[truth.labels]] = 0.97
    latents = Latents(
        rotation=rotation.double().numpy(), shift_px=shift.double().numpy(), class_probability=probability,
        conformation=np.stack([np.zeros(NUM_IMAGES), truth.coordinate.astype(float) ** 3], axis=1),
        conformation_std=np.zeros((NUM_IMAGES, 0)), log_evidence=np.zeros(NUM_IMAGES),
        particle_index=np.arange(NUM_IMAGES),
    )  # fmt: skip
    return latents, maps


def write_run(path, latents, maps, epoch=4):
    run = RunFolder(path)
    run.results.mkdir(parents=True)
    run.weights_path(epoch).write_bytes(b"")
    write_latents(run.latents_path(epoch), latents)
    for k, map_zyx in maps.items():
        write_map(run.map_path(epoch, k), map_zyx, 14.0)


@pytest.fixture(scope="module")
def perfect_run(perfect, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    write_run(path, *perfect)
    return path


@pytest.fixture(scope="module")
def score(perfect_run, data):
    return score_run(perfect_run, read_truth(data))


def test_a_perfect_run_is_perfect_in_any_frame(score):
    assert score.epoch == 4
    assert score.adjusted_rand_index == 1.0 and score.matched_accuracy == 1.0
    assert [one.run_class for one in score.classes] == [2, 0, 3]
    for one in score.classes:
        # Poses and shifts were moved together with the map; float32 and interpolation are what is left.
        assert one.pose_error_degrees == pytest.approx(0.0, abs=0.1)
        assert one.shift_error_px == pytest.approx(0.0, abs=0.02)
        assert one.crossing_shell > 14
        assert one.map_correlation > 0.98
    assert [one.is_mirrored for one in score.classes] == [False, True, False]
    assert score.failures == ("Class 1 of the run is empty.",)


def test_images_of_noise_alone_count_for_nothing_but_how_many_are_told(data, perfect, tmp_path):
    """A third of the images, in any class and pose; three are not told, and one particle is taken for noise."""
    is_junk = np.arange(NUM_IMAGES) % 3 == 0
    truth = dataclasses.replace(read_truth(data), contrast=np.where(is_junk, 0.0, 1.0))
    latents, maps = perfect
    evidence = np.where(is_junk, -9.0, 30.0)
    evidence[[0, 3, 6]], evidence[1] = 30.0, -9.0
    probability = np.where(is_junk[:, None], [0.97, 0.01, 0.01, 0.01], latents.class_probability)
    write_run(tmp_path, dataclasses.replace(latents, log_evidence=evidence, class_probability=probability), maps)
    score = score_run(tmp_path, truth)
    assert score.adjusted_rand_index == 1.0 and score.num_particles == 60
    assert sum(one.num_particles for one in score.classes) == sum(one.num_found for one in score.classes) == 60
    assert (score.num_junk, score.num_junk_told, score.num_called_junk) == (30, 27, 1)
    assert "noise alone: 27 of 30 images are told; 1 particles are taken for it." in score.to_table()


def test_motion_and_calibration(score):
    assert score.classes[0].motion_correlation == pytest.approx(1.0)
    assert score.classes[1].motion_correlation is None
    # 97 % is stated, and 98 % where the empty class was counted in; all are right.
    assert 0.02 < score.calibration.expected_error < 0.03


def test_score_as_json_and_table(score):
    content = json.loads(score.to_json())
    assert content["adjusted_rand_index"] == 1.0
    assert len(content["classes"][0]["fsc"]) == 17
    table = score.to_table()
    assert "adjusted Rand index 1.000" in table and "spliceosome" in table and "Class 1 of the run is empty." in table


def test_the_verb_prints_it(perfect_run, data, score, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cryohydra.cli.score.score_run", lambda run, truth, epoch, ceiling: score)
    assert main(["score", str(perfect_run), str(data), "--json", str(tmp_path / "score.json")]) == 0
    assert "matched accuracy 100.0%" in capsys.readouterr().out
    assert json.loads((tmp_path / "score.json").read_text())["epoch"] == 4


def test_a_subset_is_compared_with_its_own_truth(perfect, data, tmp_path):
    latents, maps = perfect
    rows = np.arange(0, NUM_IMAGES, 2)
    parts = {f.name: getattr(latents, f.name)[rows] for f in dataclasses.fields(latents)}
    write_run(tmp_path, Latents(**parts), maps)
    found = score_run(tmp_path, read_truth(data))
    assert found.num_particles == len(rows) and found.adjusted_rand_index == 1.0


def test_lost_poses_and_merged_classes_are_said(perfect, data, tmp_path):
    latents, maps = perfect
    probability = np.zeros_like(latents.class_probability)
    probability[:, 0] = 1.0
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(NUM_IMAGES, generator)[:, None].double().numpy()
    write_run(tmp_path, dataclasses.replace(latents, class_probability=probability, rotation=rotation), maps)
    found = score_run(tmp_path, read_truth(data))
    assert found.adjusted_rand_index == 0.0
    said = " ".join(found.failures)
    assert said.count("was not found") == 2 and said.count("is empty") == 3 and "lost its poses" in said
    assert "but its map" not in said
    assert "none" in found.to_table()


def test_another_set_is_refused(perfect, data, tmp_path):
    latents, maps = perfect
    moved = dataclasses.replace(latents, particle_index=latents.particle_index + 10)
    write_run(tmp_path, moved, maps)
    with pytest.raises(InputMismatch, match=f"truth is of {NUM_IMAGES} particles"):
        score_run(tmp_path, read_truth(data))


def test_an_untrained_folder_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="drgnai train"):
        score_run(tmp_path, read_truth(data))


def test_poses_that_only_a_pseudo_symmetry_mixes_up_are_not_lost(perfect, data, tmp_path):
    latents, maps = perfect
    quarters = torch.stack([rotation_vector_to_matrix(torch.tensor([0.0, 0.0, i * math.pi / 2])) for i in range(4)])
    truth = read_truth(data)
    # Each particle of class 2 is turned by a rotation of the group, as low frequencies would allow.
    truth = dataclasses.replace(truth, pseudo_symmetry=(*truth.symmetry[:2], quarters.numpy()))
    rotation = truth.rotation.copy()
    rows = np.flatnonzero(truth.labels == 2)
    rotation[rows] = rotation[rows] @ quarters.numpy()[np.arange(len(rows)) % 4][:, None]
    turned = dataclasses.replace(truth, rotation=rotation)
    write_run(tmp_path, latents, maps)
    score = score_run(tmp_path, turned)
    one = score.classes[2]
    assert one.pseudo_symmetry_order == 4 and score.classes[0].pseudo_symmetry_order is None
    assert one.pseudo_pose_error_degrees == pytest.approx(0.0, abs=0.1)
    assert one.pose_error_degrees > 60
    assert not any("lost its poses" in sentence for sentence in score.failures)
    assert "2 large_subunit: modulo the 4 rotations" in score.to_table()
    said = " ".join(score_run(tmp_path, dataclasses.replace(turned, pseudo_symmetry=turned.symmetry)).failures)
    assert "lost its poses" in said and "but its map correlates" in said


def test_pseudo_symmetry_is_kept_with_the_truth_and_old_truths_have_none(data, tmp_path):
    truth = read_truth(data)
    group = np.stack([np.eye(3), np.diag([-1.0, -1.0, 1.0])]).astype(np.float32)
    write_truth(tmp_path, dataclasses.replace(truth, pseudo_symmetry=(group, *truth.symmetry[1:])))
    assert np.array_equal(read_truth(tmp_path).pseudo_symmetry[0], group)
    with np.load(tmp_path / "truth.npz") as stored:
        older = {name: stored[name] for name in stored.files if not name.startswith("pseudo")}
    np.savez(tmp_path / "truth.npz", **older)
    assert len(read_truth(tmp_path).pseudo_symmetry[0]) == 1
