"""Classes that start from maps or labels, beside free ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryohydra.cli.main import main
from cryohydra.config.files import read_configs
from cryohydra.data.simulated import read_truth
from cryohydra.errors import UserError
from cryohydra.fourier.lattice import Lattice
from cryohydra.fourier.resampling import resample_map
from cryohydra.io.mrc import write_map
from cryohydra.io.pickles import write_pickle
from cryohydra.training.ab_initio import AbInitio
from cryohydra.training.seeds import Seeds
from cryohydra.training.stage import Stage
from cryohydra.training.state import TrainingState

PIXEL_SIZE, NUM_IMAGES = 27.0, 48


@pytest.fixture
def maps(tiny_folder: Path, tmp_path: Path) -> list[Path]:
    """The true maps as another program may have them: other voxels, another box, other grey values."""
    paths = []
    for k, density in enumerate(read_truth(tiny_folder).maps):
        other = resample_map(torch.from_numpy(density).float(), PIXEL_SIZE, 24, 20.0)
        paths.append(tmp_path / f"seed_{k}.mrc")
        write_map(paths[k], 37 * other.numpy(), 20.0)
    return paths


def carry_out(state: TrainingState, stage: Stage) -> np.ndarray:
    """The stage, to its end; the classes found."""
    stage.begin(state)
    seen = 0
    while seen < stage.max_images and not stage.is_done:
        for index in stage.batches(state):
            stage.step(state, index)
            seen += len(index)
            if stage.is_done:
                break
    stage.end(state, print)
    return state.classes.log_posterior().argmax(1).cpu().numpy()


def ab_initio(prepare: Callable[..., Any], folder: Path, **values: Any) -> tuple[TrainingState, AbInitio, np.ndarray]:
    trainer = prepare(folder / "run", n_imgs_pose_search=8_000, **values)[0]
    stage = trainer.stages[0]
    return trainer.state, stage, carry_out(trainer.state, stage)


def test_free_maps_begin_empty_beside_those_given(prepare, maps: list[Path], tmp_path: Path) -> None:
    trainer = prepare(tmp_path / "run", initial_volumes=[maps[0]])[0]
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    given, free = stage.sampling.maps()
    assert float(given.abs().max()) > 0 and float(free.abs().max()) == 0
    for _ in range(stage.sampling.num_parts + 1):
        stage.step(state, stage.sampling.next_members())
    maps_now = stage.sampling.maps()
    assert bool(maps_now.isfinite().all()) and float(maps_now[1].abs().max()) > 0


@pytest.mark.parametrize("seeded", [0, 1])
def test_one_class_starts_from_a_map_and_the_other_is_found(
    prepare, maps: list[Path], tiny_folder: Path, tmp_path: Path, seeded: int
) -> None:
    state, stage, found = ab_initio(prepare, tmp_path, initial_volumes=[maps[seeded]])
    labels = read_truth(tiny_folder).labels
    assert adjusted_rand_score(labels, found) > 0.9
    # The first class is that of the map.
    assert np.mean(labels[found == 0] == seeded) > 0.9
    held = state.seeds.values[0].flatten()
    assert float(torch.nn.functional.cosine_similarity(state.maps.values[0].flatten(), held, dim=0)) > 0.999


def test_where_every_class_has_a_map_nothing_is_left_to_find_but_the_scale(
    prepare, maps: list[Path], tiny_folder: Path, tmp_path: Path
) -> None:
    state, stage, found = ab_initio(prepare, tmp_path, initial_volumes=maps[::-1])
    assert stage.annealing.num_steps <= 10 * stage.sampling.num_parts
    assert np.mean(found == 1 - read_truth(tiny_folder).labels) > 0.95
    # In the next stage maps move.
    trainer = prepare(tmp_path / "again", initial_volumes=maps[::-1])[0]
    trainer.run()
    assert np.mean(trainer.state.classes.log_posterior().argmax(1).numpy() == found) > 0.9


@pytest.mark.parametrize("seed", [0, 2])
def test_a_map_of_another_power_comes_to_the_images_scale(prepare, maps: list[Path], tmp_path: Path, seed: int) -> None:
    """In a mixture the images' power is that of an average class: the right scale is found as maps climb."""
    state, _, _ = ab_initio(prepare, tmp_path, initial_volumes=maps, seed=seed)
    right = state.maps.values.flatten(1).norm(dim=1)
    trainer = prepare(tmp_path / "again", n_imgs_pose_search=8_000, initial_volumes=maps, seed=seed)[0]
    trainer.state.seeds = Seeds(state.seeds.lattice, 2 * state.seeds.values, state.seeds.has_map, state.seeds.label)
    carry_out(trainer.state, trainer.stages[0])
    again = trainer.state.maps.values.flatten(1).norm(dim=1)
    torch.testing.assert_close(again, right, rtol=0.1, atol=0)
    assert not torch.allclose(2 * state.seeds.values.flatten(1).norm(dim=1), right, rtol=0.5)


