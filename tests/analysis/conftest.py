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

from cryohydra.analysis import Run, drawing
from cryohydra.data.particles import ParticleSet
from cryohydra.data.sources import ArraySource
from cryohydra.fields.base import FIELDS, Field, FieldConfig
from cryohydra.fourier.band import Band, largest_radius
from cryohydra.fourier.hartley import hartley_to_image, shift_hartley
from cryohydra.fourier.lattice import slice_frequencies
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.model.mixture import build_mixture
from cryohydra.physics.ctf import Optics, contrast_transfer

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
        self.register_buffer("hand", torch.ones(()))

    def set_radial_amplitude(self, amplitude: torch.Tensor) -> None:
        """Not needed here."""

    def mirror(self) -> None:
        """Blobs at the opposite places, which move the opposite way."""
        self.centres.data.neg_()
        self.hand.neg_()

    def forward(self, frequencies: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Coefficients of the blobs."""
        move = torch.zeros(*z.shape[:-1], 5, 3)
        if self.z_dim:
            move[..., 0, 0] = self.hand * z[..., 0]
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
    shift: float = 0.0,
    follows_view: bool = False,
    two_states_of: int | None = None,
    extra: dict[str, object] | None = None,
) -> RunFolder:
    """A run folder with `counts[k]` particles in class k, in an order that mixes the classes.

    Args:
        shift: Standard deviation of the shifts, in pixels.
        follows_view: Whether the first number of z tells the viewing direction.
        two_states_of: A class in which it is near -3 or near 3; that of the others is near 0.
    """
    generator = np.random.default_rng(0)
    num_particles, num_classes = sum(counts), len(counts)
    labels = generator.permutation(np.repeat(np.arange(num_classes), counts))
    probability = 0.1 * generator.dirichlet(np.ones(num_classes), num_particles)
    probability[np.arange(num_particles), labels] += 0.9
    rotation = Rotation.random(num_particles * num_tilts, rng=generator).as_matrix()
    conformation = generator.normal(size=(num_particles, z_dim)) * (2.0 / (1 + np.arange(z_dim)))
    if follows_view:
        conformation[:, 0] = 4 * rotation[::num_tilts, 2, 2]
    if two_states_of is not None:
        far = 3.0 * generator.choice([-1, 1], num_particles)
        conformation[:, 0] = np.where(labels == two_states_of, far, 0) + 0.05 * conformation[:, 0]
    folder = RunFolder(path)
    folder.results.mkdir(parents=True)
    latents = Latents(
        rotation=rotation.reshape(num_particles, num_tilts, 3, 3),
        shift_px=shift * generator.normal(size=(num_particles, num_tilts, 2)),
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


def particles_of(folder: RunFolder, epoch: int = 3, noise: float = 0.05) -> ParticleSet:
    """What such a run was trained on: images as it predicts them, in noise, each with its own defocus.

    Args:
        noise: Over the standard deviation of the images without noise.
    """
    run = Run.open(folder.path, epoch)
    latents, box_size = run.latents, run.mixture.box_size
    generator = torch.Generator().manual_seed(2)
    num_particles, num_tilts = latents.rotation.shape[:2]
    ones = torch.ones(num_particles, num_tilts)
    defocus = (8000 + 9000 * torch.rand(num_particles, 1, generator=generator)).expand_as(ones)
    optics = Optics(
        pixel_size_angstrom=3.5 * ones, defocus_u_angstrom=defocus, defocus_v_angstrom=defocus, defocus_angle=0 * ones,
        voltage_kv=300 * ones, spherical_aberration_angstrom=2.7e7 * ones, amplitude_contrast=0.1 * ones,
        phase_shift=0 * ones, scale=ones, dose_electrons_per_square_angstrom=0 * ones,
        group=torch.zeros_like(ones).long(),
    )  # fmt: skip
    band = Band(box_size, largest_radius(box_size))
    z = torch.from_numpy(latents.conformation).float()
    images = torch.empty(num_particles, num_tilts, box_size, box_size)
    transfer = contrast_transfer(optics, band.frequencies)
    with torch.no_grad():
        for row, label in enumerate(latents.best_class):
            rotation = torch.from_numpy(latents.rotation[row]).float()
            cut = run.mixture.field(int(label))(slice_frequencies(band, rotation), z[row].expand(num_tilts, -1))
            shift = torch.from_numpy(latents.shift_px[row]).float()
            images[row] = hartley_to_image(band.scatter(shift_hartley(transfer[row] * cut, band.frequencies, shift)))
    images += noise * images.std() * torch.randn(images.shape, generator=generator)
    return ParticleSet(
        source=ArraySource(images, optics, 3.5),
        poses=None,
        has_shifts=False,
        labels=torch.from_numpy(latents.particle_index % 3),
        index=torch.from_numpy(latents.particle_index),
        rows=torch.from_numpy(latents.particle_index)[:, None],
        notes=(),
    )


def write_proof(folder: RunFolder, resolutions: list[float], epoch: int = 3) -> None:
    """Correlations of half maps of the first classes, as a measurement of them leaves them."""
    proof = folder.results / f"proof_{epoch}_shared"
    proof.mkdir()
    frequency = np.arange(13) / (24 * 3.5)
    for class_index, resolution in enumerate(resolutions):
        record = {
            "class": class_index,
            "halves": "shared poses, not gold standard",
            "resolution_angstrom": {"corrected": {"0.143": resolution, "0.5": 2 * resolution}},
            "sentences": [],
            "captions": {},
        }
        (proof / f"class_{class_index}.json").write_text(json.dumps(record))
        rows = [f"{f:.6f},{1 / (1 + (f * resolution) ** 8):.6f}" for f in frequency]
        text = "\n".join(["frequency_per_angstrom,corrected", *rows])
        (proof / f"class_{class_index}_fsc.csv").write_text(text + "\n")


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
