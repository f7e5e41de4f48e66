"""A training small enough to run many times."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cryohydra.config.build import build_training
from cryohydra.config.reading import read_settings
from cryohydra.data.simulated import simulate_to_folder
from cryohydra.io.run_folder import RunFolder
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging
from cryohydra.training import known_poses, search
from cryohydra.training.handover import fit_fields
from cryohydra.training.team import ALONE, Team
from cryohydra.training.trainer import Trainer

NUM_IMAGES = 48


class Listener:
    """Remembers what it is told, and presses Ctrl-C in a stage if asked to."""

    def __init__(self, stop_in: str | None = None):
        self.said: list[str] = []
        self.stages: list[str] = []
        self.stop_in = stop_in

    def stage_begins(self, name: str, total_images: int) -> None:
        self.stages.append(name)

    def advanced(self, images: int, note: str) -> None:
        if self.stages[-1] == self.stop_in:
            raise KeyboardInterrupt

    def stage_ends(self, sentence: str) -> None:
        self.said.append(sentence)

    def says(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rigid classes in a box of 16 pixels."""
    folder = tmp_path_factory.mktemp("tiny")
    classes = [demo_class(name, 16, 27.0, num_frames=1) for name in ("ribosome", "spliceosome")]
    simulate_to_folder(folder, classes, Imaging(27.0, snr=2.0, shift_std_px=0.3), NUM_IMAGES, seed=0)
    return folder


@pytest.fixture(scope="session")
def two_structures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 clear images of two rigid classes."""
    folder = tmp_path_factory.mktemp("two")
    classes = [demo_class(name, 16, 27.0, num_frames=1) for name in ("ribosome", "spliceosome")]
    simulate_to_folder(folder, classes, Imaging(27.0, snr=1.0, shift_std_px=0.0), 400, seed=1)
    return folder


@pytest.fixture(autouse=True)
def fields_are_fitted_roughly(monkeypatch: pytest.MonkeyPatch) -> None:
    """How well maps become fields matters to the recovery tests, not here."""
    for stage in (known_poses, search):
        monkeypatch.setattr(stage, "fit_fields", functools.partial(fit_fields, steps=20))


@pytest.fixture
def prepare(tiny_folder: Path) -> Callable[..., tuple[Trainer, Listener]]:
    """A training of the tiny set in a folder."""

    def build(folder: Path, stop_in: str | None = None, team: Team = ALONE, **values: Any) -> tuple[Trainer, Listener]:
        small = {
            "particles": tiny_folder / "particles.star",
            "seed": 0,
            "n_classes": 2,
            "z_dim": 0,
            "hypervolume_dim": 16,
            "hypervolume_layers": 1,
            "pe_dim": 8,
            "epochs_sgd": 3,
            "lr": 1e-3,
            "log_heavy_interval": 1,
            "batch_size_sgd": 16,
            "batch_size_known_poses": 16,
            "t_extent": 1.0,
            "n_imgs_pose_search": 100,
        }
        settings = read_settings(small | values).settings
        run = RunFolder(folder)
        run.results.mkdir(parents=True, exist_ok=True)
        listener = Listener(stop_in)
        return build_training(settings, run, listener, team), listener

    return build
