"""From a training to RELION: what the network shows of each class is what RELION makes of the exported particles."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from cryohydra.analysis.export import ExportOptions, export_run
from cryohydra.analysis.prove import maps_of, sets_of_run
from cryohydra.analysis.run import Run
from cryohydra.cli.main import main
from cryohydra.config.inputs import reopen_input
from cryohydra.data.simulated import simulate_to_folder
from cryohydra.fourier.fsc import crossing_shell, fourier_shell_correlation
from cryohydra.fourier.half_map_fsc import half_map_fsc
from cryohydra.fourier.soft_mask import mask_around
from cryohydra.inference.half_maps import HalfMaps, backproject_halves
from cryohydra.io.mrc import read_map
from cryohydra.io.star import StarTable, read_star, write_star
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

pytestmark = pytest.mark.skipif(
    shutil.which("relion_reconstruct") is None,
    reason="relion_reconstruct is not installed (Debian: apt-get install relion)",
)

BOX_SIZE, PIXEL_SIZE, NUM_IMAGES = 32, 13.5, 500
UP_TO = int(0.8 * BOX_SIZE / 2) + 1
SMALL = ["hypervolume_dim=64", "hypervolume_layers=2", "epochs_sgd=1", "log_heavy_interval=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two classes, trained; the particle file tells no poses, so that those in an exported one are the run's."""
    folder = tmp_path_factory.mktemp("mixture")
    classes = [demo_class(name, BOX_SIZE, PIXEL_SIZE, num_frames=1) for name in ("ribosome", "spliceosome")]
    simulate_to_folder(folder, classes, Imaging(PIXEL_SIZE, snr=0.3, shift_std_px=1.0), NUM_IMAGES, seed=1)
    blocks = read_star(folder / "particles.star")
    columns = {
        name: column
        for name, column in blocks["particles"].columns.items()
        if not name.startswith(("rlnAngle", "rlnOrigin", "rlnClass", "rlnRandom"))
    }
    write_star(folder / "bare.star", {**blocks, "particles": StarTable(columns)})
    flags = ["--particles", str(folder / "bare.star"), "--pose", str(folder / "pose.pkl")]
    out = folder / "out"
    assert main(["setup", str(out), *flags, "--pose-estimation", "refine", "--cfgs", "n_classes=2", *SMALL]) == 0
    assert main(["train", str(out), "--no-analysis"]) == 0
    return Run.open(out)


@pytest.fixture(scope="module", params=[0, 1])
def maps(run: Run, request: pytest.FixtureRequest) -> tuple[torch.Tensor, HalfMaps, HalfMaps]:
    """Of one class: the network's, our backprojection, RELION's reconstruction of the exported particles."""
    k = request.param
    folder = export_run(run.folder.path, ExportOptions(is_soft=True, output=run.folder.path / f"soft_{k}")).folder
    theirs = [_reconstruct(folder / f"class_{k}.star", k, *flags) for flags in (("1",), ("2",), ())]
    particles = reopen_input(run.folder)
    ours = backproject_halves(particles.source, sets_of_run(run, particles), k)
    return maps_of(run)[k], ours, HalfMaps(torch.stack(theirs[:2]), theirs[2])


def _reconstruct(star: Path, class_index: int, *subset: str) -> torch.Tensor:
    """In the folder from which the images are named."""
    output = star.with_name("theirs.mrc")
    flags = ["--class", str(class_index + 1), "--fom_weighting", "--ctf", *(("--subset", *subset) if subset else ())]
    command = ["relion_reconstruct", "--i", str(star), "--o", str(output), *flags]
    project = star.parents[2]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    density, pixel_size = read_map(output)
    assert pixel_size == pytest.approx(PIXEL_SIZE)
    return torch.from_numpy(density)


def test_the_network_shows_what_relion_finds(maps: tuple[torch.Tensor, HalfMaps, HalfMaps]) -> None:
    """To the resolution of RELION's halves, all under one mask: outside it RELION's map is noise."""
    neural, _, theirs = maps
    mask = mask_around(theirs.whole, 6, BOX_SIZE / 32, BOX_SIZE / 16)
    halves = half_map_fsc(*theirs.halves, mask, torch.Generator().manual_seed(0))
    resolution = int(crossing_shell(halves.corrected, 0.143))
    assert resolution >= 8
    found = fourier_shell_correlation(mask * neural, mask * theirs.whole)[1 : resolution + 1]
    assert float(found.min()) > 0.5
    # The voxel at D//2 stays where it is.
    mirrored = fourier_shell_correlation(mask * neural.flip(0).roll(1, 0), mask * theirs.whole)[5 : resolution + 1]
    assert float(mirrored.max()) < 0.4 < 0.9 < float(found[4:].mean())


def test_backprojection_is_that_of_relion(maps: tuple[torch.Tensor, HalfMaps, HalfMaps]) -> None:
    _, ours, theirs = maps
    for own, other in ((ours.whole, theirs.whole), *zip(ours.halves, theirs.halves, strict=True)):
        assert float(fourier_shell_correlation(own, other)[1:UP_TO].min()) > 0.95


def test_halves_agree_as_those_of_relion_do(maps: tuple[torch.Tensor, HalfMaps, HalfMaps]) -> None:
    _, ours, theirs = maps
    mask = mask_around(theirs.whole, 6, BOX_SIZE / 32, BOX_SIZE / 16)
    curves = [half_map_fsc(*one.halves, mask, torch.Generator().manual_seed(0)).masked for one in (ours, theirs)]
    assert float((curves[0] - curves[1])[1:UP_TO].abs().max()) < 0.05
