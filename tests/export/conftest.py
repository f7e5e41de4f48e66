"""Runs that know the truth, as a training would leave them, and poses that are made up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from cryohydra.data.findings import ImageBox, ImageFindings, ParticleFile
from cryohydra.data.simulated import Truth, read_truth, simulate_to_folder
from cryohydra.geometry.rotations import random_rotations
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.mrc import write_map
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

BOX_SIZE, PIXEL_SIZE, NUM_IMAGES, EPOCH = 32, 12.0, 240, 4


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two complexes, off the centre, with little noise."""
    folder = tmp_path_factory.mktemp("simulated")
    classes = [demo_class(name, BOX_SIZE, PIXEL_SIZE, num_frames=1) for name in ("spliceosome", "ribosome")]
    simulate_to_folder(folder, classes, Imaging(PIXEL_SIZE, snr=2.0, shift_std_px=1.5), NUM_IMAGES, seed=3)
    return folder


@pytest.fixture(scope="session")
def truth(simulated: Path) -> Truth:
    return read_truth(simulated)


@pytest.fixture(scope="session")
def class_frames() -> torch.Tensor:
    """How the frame of each class is turned against the true one: a class has its own."""
    return torch.stack([torch.eye(3), random_rotations(1, torch.Generator().manual_seed(8))[0]]).double()


def write_true_run(
    path: Path,
    truth: Truth,
    frames: torch.Tensor,
    settings: dict[str, Any],
    *,
    index: np.ndarray | None = None,
    certainty: float = 0.98,
    box_size: int = BOX_SIZE,
    pixel_size: float = PIXEL_SIZE,
) -> RunFolder:
    """A run that found the truth, on the rows `index` of its input.

    Args:
        certainty: Probability of the true class; a hundredth more or less from particle to particle.
    """
    folder = RunFolder(path)
    folder.results.mkdir(parents=True)
    index = np.arange(len(truth.labels)) if index is None else index
    labels, num_classes = truth.labels[index], truth.num_classes
    sure = certainty + 0.01 * np.cos(np.arange(len(index)))
    probability = np.repeat((1 - sure)[:, None] / (num_classes - 1), num_classes, axis=1)
    probability[np.arange(len(index)), labels] = sure
    rotation = torch.from_numpy(truth.rotation[index]).double()[:, :, None] @ frames  # n t k 3 3
    shift = torch.from_numpy(truth.shift_px[index]).double()[:, :, None].expand(-1, -1, num_classes, 2)
    shift = shift * box_size / truth.box_size
    row = torch.arange(len(index))
    latents = Latents(
        rotation=rotation[row, :, torch.from_numpy(labels)].numpy(),
        shift_px=shift[:, :, 0].numpy(),
        class_probability=probability,
        conformation=np.zeros((len(index), 0)),
        conformation_std=np.zeros((len(index), 0)),
        log_evidence=np.zeros(len(index)),
        particle_index=index,
    )
    write_latents(folder.latents_path(EPOCH), latents)
    for k in range(num_classes):
        write_map(folder.map_path(EPOCH, k), truth.maps[k], pixel_size)
    # Training keeps poses in float32.
    tables = {"poses": {"rotation": rotation.float(), "shift_px": shift.float().contiguous()}}
    checkpoint = Checkpoint(EPOCH, "voxel", {}, box_size, pixel_size, 0, num_classes, {}, {"training": tables})
    save_checkpoint(folder.weights_path(EPOCH), checkpoint)
    folder.train_configs_path.write_text(yaml.safe_dump({"n_classes": num_classes, **settings}))
    return folder


MakeTrueRun = Callable[..., RunFolder]


@pytest.fixture
def true_run(tmp_path: Path, simulated: Path, truth: Truth, class_frames: torch.Tensor) -> MakeTrueRun:
    """Makes a run that found the truth of the simulated images."""

    def make(particles: Path | None = None, settings: dict[str, Any] | None = None, **more: Any) -> RunFolder:
        chosen = {"particles": str(particles or simulated / "particles.star"), **(settings or {})}
        return write_true_run(tmp_path / "run", truth, class_frames, chosen, **more)

    return make


def made_up(file: ParticleFile, rows: np.ndarray) -> ImageFindings:
    """Poses and classes of nobody."""
    random = np.random.default_rng(5)
    kept = file.half()
    return ImageFindings(
        row=rows,
        rotation=random_rotations(len(rows), torch.Generator().manual_seed(5)).double().numpy(),
        shift_fraction=random.uniform(-0.1, 0.1, (len(rows), 2)),
        class_index=random.integers(0, 3, len(rows)),
        class_probability=random.uniform(0.4, 1, len(rows)),
        half=random.integers(0, 2, len(rows)) if kept is None else kept[rows],
    )


def box_of(file: ParticleFile, size_px: float, pixel_size: float) -> ImageBox:
    """What the file says of its box, or else these."""
    told, told_pixel = file.box_size_px(), file.pixel_size_angstrom()
    return ImageBox(
        np.full(len(file), float(size_px)) if told is None else told,
        np.full(len(file), float(pixel_size)) if told_pixel is None else told_pixel,
    )
