"""Small trainings, as quick as can be: what they find is noise, that they run and what they leave is the point."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.analysis import drawing
from cryohydra.cli.main import main
from cryohydra.geometry.rotations import random_rotations
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_stack
from cryohydra.io.pose_file import write_pose_file
from cryohydra.io.run_folder import RunFolder
from cryohydra.training import handover

NUM_IMAGES, BOX_SIZE = 20, 16
SMALL = ["hypervolume_dim=8", "hypervolume_layers=1", "pe_dim=4", "epochs_sgd=1", "seed=0", "depth_cnn=2",
         "channels_cnn=2", "max_freq=4", "l_start=4", "l_end=4"]  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse pictures, and fields that hardly look at their maps."""
    fit = handover.fit_field_to_lattice
    monkeypatch.setattr(drawing, "_DOTS_PER_INCH", 50)
    monkeypatch.setattr(handover, "fit_field_to_lattice", lambda *args, **more: fit(*args, **more | {"steps": 20}))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    """Files of noise with poses and shifts."""
    random = np.random.default_rng(0)
    files = {key: str(tmp_path / name) for key, name in
             {"particles": "p.mrcs", "ctf": "ctf.pkl", "pose": "pose.pkl"}.items()}  # fmt: skip
    write_stack(Path(files["particles"]), random.standard_normal((NUM_IMAGES, 16, 16)).astype(np.float32), 4.0)
    row = [BOX_SIZE, 4.0, 15000.0, 15000.0, 0, 300, 2.7, 0.1, 0]
    write_ctf_file(Path(files["ctf"]), np.tile(row, (NUM_IMAGES, 1)))
    rotation = random_rotations(NUM_IMAGES, torch.Generator().manual_seed(0)).double().numpy()
    write_pose_file(Path(files["pose"]), rotation, random.uniform(-0.1, 0.1, (NUM_IMAGES, 2)))
    return files


Train = Callable[..., RunFolder]


@pytest.fixture
def train(tmp_path: Path, inputs: dict[str, str]) -> Train:
    """Sets up and trains, in a folder of its own."""

    def run(*cfgs: str, quick: tuple[str, ...] = ("--pose-estimation", "fixed"), name: str = "run") -> RunFolder:
        flags = [word for key, path in inputs.items() for word in (f"--{key}", path)]
        assert main(["setup", str(tmp_path / name), *flags, *quick, "--cfgs", *SMALL, *cfgs]) == 0
        assert main(["train", str(tmp_path / name), "--no-analysis"]) == 0
        return RunFolder(tmp_path / name)

    return run
