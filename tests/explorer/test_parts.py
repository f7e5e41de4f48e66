"""What the explorer knows of particles, keeps, and draws."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.analysis.maps import enlarge_map, shrink_map
from cryohydra.analysis.run import Run
from cryohydra.cli.explore import open_particles_of
from cryohydra.data.particles import ParticleSet
from cryohydra.data.sources import ArraySource
from cryohydra.errors import UserError
from cryohydra.explorer.gallery import picture_particles
from cryohydra.explorer.shelf import Shelf, pack, particles_in, unpack
from cryohydra.explorer.sources import Sources
from cryohydra.explorer.traversals import graph_path, straight_path, thin
from cryohydra.explorer.volumes import VolumePainter
from cryohydra.geometry.rotations import euler_to_matrix
from cryohydra.io.pickles import read_pickle, write_pickle
from cryohydra.io.run_folder import RunFolder
from cryohydra.physics.ctf import Optics

from .conftest import BOX_SIZE, NUM_USED, KnownRun, make_latents, write_epoch


def no_particles(run: Run) -> ParticleSet:
    raise UserError("The disk is away.")


def open_known(known_run: KnownRun, *others: Path, epoch: int = -1, kmeans: int = -1) -> Sources:
    return Sources(known_run.folder.path, epoch, others, open_particles_of, kmeans)


def test_every_quantity_is_a_number_per_particle(known_run: KnownRun) -> None:
    sources = open_known(known_run)
    keys = [one.key for one in sources.quantities("s0")]
    assert len(set(keys)) == len(keys)
    assert {"pc_1", "z_0", "class", "p_1", "log_evidence", "angle_tilt", "shift_x", "defocus", "label"} <= set(keys)
    for quantity in sources.quantities("s0"):
        values = sources.column("s0", quantity.key)
        assert values.shape == (NUM_USED,) and np.isfinite(values).all()
        if quantity.categories:
            assert set(values) <= set(range(len(quantity.categories)))


def test_what_the_input_says_stays_with_its_particle(known_run: KnownRun) -> None:
    sources = open_known(known_run)
    index = known_run.latents.particle_index
    assert np.allclose(sources.column("s0", "defocus"), 1 + 0.01 * index)
    assert np.array_equal(sources.column("s0", "label"), index % 3)
    assert np.array_equal(sources.column("s0", "particle"), index)


def test_another_epoch_comes_in_the_same_order_of_particles(known_run: KnownRun) -> None:
    """Epoch 3 was written with the particles the other way round."""
    sources = open_known(known_run)
    assert [origin.name for origin in sources.origins] == ["epoch 5", "epoch 3"]
    assert np.array_equal(sources.column("s1", "particle"), known_run.latents.particle_index)


def test_angles_give_the_rotation_back(known_run: KnownRun) -> None:
    sources = open_known(known_run)
    angles = np.stack([sources.column("s0", f"angle_{name}") for name in ("rot", "tilt", "psi")], axis=1)
    rotation = euler_to_matrix(torch.from_numpy(np.deg2rad(angles.astype(np.float64)))).numpy()
    assert np.allclose(rotation, known_run.latents.rotation[:, 0], atol=1e-5)  # degrees went through float32


def test_components_are_those_of_each_class(known_run: KnownRun) -> None:
    component = open_known(known_run).column("s0", "pc_0")
    for class_index in range(2):
        members = known_run.latents.best_class == class_index
        # z1 spreads most by far, so it is the first component, around the mean of the class.
        z = known_run.latents.conformation[members, 0]
        assert abs(component[members].mean()) < 1e-5
        assert abs(np.corrcoef(component[members], z)[0, 1]) > 0.99


def test_groups_and_umap_of_an_analysis_are_offered(known_run: KnownRun) -> None:
    for class_index in range(2):
        folder = known_run.folder.class_analysis_path(5, class_index)
        (folder / "kmeans4").mkdir(parents=True)
        mine = known_run.latents.best_class == class_index
        write_pickle(folder / "kmeans4" / "labels.pkl", np.where(mine, 2 + class_index, -1))
        write_pickle(folder / "umap.pkl", np.where(mine[:, None], [[class_index, 7.0]], np.nan))
    sources = open_known(known_run)
    assert np.array_equal(sources.column("s0", "kmeans"), 2 + known_run.latents.best_class)
    assert np.array_equal(sources.column("s0", "umap_0"), known_run.latents.best_class)
    with pytest.raises(UserError, match="no kmeans9; there are kmeans4"):
        open_known(known_run, kmeans=9)


def test_another_run_is_matched_by_particle(known_run: KnownRun, tmp_path: Path) -> None:
    other, known = RunFolder(tmp_path / "other"), known_run.latents.particle_index[:50]
    write_epoch(other, 1, make_latents(known))
    sources = open_known(known_run, other.path)
    found = sources.column("s2", "particle")
    assert np.array_equal(found[:50], known) and np.isnan(found[50:]).all()
    assert "matched by their rows" in sources.notes[0]


def test_a_run_of_other_particles_is_refused(known_run: KnownRun, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "other")
    write_epoch(other, 1, make_latents(np.arange(1000, 1010)))
    with pytest.raises(UserError, match="none of the particles"):
        open_known(known_run, other.path)


def test_without_the_images_the_rest_is_shown(known_run: KnownRun) -> None:
    sources = Sources(known_run.folder.path, -1, [], no_particles)
    assert sources.particles is None and sources.notes == (
        "Images, defocus and labels are left out. The disk is away.",
    )
    assert np.array_equal(sources.file_rows()[:, 0], known_run.latents.particle_index)


def test_tilts_without_their_file_are_not_guessed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_epoch(folder, 0, make_latents(np.arange(8), num_tilts=3))
    with pytest.raises(UserError, match="that file alone"):
        Sources(folder.path, -1, [], no_particles).file_rows()


def test_a_selection_of_tilt_series_names_all_their_tilts(tmp_path: Path) -> None:
    rows = np.array([[4, 5], [0, 1], [2, 3]])
    folder = Shelf(tmp_path).save_selection("s", "", np.array([True, False, True]), rows)
    assert read_pickle(folder / "ind.pkl").tolist() == [2, 3, 4, 5]
    assert Shelf(tmp_path).read_selection("s", rows).tolist() == [True, False, True]


def test_a_name_used_again_moves_the_earlier_one_aside(tmp_path: Path) -> None:
    shelf, rows = Shelf(tmp_path), np.arange(4)[:, None]
    for chosen in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]):
        shelf.save_selection("s", "", np.array(chosen, dtype=bool), rows)
    assert [one.count for one in shelf.selections()] == [1]
    kept = [read_pickle(tmp_path / "explorer" / "old" / f"{n:03d}_s" / "ind.pkl").tolist() for n in range(2)]
    assert kept == [[0], [1]]


def test_nothing_is_moved_out_by_a_link(tmp_path: Path) -> None:
    shelf, one = Shelf(tmp_path / "run"), np.ones(1, dtype=bool)
    shelf.save_selection("s", "", one, np.zeros((1, 1), dtype=int))
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / "explorer" / "old").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="by a link"):
        shelf.save_selection("s", "", one, np.zeros((1, 1), dtype=int))
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("content", [{"a": 1}, [0.5], np.zeros((2, 2), dtype=int), [], [99]])
def test_files_that_select_nothing_here(tmp_path: Path, content: object) -> None:
    write_pickle(tmp_path / "ind.pkl", content)
    with pytest.raises(UserError, match="ind.pkl"):
        particles_in(tmp_path / "ind.pkl", np.arange(4)[:, None])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_what_is_packed_is_unpacked(count: int) -> None:
    chosen = np.random.default_rng(count).random(count) < 0.3
    assert np.array_equal(unpack(pack(chosen), count), chosen)


def test_a_straight_way_has_even_steps_and_passes_its_anchors() -> None:
    way = straight_path(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]]), 9)
    assert np.allclose(np.linalg.norm(np.diff(way, axis=0), axis=1), 0.5)
    assert [3.0, 0.0] in way.tolist() and way[0].tolist() == [0, 0] and way[-1].tolist() == [3, 1]


def test_a_way_through_particles_follows_their_arc() -> None:
    """Particles on a horseshoe: the straight way between its ends leaves it, the graph's does not."""
    random = np.random.default_rng(0)
    angle = np.sort(random.uniform(0, 1.5 * np.pi, 400))
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    way = graph_path(points, np.array([0, 399]), random)
    assert way[0] == 0 and way[-1] == 399
    assert (np.diff(way) > 0).all() and np.diff(angle[way]).max() < 0.2
    assert len(thin(way, 5)) == 5 and thin(way, 5)[-1] == 399


