"""`drgnai assign`: particles held back from a run find their class, pose and conformation in it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from cryohydra.cli.main import main
from cryohydra.data.simulated import Truth, read_truth, simulate_to_folder
from cryohydra.data.star_file import StarFile
from cryohydra.geometry.rotations import geodesic_angle
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.pickles import read_pickle, write_pickle
from cryohydra.io.run_folder import RunFolder
from cryohydra.io.star import read_star
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

BOX_SIZE, PIXEL_SIZE, NUM_SEEN, NUM_IMAGES = 32, 13.5, 240, 320
SMALL = [
    "hypervolume_dim=64",
    "hypervolume_layers=2",
    "pe_dim=32",
    "epochs_sgd=1",
    "log_heavy_interval=0",
    "t_extent=4",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in noise, of which the first moves, and which rows a run is to see."""
    folder = tmp_path_factory.mktemp("images")
    classes = [demo_class("ribosome", BOX_SIZE, PIXEL_SIZE), demo_class("spliceosome", BOX_SIZE, PIXEL_SIZE)]
    imaging = Imaging(PIXEL_SIZE, snr=0.5, shift_std_px=1.0)
    simulate_to_folder(folder, classes, imaging, NUM_IMAGES, seed=0)
    write_pickle(folder / "seen.pkl", np.arange(NUM_SEEN))
    write_pickle(folder / "rest.pkl", np.arange(NUM_SEEN, NUM_IMAGES))
    return folder


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    """A run of the first rows, at their true poses: it has the frame of the truth."""
    run = images / "run"
    words = ["setup", str(run), "--particles", str(images / "particles.star"), "--pose-estimation", "fixed"]
    words += ["--reconstruction-type", "het"]
    assert main([*words, "--cfgs", "n_classes=2", "z_dim=1", "seed=0", f"ind={images / 'seen.pkl'}", *SMALL]) == 0
    assert main(["train", str(run), "--no-analysis"]) == 0
    return run


def found_in(folder: RunFolder) -> Latents:
    return read_latents(folder.latents_path(folder.latest_epoch()))


