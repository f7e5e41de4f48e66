"""One small simulated mixture, and reconstructions of it as users run them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryohydra.analysis.agreement import compare_poses
from cryohydra.config.build import build_training
from cryohydra.config.files import write_train_configs
from cryohydra.config.reading import read_settings
from cryohydra.data.simulated import Truth, simulate_to_folder
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.geometry.rotations import geodesic_angle, rotation_vector_to_matrix
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.pickles import write_pickle
from cryohydra.io.pose_file import write_pose_file
from cryohydra.io.run_folder import RunFolder
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

BOX_SIZE = 24
NUM_IMAGES = 360
PIXEL_SIZE = 18.0
DISTURBANCE_DEGREES = 6.0
DISTURBANCE_PX = 0.4


@dataclass(frozen=True)
class Dataset:
    """Files of a mixture of three, and what is true of them."""

    folder: Path
    truth: Truth
    disturbance_degrees: float
    disturbance_px: np.ndarray
    """Of each particle."""

    @property
    def particles(self) -> Path:
        """With CTF and true poses."""
        return self.folder / "particles.star"

    @property
    def disturbed_poses(self) -> Path:
        """True poses, each turned and shifted a little at random."""
        return self.folder / "disturbed.pkl"

    @property
    def rows_of_first_class(self) -> Path:
        """To select a set of one class."""
        return self.folder / "first_class.pkl"


@dataclass(frozen=True)
class Outcome:
    """What a training left, beside the truth."""

    run: RunFolder
    truth: Truth
    epoch: int
    latents: Latents

    @property
    def labels(self) -> np.ndarray:
        """True classes of the particles that were used."""
        return self.truth.labels[self.latents.particle_index]

    def pose_errors_degrees(self) -> np.ndarray:
        """Of each particle, in the frame of the truth."""
        true = torch.from_numpy(self.truth.rotation[self.latents.particle_index]).float()
        error = geodesic_angle(torch.from_numpy(self.latents.rotation).float(), true)
        return np.rad2deg(error[:, 0].numpy())

    def shift_errors_px(self) -> np.ndarray:
        """Of each particle."""
        difference = self.latents.shift_px - self.truth.shift_px[self.latents.particle_index]
        return np.linalg.norm(difference[:, 0], axis=-1)

    def agreement(self) -> float:
        """Adjusted Rand index of the classes."""
        return float(adjusted_rand_score(self.labels, self.latents.best_class))

    def true_class_of(self, run_class: int) -> int:
        """The true class of most of its particles."""
        return int(np.bincount(self.labels[self.latents.best_class == run_class]).argmax())

    def free_pose_errors_degrees(self) -> dict[int, float]:
        """Median of each true class, after the rotation and hand that images leave open, modulo symmetry."""
        errors = {}
        for run_class in np.unique(self.latents.best_class):
            true_class = self.true_class_of(int(run_class))
            rows = (self.latents.best_class == run_class) & (self.labels == true_class)
            source = self.latents.particle_index[rows]
            arrays = (
                self.latents.rotation[rows, 0],
                self.truth.rotation[source, 0],
                self.latents.shift_px[rows, 0],
                self.truth.shift_px[source, 0],
                self.truth.symmetry[true_class],
            )
            agreement = compare_poses(*(torch.from_numpy(array).float() for array in arrays))
            errors[true_class] = float(np.rad2deg(agreement.median_error))
        return errors

    def map_agreement(self, run_class: int, true_class: int) -> np.ndarray:
        """Shell correlation of a map with the true one, in the frame of the truth."""
        density, _ = read_map(self.run.map_path(self.epoch, run_class))
        true = torch.from_numpy(self.truth.maps[true_class]).float()
        return fourier_shell_correlation(torch.from_numpy(density), true).numpy()


class Silent:
    """Hears all and says nothing."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage_begins(self, name: str, total_images: int) -> None: ...

    def advanced(self, images: int, note: str) -> None: ...

    def stage_ends(self, sentence: str) -> None:
        self.said.append(sentence)

    def says(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A ribosome whose small subunit turns, a spliceosome and TRiC, in a box of 24 pixels, hardly any noise."""
    folder = tmp_path_factory.mktemp("mixture")
    frames = {"ribosome": 9, "spliceosome": 1, "tric": 1}
    classes = [demo_class(name, BOX_SIZE, PIXEL_SIZE, num_frames=count) for name, count in frames.items()]
    imaging = Imaging(pixel_size_angstrom=PIXEL_SIZE, snr=3.0, shift_std_px=0.5)
    truth = simulate_to_folder(folder, classes, imaging, NUM_IMAGES, seed=0)
    generator = torch.Generator().manual_seed(1)
    away = DISTURBANCE_PX * torch.randn(NUM_IMAGES, 2, generator=generator).numpy()
    made = Dataset(folder, truth, DISTURBANCE_DEGREES, np.linalg.norm(away, axis=1))
    write_pickle(made.rows_of_first_class, np.flatnonzero(truth.labels == 0))
    axis = torch.nn.functional.normalize(torch.randn(NUM_IMAGES, 3, generator=generator), dim=-1)
    turned = torch.from_numpy(truth.rotation[:, 0]).float() @ rotation_vector_to_matrix(
        axis * np.deg2rad(DISTURBANCE_DEGREES)
    )
    write_pose_file(made.disturbed_poses, turned.numpy(), -(truth.shift_px[:, 0] + away) / BOX_SIZE)
    return made


@pytest.fixture
def reconstruct(dataset: Dataset, tmp_path: Path) -> Callable[..., Outcome]:
    """Train with the given settings, everything else small."""

    def train(**values: Any) -> Outcome:
        small = {
            "particles": dataset.particles,
            "seed": 0,
            "hypervolume_dim": 32,
            "hypervolume_layers": 1,
            "pe_dim": 16,
            "z_dim": 0,
            "log_heavy_interval": 0,
            "batch_size_sgd": 64,
            "batch_size_known_poses": 64,
            "lr": 1e-3,
            "lr_pose_table": 1.5e-2,
            "lr_conf_table": 0.03,
            "channels_cnn": 8,
            "depth_cnn": 3,
            "n_imgs_pose_search": 8_000,
            "epochs_sgd": 4,
            "t_extent": 2.0,
        }
        if values.get("n_classes", 1) == 1:
            small["ind"] = dataset.rows_of_first_class
        settings = read_settings(small | values).settings
        run = RunFolder(tmp_path / "run")
        run.results.mkdir(parents=True, exist_ok=True)
        listener = Silent()
        trainer = build_training(settings, run, listener)
        write_train_configs(run.train_configs_path, settings)
        trainer.run()
        epoch = run.latest_epoch()
        return Outcome(run, dataset.truth, epoch, read_latents(run.latents_path(epoch)))

    return train