def test_islands_are_not_connected() -> None:
    points = np.concatenate([np.random.default_rng(0).normal(size=(50, 2)) + shift for shift in (0, 1000)])
    with pytest.raises(UserError, match="separate islands"):
        graph_path(points, np.array([0, 60]), np.random.default_rng(0))


def test_what_is_shown_is_what_the_network_draws(known_run: KnownRun) -> None:
    run = Run.open(known_run.folder.path, device="cpu")
    z = np.array([1.0, -1.0])
    painter = VolumePainter()
    shown, voxel_size = painter.draw(run, 1, z, finest=64)
    assert voxel_size == pytest.approx(run.pixel_size_angstrom * BOX_SIZE / 64)
    # Between the voxels of a small box the same density is interpolated.
    whole = enlarge_map(run.draw(1, z), 64)
    # What is looked at may be rounded where that is quicker.
    assert (shown - whole).std() < 0.02 * whole.std()
    assert not torch.allclose(shown, painter.draw(run, 1, -z, finest=64)[0], atol=1e-3)


def test_what_is_remembered_of_one_class_is_not_shown_of_another(known_run: KnownRun) -> None:
    run = Run.open(known_run.folder.path, device="cpu")
    earlier = Run.open(known_run.folder.path, 3, device="cpu")
    painter, z = VolumePainter(), np.array([1.0, -1.0])
    asked = [(one, class_index, finest) for one in (run, earlier) for class_index in (0, 1) for finest in (5, 64)]
    first = [painter.draw(one, class_index, z, finest)[0] for one, class_index, finest in asked]
    for density, (one, class_index, finest) in zip(first, asked, strict=True):
        assert torch.equal(density, VolumePainter().draw(one, class_index, z, finest)[0])
        assert torch.equal(density, painter.draw(one, class_index, z, finest)[0])


