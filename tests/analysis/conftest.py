"""Runs of analytic densities, as a training would leave them."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.transform import Rotation

from cryohydra.analysis import drawing
from cryohydra.fields.base import FIELDS, Field, FieldConfig
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.model.mixture import build_mixture

BOX_SIZE = 24


@FIELDS.register("test-blobs")
class BlobFieldConfig(FieldConfig):
    """Settings of a `BlobField`."""

    def build(self, *, box_size: int, z_dim: int, generator: torch.Generator) -> "BlobField":
        """A few blobs at random places."""
        return BlobField(box_size, z_dim, generator)


class BlobField(Field):
    """Gaussian blobs; the first moves along x with the first number of z."""

    def __init__(self, box_size: int, z_dim: int, generator: torch.Generator):
        super().__init__()
        self.z_dim, self.box_size = z_dim, box_size
        self.centres = torch.nn.Parameter((torch.rand(5, 3, generator=generator) - 0.5) * box_size / 2)

    def set_radial_amplitude(self, amplitude: torch.Tensor) -> None:
        """Not needed here."""

    def forward(self, frequencies: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Coefficients of the blobs."""
        move = torch.zeros(*z.shape[:-1], 5, 3)
        if self.z_dim:
            move[..., 0, 0] = z[..., 0]
        phase = 2 * math.pi * frequencies @ (self.centres + move).mT
        width = self.box_size / 16
        envelope = torch.exp(-2 * math.pi**2 * width**2 * frequencies.square().sum(-1))
        return envelope * (phase.cos() + phase.sin()).sum(-1) / self.box_size


def write_run(
    path: Path,
    counts: list[int],
    z_dim: int,
    *,
    num_tilts: int = 1,
    first_particle: int = 0,
    box_size: int = BOX_SIZE,
    epoch: int = 3,
    twins: bool = False,
    extra: dict[str, object] | None = None,
) -> RunFolder:
    """A run folder with `counts[k]` particles in class k, in an order that mixes the classes."""
    generator = np.random.default_rng(0)
    num_particles, num_classes = sum(counts), len(counts)
    labels = generator.permutation(np.repeat(np.arange(num_classes), counts))
    probability = 0.1 * generator.dirichlet(np.ones(num_classes), num_particles)
    probability[np.arange(num_particles), labels] += 0.9
    rotation = Rotation.random(num_particles * num_tilts, rng=generator).as_matrix()
    conformation = generator.normal(size=(num_particles, z_dim)) * (2.0 / (1 + np.arange(z_dim)))
    folder = RunFolder(path)
    folder.results.mkdir(parents=True)
    latents = Latents(
        rotation=rotation.reshape(num_particles, num_tilts, 3, 3),
        shift_px=np.zeros((num_particles, num_tilts, 2)),
        class_probability=probability,
        conformation=conformation,
        conformation_std=np.zeros((num_particles, 0)),
        log_evidence=np.zeros(num_particles),
        particle_index=first_particle + np.arange(num_particles),
    )
    write_latents(folder.latents_path(epoch), latents)
    mixture = build_mixture(
        BlobFieldConfig(),
        num_classes=num_classes,
        box_size=box_size,
        z_dim=z_dim,
        generator=torch.Generator().manual_seed(1),
    )
    if twins:
        mixture.fields[1].load_state_dict(mixture.fields[0].state_dict())
    checkpoint = Checkpoint(
        epoch=epoch,
        field_name="test-blobs",
        field_settings={},
        box_size=box_size,
        pixel_size_angstrom=3.5,
        z_dim=z_dim,
        num_classes=num_classes,
        mixture_state=mixture.state_dict(),
        extra=extra or {},
    )
    save_checkpoint(folder.weights_path(epoch), checkpoint)
    folder.train_configs_path.write_text(yaml.safe_dump({"n_classes": num_classes, "z_dim": z_dim, "seed": 7}))
    lines = [
        {"images": 100 * step, "epoch": step // 20, "stage": stage, "loss": start + math.exp(-step / 20)}
        for stage, start in (("ab initio", 5.0), ("refinement", 1.0))
        for step in range(40)
    ]
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"images": 12')
    return folder


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the usual dots, to save time; what a picture shows is the same."""
    monkeypatch.setattr(drawing, "_DOTS_PER_INCH", 90)


MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run into a folder of the test's own."""

    def make(counts: list[int], z_dim: int, **options: object) -> RunFolder:
        return write_run(tmp_path / "run", counts, z_dim, **options)  # type: ignore[arg-type]

    return make