def test_particles_held_back_find_their_class_and_pose(
    trained: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = RunFolder(tmp_path / "new")
    words = ["assign", str(trained), str(images / "particles.star"), "--ind", str(images / "rest.pkl")]
    assert main([*words, "-o", str(new.path)]) == 0
    said = capsys.readouterr().out
    truth, found, own = read_truth(images), found_in(new), found_in(RunFolder(trained))
    name_of = [int(np.bincount(truth.labels[:NUM_SEEN][own.best_class == k]).argmax()) for k in (0, 1)]
    assert sorted(name_of) == [0, 1]
    rest = truth.labels[NUM_SEEN:]
    assert np.mean(np.array(name_of)[found.best_class] == rest) > 0.98
    assert found.particle_index.tolist() == list(range(NUM_SEEN, NUM_IMAGES))
    angle = angles_to(truth, found)
    # The band of 14 Fourier pixels has 4 degrees at the edge of the particle.
    assert np.median(angle) < 5 and np.mean(angle < 15) > 0.9
    moves = rest == 0
    # In sign and size a latent coordinate is free; the run's own particles reach 0.7.
    follows = spearmanr(found.conformation[moves, 0], truth.coordinate[NUM_SEEN:][moves]).statistic
    assert abs(follows) > 0.5
    assert np.abs(found.shift_px - truth.shift_px[NUM_SEEN:]).mean() < 0.3
    for k in (0, 1):
        assert f"class {k}: {(found.best_class == k).sum()} (" in said
        # The fields are those of the run; a map is drawn where the particles of its folder lie on average.
        maps = [read_map(folder.map_path(folder.latest_epoch(), k))[0] for folder in (new, RunFolder(trained))]
        assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.99
        assert maps[0].std() == pytest.approx(maps[1].std(), rel=0.05)
    epoch = new.latest_epoch()
    assert np.asarray(read_pickle(new.class_probability_path(epoch))).shape == (NUM_IMAGES - NUM_SEEN, 2)
    exported = StarFile.read(new.results / f"export_{epoch}" / "particles.star")
    table = read_star(exported.path)["particles"].columns
    assert table["rlnClassNumber"].astype(int).tolist() == (found.best_class + 1).tolist()
    before = read_star(images / "particles.star")["particles"].columns
    assert table["rlnImageName"].tolist() == before["rlnImageName"][NUM_SEEN:].tolist()
    assert set(before) <= set(table)
    # The new folder is a run like others, and nothing in it is overwritten.
    assert main(["export", str(new.path), "-o", str(tmp_path / "again")]) == 0
    assert main([*words, "-o", str(new.path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_run_that_kept_fewer_classes_than_it_began_with_assigns_to_those(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "pruned")
    shutil.copytree(trained, run.path)
    kept = run.train_configs_path.read_text()
    run.train_configs_path.write_text(kept.replace("n_classes: 2", "n_classes: 3"))
    write_pickle(tmp_path / "few.pkl", np.arange(NUM_SEEN, NUM_SEEN + 10))
    words = ["assign", str(run.path), str(images / "particles.star"), "--ind", str(tmp_path / "few.pkl")]
    assert main([*words, "-o", str(tmp_path / "new")]) == 0
    assert found_in(RunFolder(tmp_path / "new")).class_probability.shape == (10, 2)


def angles_to(truth: Truth, found: Latents) -> np.ndarray:
    """In degrees, of particles held back."""
    wanted = torch.from_numpy(truth.rotation[found.particle_index, 0]).float()
    return np.rad2deg(geodesic_angle(torch.from_numpy(found.rotation[:, 0]).float(), wanted).numpy())


def test_an_assignment_does_not_depend_on_the_company(trained: Path, images: Path, tmp_path: Path) -> None:
    """Of few particles the run's shares and noise from their own corners: a handful is assigned as many are."""
    write_pickle(tmp_path / "few.pkl", np.arange(NUM_SEEN, NUM_SEEN + 5))
    words = ["assign", str(trained), str(images / "particles.star"), "--ind", str(tmp_path / "few.pkl")]
    assert main([*words, "-o", str(tmp_path / "few")]) == 0
    few = found_in(RunFolder(tmp_path / "few"))
    assert np.mean(angles_to(read_truth(images), few) < 15) >= 0.8
    assert few.class_probability.max(1).min() > 0.9


def test_finer_pixels_are_cropped(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box_size = 3 * BOX_SIZE // 2
    pixel_size = PIXEL_SIZE * BOX_SIZE / box_size
    classes = [demo_class("spliceosome", box_size, pixel_size, num_frames=1)]
    simulate_to_folder(tmp_path / "fine", classes, Imaging(pixel_size, snr=0.5, shift_std_px=1.5), 24, seed=3)
    words = ["assign", str(trained), str(tmp_path / "fine" / "particles.star"), "-o", str(tmp_path / "new")]
    assert main(words) == 0
    assert "cropped in Fourier space to the run's 32 px" in capsys.readouterr().out
    found, truth = found_in(RunFolder(tmp_path / "new")), read_truth(tmp_path / "fine")
    assert len(set(found.best_class)) == 1
    assert np.median(angles_to(truth, found)) < 6
    # Shifts are in pixels of the run in its files, and in angstrom in the exported star.
    exported = next((tmp_path / "new" / "out").glob("export_*")) / "particles.star"
    columns = read_star(exported)["particles"].columns
    shift = np.stack([columns[f"rlnOrigin{axis}Angst"].astype(float) for axis in "XY"], axis=1)
    np.testing.assert_allclose(shift, -truth.shift_px[:, 0] * pixel_size, atol=0.5 * PIXEL_SIZE)


@pytest.mark.parametrize(("box_size", "pixel_size"), [(32, 12.0), (24, 18.0), (40, 13.5)])
def test_another_field_of_view_is_a_sentence(
    trained: Path, tmp_path: Path, box_size: int, pixel_size: float, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = [demo_class("spliceosome", box_size, pixel_size, num_frames=1)]
    simulate_to_folder(tmp_path / "other", classes, Imaging(pixel_size, snr=1.0), 3, seed=3)
    new = tmp_path / "new"
    assert main(["assign", str(trained), str(tmp_path / "other" / "particles.star"), "-o", str(new)]) == 2
    said = capsys.readouterr().err
    assert f"images of {box_size} px of {pixel_size:g} Å" in said and "the run knows 32 px of 13.5 Å" in said
    assert not new.exists()


def test_what_is_no_run_or_no_particles_is_a_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["assign", str(tmp_path), "x.star"]) == 2
    assert "run that has been trained" in capsys.readouterr().err
    assert main(["assign", str(trained), "x.star"]) == 2
    assert "x.star" in capsys.readouterr().err
