"""A small stack of particles, described as users describe theirs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_stack
from cryohydra.io.pose_file import write_pose_file

NUM_IMAGES = 12
BOX_SIZE = 16


@dataclass(frozen=True)
class ParticleFiles:
    """Where the files are."""

    particles: Path
    ctf: Path
    pose: Path

    @property
    def flags(self) -> list[str]:
        """As given to setup."""
        return ["--particles", str(self.particles), "--ctf", str(self.ctf)]


@pytest.fixture
def particle_files(tmp_path: Path) -> ParticleFiles:
    """Twelve images of noise."""
    folder = tmp_path / "data"
    folder.mkdir()
    random = np.random.default_rng(0)
    files = ParticleFiles(folder / "p.mrcs", folder / "ctf.pkl", folder / "pose.pkl")
    images = random.standard_normal((NUM_IMAGES, BOX_SIZE, BOX_SIZE)).astype(np.float32)
    write_stack(files.particles, images, 4.0)
    write_ctf_file(files.ctf, np.tile([BOX_SIZE, 4.0, 15000.0, 15000.0, 0, 300, 2.7, 0.1, 0], (NUM_IMAGES, 1)))
    write_pose_file(files.pose, np.tile(np.eye(3), (NUM_IMAGES, 1, 1)), np.zeros((NUM_IMAGES, 2)))
    return files
