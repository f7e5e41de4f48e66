"""A mixture whose truth is known, through the whole program: what `demo`, `test` and the benchmarks run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryohydra.analysis.truth import Score, score_run
from cryohydra.cli.progress import Progress
from cryohydra.cli.setup import set_up
from cryohydra.cli.train import train
from cryohydra.data.simulated import read_truth, simulate_to_folder
from cryohydra.errors import UserError
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging


@dataclass(frozen=True)
class Demonstration:
    """A mixture to simulate and how to reconstruct it."""

    classes: tuple[str, ...]
    """Structures that the package carries."""
    num_images: int
    box_size: int
    pixel_size_angstrom: float
    snr: float
    wanted_agreement: float
    """Adjusted Rand index below which the demonstration has failed."""
    noise: Literal["white", "coloured"] = "white"
    shift_std_px: float = 1.0
    num_frames: int = 1
    """Maps along the motion of the structure that moves; 1 keeps all rigid."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """As in configs.yaml; the number of classes and the files are filled in."""


DEMO = Demonstration(
    classes=("ribosome", "spliceosome", "tric"),
    num_images=1800,
    box_size=48,
    pixel_size_angstrom=9.0,
    snr=0.1,
    wanted_agreement=0.9,
    shift_std_px=1.0,
    num_frames=21,
    settings={
        "quick_config": {"reconstruction_type": "het"},
        "z_dim": 1,
        "t_extent": 3,
        "n_imgs_pose_search": 56_000,
        "hypervolume_dim": 128,
        "lr": 1e-3,
        "batch_size_sgd": 64,
        "epochs_sgd": 3,
        "log_heavy_interval": 0,
    },
)

QUICK_DEMO = Demonstration(
    classes=("ribosome", "spliceosome", "tric"),
    num_images=450,
    box_size=32,
    pixel_size_angstrom=14.0,
    snr=0.3,
    wanted_agreement=0.9,
    shift_std_px=0.5,
    settings={
        "quick_config": {"reconstruction_type": "homo"},
        "t_extent": 2,
        "n_imgs_pose_search": 20_000,
        "l_end": 12,
        "hypervolume_dim": 64,
        "epochs_sgd": 1,
        "log_heavy_interval": 0,
    },
)

INSTALLATION_TEST = Demonstration(
    classes=("ribosome", "tric"),
    num_images=400,
    box_size=24,
    pixel_size_angstrom=18.0,
    snr=1.0,
    wanted_agreement=0.8,
    shift_std_px=0.0,
    settings={
        "quick_config": {"reconstruction_type": "homo"},
        "no_trans": True,
        "n_imgs_pose_search": 8_000,
        "hypervolume_dim": 64,
        "epochs_sgd": 1,
    },
)


def demonstrate(outdir: Path, demonstration: Demonstration, seed: int, progress: Progress) -> Score:
    """Simulate into OUT/data, reconstruct in OUT, and compare with the truth.

    The same seed gives the same images and, on one machine, the same result.

    Raises:
        UserError: If the folder holds something already.
    """
    if outdir.exists() and any(outdir.iterdir()):
        raise UserError(f"{outdir} is not empty, and a demonstration wants a new folder; name another one.")
    simulate(outdir / "data", demonstration, seed, progress)
    for line in set_up(outdir, _settings(outdir / "data", demonstration, seed)).lines[:-1]:
        progress.says(line)
    train(outdir, progress)
    return score_run(outdir, read_truth(outdir / "data"))


def simulate(folder: Path, demonstration: Demonstration, seed: int, progress: Progress) -> None:
    """Write the images of a demonstration and their truth, as `drgnai simulate` does."""
    classes = [
        demo_class(name, demonstration.box_size, demonstration.pixel_size_angstrom, num_frames=demonstration.num_frames)
        for name in demonstration.classes
    ]
    imaging = Imaging(
        pixel_size_angstrom=demonstration.pixel_size_angstrom,
        snr=demonstration.snr,
        noise=demonstration.noise,
        shift_std_px=demonstration.shift_std_px,
    )
    progress.stage_begins("simulating", demonstration.num_images)
    simulate_to_folder(
        folder, classes, imaging, demonstration.num_images, seed, lambda count: progress.advanced(count, "")
    )
    names = ", ".join(demonstration.classes)
    progress.stage_ends(f"Simulated {demonstration.num_images} images of {names}, SNR {demonstration.snr:g}.")


def _settings(data: Path, demonstration: Demonstration, seed: int) -> dict[str, Any]:
    return {
        "particles": (data / "particles.star").absolute(),
        "n_classes": len(demonstration.classes),
        "seed": seed,
        **demonstration.settings,
    }
