"""`drgnai prove` on a run that knows the truth."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.analysis import drawing
from cryohydra.analysis.maps import shrink_map
from cryohydra.cli.main import main
from cryohydra.config.files import write_train_configs
from cryohydra.config.reading import read_settings
from cryohydra.data.simulated import Truth, read_truth, simulate_to_folder
from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.mrc import read_map, write_map
from cryohydra.io.run_folder import RunFolder
from cryohydra.io.star import StarTable, read_star, write_star
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.model.mixture import build_mixture
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

NUM_IMAGES, BOX_SIZE, PIXEL_SIZE = 240, 32, 13.5


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes; beside them the same file with halves that are not the model's own."""
    folder = tmp_path_factory.mktemp("particles")
    classes = [demo_class(name, BOX_SIZE, PIXEL_SIZE) for name in ("spliceosome", "large_subunit")]
    simulate_to_folder(folder, classes, Imaging(PIXEL_SIZE, snr=1.0, shift_std_px=1.0), NUM_IMAGES, seed=0)
    blocks = read_star(folder / "particles.star")
    subset = np.where(np.arange(NUM_IMAGES) < NUM_IMAGES // 2, 1, 2)
    halved = StarTable({**blocks["particles"].columns, "rlnRandomSubset": subset})
    write_star(folder / "halved.star", {**blocks, "particles": halved})
    return folder


def write_run(path: Path, particles: Path, truth: Truth, box_size: int, downsample: int | None = None) -> RunFolder:
    """A run that found the truth, at the box of the images or a smaller one."""
    folder = RunFolder(path)
    folder.results.mkdir(parents=True)
    pixel_size = PIXEL_SIZE * BOX_SIZE / box_size
    values = {"particles": particles, "n_classes": 2, "downsample": downsample}
    write_train_configs(folder.train_configs_path, read_settings(values).settings)
    rotation, shift = torch.from_numpy(truth.rotation).float(), torch.from_numpy(truth.shift_px).float()
    shift = shift * box_size / BOX_SIZE
    probability = np.eye(2)[truth.labels]
    latents = Latents(
        rotation=rotation.numpy(),
        shift_px=shift.numpy(),
        class_probability=probability,
        conformation=np.zeros((NUM_IMAGES, 0)),
        conformation_std=np.zeros((NUM_IMAGES, 0)),
        log_evidence=np.zeros(NUM_IMAGES),
        particle_index=np.arange(NUM_IMAGES),
    )
    write_latents(folder.latents_path(1), latents)
    for k, density in enumerate(torch.from_numpy(truth.maps).float()):
        write_map(folder.map_path(1, k), shrink_map(density, box_size).numpy(), pixel_size)
    config = MLPFieldConfig(width=8, layers=1, pe_dim=4)
    mixture = build_mixture(config, num_classes=2, box_size=box_size, z_dim=0, generator=torch.Generator())
    poses = {
        "rotation": rotation[:, :, None].expand(-1, -1, 2, -1, -1).contiguous(),
        "shift_px": shift[:, :, None].expand(-1, -1, 2, -1).contiguous(),
    }
    checkpoint = Checkpoint(
        epoch=1,
        field_name="mlp",
        field_settings=config.model_dump(),
        box_size=box_size,
        pixel_size_angstrom=pixel_size,
        z_dim=0,
        num_classes=2,
        mixture_state=dict(mixture.state_dict()),
        extra={"training": {"poses": poses}},
    )
    save_checkpoint(folder.weights_path(1), checkpoint)
    return folder


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_DOTS_PER_INCH", 60)


def test_each_class_is_proven_and_the_report_shows_it(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", particles / "particles.star", read_truth(particles), BOX_SIZE)
    assert main(["prove", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "Halves are the model's own" in said and said.count("not gold standard") == 2
    folder = run.proof_path(1, "shared")
    for k in (0, 1):
        halves = [torch.from_numpy(read_map(folder / f"class_{k}_half{h}.mrc")[0]) for h in (1, 2)]
        assert read_map(folder / f"class_{k}_half1.mrc")[1] == pytest.approx(PIXEL_SIZE)
        table = np.genfromtxt(folder / f"class_{k}_fsc.csv", delimiter=",", names=True)
        np.testing.assert_allclose(table["unmasked"], fourier_shell_correlation(*halves)[:-1].numpy(), atol=1e-4)
        # The run's maps are true ones, and its images bear them out.
        assert table["neural_against_backprojection"][2:10].min() > 0.95
        record = json.loads((folder / f"class_{k}.json").read_text())
        assert record["resolution_angstrom"]["corrected"]["0.143"] < 45
    before = (folder / "class_0.json").read_bytes()
    assert main(["prove", str(run.path)]) == 0
    assert (run.results / "old-proof_1_shared_000" / "class_0.json").read_bytes() == before
    assert main(["analyze", str(run.path), "--skip-umap"]) == 0
    report = (run.analysis_path(1) / "report.html").read_text()
    assert report.count("Half maps against each other: shared poses, not gold standard") >= 2
    # No line is broken between a number and its unit.
    assert record["sentences"][0] in report.replace("\u00a0", " ")


def test_halves_of_the_particle_file_are_kept(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_truth(particles)
    run = write_run(tmp_path / "run", particles / "halved.star", truth, BOX_SIZE)
    assert main(["prove", str(run.path)]) == 0
    assert "those of the particle file" in capsys.readouterr().out
    record = json.loads((run.proof_path(1, "shared") / "class_0.json").read_text())
    first = truth.labels[: NUM_IMAGES // 2] == 0
    assert record["particles"] == [first.sum(), (truth.labels == 0).sum() - first.sum()]


@pytest.mark.parametrize("downsample", [None, BOX_SIZE // 2])
def test_a_run_at_a_small_box_is_proven_at_the_full_one(
    particles: Path, tmp_path: Path, downsample: int | None
) -> None:
    run = write_run(tmp_path / "run", particles / "particles.star", read_truth(particles), BOX_SIZE // 2, downsample)
    assert main(["prove", str(run.path), "--particles", str(particles / "particles.star")]) == 0
    folder = run.proof_path(1, "shared")
    density, pixel_size = read_map(folder / "class_0_half1.mrc")
    assert density.shape[0] == BOX_SIZE and pixel_size == pytest.approx(PIXEL_SIZE)
    table = np.genfromtxt(folder / "class_0_fsc.csv", delimiter=",", names=True)
    # Half maps reach beyond what the run's box could hold, the neural map does not.
    assert table["corrected"][10] > 0.5
    assert table["neural_against_backprojection"][2:7].min() > 0.9
    assert abs(table["neural_against_backprojection"][10:]).mean() < 0.2


def test_other_particles_are_refused(particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", particles / "particles.star", read_truth(particles), BOX_SIZE)
    blocks = read_star(particles / "particles.star")
    fewer = StarTable({name: column[:-1] for name, column in blocks["particles"].columns.items()})
    write_star(tmp_path / "fewer.star", {**blocks, "particles": fewer})
    flags = ["--particles", str(tmp_path / "fewer.star"), "--datadir", str(particles)]
    assert main(["prove", str(run.path), *flags]) == 2
    assert "239 particles" in capsys.readouterr().err
    assert main(["prove", str(run.path), "--start-resolution", "50"]) == 2
    assert "--independent-halves only" in capsys.readouterr().err
    assert not list(run.results.glob("proof*"))