def test_a_large_box_is_shown_smaller_at_its_true_size(known_run: KnownRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryohydra.explorer.volumes.SHOWN_BOX_SIZE", 16)
    run = Run.open(known_run.folder.path, device="cpu")
    shown, pixel_size = VolumePainter().draw(run, 0, np.zeros(2), finest=64)
    assert pixel_size == pytest.approx(3.5 * 24 / 16)
    with torch.no_grad():
        whole = shrink_map(run.mixture.map(0, torch.zeros(2), 7) * run.density_scale, 16)
    # They differ by a constant, each takes the mean outside its own sphere for zero, and by what is rounded.
    assert (shown - whole).std() < 0.02 * whole.std()


@pytest.mark.parametrize("box_size", [32, 200])
def test_pictures_are_bright_where_particles_are(box_size: int) -> None:
    axis = torch.arange(box_size) - box_size // 2
    blob = -torch.exp(-(axis[:, None] ** 2 + axis**2) / (box_size / 8) ** 2)  # particles are dark on white inside
    one = torch.ones(1, 1)
    optics = Optics(
        **{field.name: one for field in dataclasses.fields(Optics) if field.name != "group"}, group=one.long()
    )
    picture = picture_particles(ArraySource(blob[None, None], optics, 1.0), np.array([0]), 1.0)[0]
    assert len(picture) == min(box_size, 160)
    middle = len(picture) // 2
    assert picture[middle, middle] == 255 and picture[0, 0] < 128