@pytest.mark.parametrize("has_poses", [True, False])
def test_labels_of_some_particles_tell_which_class_is_which(
    prepare, tiny_folder: Path, tmp_path: Path, has_poses: bool
) -> None:
    labels = read_truth(tiny_folder).labels
    known = np.where(np.arange(NUM_IMAGES) < NUM_IMAGES // 2, 1 - labels, -1)
    write_pickle(tmp_path / "labels.pkl", known)
    bare = {"particles": tiny_folder / "particles.mrcs", "ctf": tiny_folder / "ctf.pkl", "invert_data": True}
    values = {} if has_poses else bare
    state, _, found = ab_initio(prepare, tmp_path, initial_labels=tmp_path / "labels.pkl", **values)
    assert state.seeds.has_map.tolist() == [has_poses] * 2 and state.seeds.is_seeded.all()
    assert np.mean(found == 1 - labels) > 0.9


def test_given_poses_begin_with_maps_or_labels(prepare, maps: list[Path], tiny_folder: Path, tmp_path: Path) -> None:
    labels = read_truth(tiny_folder).labels
    write_pickle(tmp_path / "labels.pkl", np.where(np.arange(NUM_IMAGES) < 16, 1 - labels, -1))
    for name, values in (
        ("maps", {"initial_volumes": maps[::-1]}),
        ("labels", {"initial_labels": tmp_path / "labels.pkl"}),
    ):
        trainer = prepare(tmp_path / name, use_gt_poses=True, n_classes=2, **values)[0]
        assert np.mean(carry_out(trainer.state, trainer.stages[0]) == 1 - labels) > 0.9


def test_labels_leave_classes_free() -> None:
    label = torch.tensor([2, -1, -1, 0])
    lattice = Lattice(8, 2)
    seeds = Seeds(lattice, torch.zeros(4, *lattice.shape), torch.zeros(4, dtype=torch.bool), label)
    assert seeds.is_seeded.tolist() == [True, False, True, False]
    weight = seeds.first_weights(torch.Generator().manual_seed(0))
    assert weight[0].tolist() == [0, 0, 1, 0] and weight[3].tolist() == [1, 0, 0, 0]
    assert weight[1, 0] == weight[1, 2] == 0 and float(weight[1].sum()) == pytest.approx(1)
    assert not torch.equal(weight[1], weight[2])
    share = torch.softmax(seeds.log_prior(torch.arange(4)), dim=1)
    assert share[0].tolist() == [0, 0, 1, 0] and share[1].tolist() == [0.25] * 4


def test_files_that_do_not_go_with_the_images_are_a_sentence(prepare, maps: list[Path], tmp_path: Path) -> None:
    density = np.random.default_rng(0).standard_normal((24, 24, 24)).astype(np.float32)
    write_map(tmp_path / "small.mrc", density, 1.0)
    write_map(tmp_path / "wide.mrc", density, 60.0)
    write_map(tmp_path / "none.mrc", density, 0.0)
    write_map(tmp_path / "flat.mrc", 0 * density, 20.0)
    for name, message in (
        ("small", "24 voxels are of 1 Å, 24 Å across, but the images are 432 Å across"),
        ("wide", "of 60 Å, 1440 Å across"),
        ("none", "Correct the voxel size in its header"),
        ("flat", "has no density"),
        ("missing", "There is no such file: initial_volumes"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(tmp_path / "run", initial_volumes=[maps[0], tmp_path / f"{name}.mrc"])
    with pytest.raises(UserError, match="more maps than there are classes"):
        prepare(tmp_path / "run", initial_volumes=[maps[0]] * 3)
    with pytest.raises(UserError, match="for some classes only"):
        prepare(tmp_path / "run", initial_volumes=maps[:1], use_gt_poses=True)
    with pytest.raises(UserError, match="starts from nothing"):
        prepare(tmp_path / "run", initial_volumes=maps, quick_config={"engine": "published"})
    for labels, message in ((np.zeros(7), "labels 7 particles but there are 48"), (np.full(48, 2), "has the label 2")):
        write_pickle(tmp_path / "labels.pkl", labels.astype(int))
        with pytest.raises(UserError, match=message):
            prepare(tmp_path / "run", initial_labels=tmp_path / "labels.pkl")


def test_maps_are_named_on_the_command_line(
    maps: list[Path], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["setup", "run", "--particles", str(tiny_folder / "particles.star"), "--cfgs", "n_classes=3"]
    assert main([*words, "initial_volumes=[seed_0.mrc, seed_1.mrc]"]) == 0
    monkeypatch.chdir(tiny_folder)
    configs = tmp_path / "run" / "configs.yaml"
    assert read_configs(configs).settings.initial_volumes == tuple(maps)
    assert main(["setup", str(tmp_path / "run"), "--cfgs", f"initial_volumes={maps[1]}"]) == 0
    assert read_configs(configs).settings.initial_volumes == (maps[1],)
