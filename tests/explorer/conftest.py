"""A small run whose particles lie in known places, and its explorer behind a server of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.transform import Rotation

from cryohydra.cli.explore import build_explorer
from cryohydra.explorer.server import ExplorerServer, serving
from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.mrc import write_map, write_stack
from cryohydra.io.pickles import write_pickle
from cryohydra.io.run_folder import RunFolder
from cryohydra.io.star import StarTable, write_star
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.model.mixture import build_mixture

NUM_IMAGES, NUM_USED, BOX_SIZE = 300, 240, 24
PIXEL_SIZE = 3.5
FIELD = MLPFieldConfig(layers=1, width=16, pe_dim=8)


def write_epoch(folder: RunFolder, epoch: int, latents: Latents) -> None:
    """Latents and untrained networks, one of each class, which answer to z."""
    folder.results.mkdir(parents=True, exist_ok=True)
    write_latents(folder.latents_path(epoch), latents)
    generator = torch.Generator().manual_seed(epoch)
    z_dim, num_classes = latents.conformation.shape[1], latents.class_probability.shape[1]
    mixture = build_mixture(FIELD, num_classes=num_classes, box_size=BOX_SIZE, z_dim=z_dim, generator=generator)
    for field in mixture.fields:
        field.set_radial_amplitude(torch.exp(-0.5 * (torch.arange(BOX_SIZE // 2 + 1) / 4) ** 2))
    state = mixture.state_dict()
    rotation, shift = torch.from_numpy(latents.rotation).float(), torch.from_numpy(latents.shift_px).float()
    of_each_class = [tensor[:, :, None].repeat_interleave(num_classes, dim=2) for tensor in (rotation, shift)]
    poses = dict(zip(("rotation", "shift_px"), of_each_class, strict=True))
    extra = {"scale": 2.0, "training": {"poses": poses}}
    save_checkpoint(
        folder.weights_path(epoch),
        Checkpoint(epoch, "mlp", FIELD.model_dump(), BOX_SIZE, PIXEL_SIZE, z_dim, num_classes, state, extra),
    )


def make_latents(particle_index: np.ndarray, z_dim: int = 2, num_tilts: int = 1, num_classes: int = 2) -> Latents:
    """Some classes; z1 of each is near -6 or near 6, so that a line at 0 parts them."""
    random = np.random.default_rng(0)
    count = len(particle_index)
    probability = random.uniform(0.6, 1.0, count)
    label = random.integers(num_classes, size=count)
    class_probability = np.repeat((1 - probability)[:, None] / (num_classes - 1), num_classes, axis=1)
    class_probability[np.arange(count), label] = probability
    conformation = random.normal(size=(count, z_dim))
    conformation[:, :1] += random.choice([-6.0, 6.0], size=(count, min(z_dim, 1)))
    return Latents(
        rotation=Rotation.random(count * num_tilts, rng=random).as_matrix().reshape(count, num_tilts, 3, 3),
        shift_px=random.normal(size=(count, num_tilts, 2)),
        class_probability=class_probability,
        conformation=conformation,
        conformation_std=np.zeros((count, 0)),
        log_evidence=random.normal(size=count),
        particle_index=particle_index,
    )


@dataclass(frozen=True)
class KnownRun:
    """A run folder and what is in it."""

    folder: RunFolder
    latents: Latents


@pytest.fixture
def known_run(tmp_path: Path) -> KnownRun:
    """Epochs 3 and 5 of a run of 240 of 300 images, in an order of their own."""
    random = np.random.default_rng(1)
    data = tmp_path / "data"
    data.mkdir()
    write_stack(data / "p.mrcs", random.normal(size=(NUM_IMAGES, BOX_SIZE, BOX_SIZE)).astype(np.float32), PIXEL_SIZE)
    ctf = np.tile([BOX_SIZE, PIXEL_SIZE, 0, 0, 0, 300, 2.7, 0.1, 0], (NUM_IMAGES, 1))
    ctf[:, 2] = ctf[:, 3] = 10000 + 100.0 * np.arange(NUM_IMAGES)
    write_ctf_file(data / "ctf.pkl", ctf)
    chosen = random.permutation(NUM_IMAGES)[:NUM_USED]
    write_pickle(data / "ind.pkl", chosen)
    write_pickle(data / "labels.pkl", np.arange(NUM_IMAGES) % 3)
    folder = RunFolder(tmp_path / "run")
    latents = make_latents(chosen)
    write_epoch(folder, 3, make_latents(chosen[::-1]))
    write_epoch(folder, 5, latents)
    settings = {"particles": "p.mrcs", "ctf": "ctf.pkl", "ind": "ind.pkl", "labels": "labels.pkl"}
    settings = {key: str(data / name) for key, name in settings.items()}
    folder.train_configs_path.write_text(yaml.safe_dump({**settings, "n_classes": 2, "z_dim": 2, "versions": {}}))
    return KnownRun(folder, latents)


@pytest.fixture
def starred_run(tmp_path: Path) -> KnownRun:
    """Epoch 2 of a run of three classes on all images of a .star file, whose maps were written."""
    random = np.random.default_rng(2)
    data = tmp_path / "starred" / "data"
    data.mkdir(parents=True)
    write_stack(data / "p.mrcs", random.normal(size=(NUM_IMAGES, BOX_SIZE, BOX_SIZE)).astype(np.float32), PIXEL_SIZE)
    names = np.array([f"{number + 1:06d}@p.mrcs" for number in range(NUM_IMAGES)])
    columns = {
        "rlnImageName": names,
        "rlnOpticsGroup": np.full(NUM_IMAGES, "1"),
        **{f"rlnDefocus{axis}": np.full(NUM_IMAGES, "12000.0") for axis in "UV"},
        "rlnDefocusAngle": np.full(NUM_IMAGES, "0.0"),
        "rlnGroupName": np.array([f"square {number % 7}" for number in range(NUM_IMAGES)]),
    }
    optics = {
        "rlnOpticsGroup": "1", "rlnOpticsGroupName": "one", "rlnVoltage": "300", "rlnSphericalAberration": "2.7",
        "rlnAmplitudeContrast": "0.1", "rlnImagePixelSize": f"{PIXEL_SIZE}", "rlnImageSize": f"{BOX_SIZE}",
        "rlnImageDimensionality": "2",
    }  # fmt: skip
    tables = {"optics": {name: np.array([value]) for name, value in optics.items()}, "particles": columns}
    write_star(data / "p.star", {name: StarTable(table, "made here") for name, table in tables.items()})
    folder = RunFolder(tmp_path / "starred" / "run")
    latents = make_latents(np.arange(NUM_IMAGES), num_classes=3)
    write_epoch(folder, 2, latents)
    for k in range(3):
        density = random.normal(size=(BOX_SIZE, BOX_SIZE, BOX_SIZE)).astype(np.float32)
        write_map(folder.map_path(2, k), density, PIXEL_SIZE)
    settings = {"particles": str(data / "p.star"), "n_classes": 3, "z_dim": 2, "invert_data": True, "versions": {}}
    folder.train_configs_path.write_text(yaml.safe_dump(settings))
    return KnownRun(folder, latents)


@pytest.fixture
def server(known_run: KnownRun) -> Iterator[ExplorerServer]:
    """The explorer of the known run, answering."""
    with serving(ExplorerServer(build_explorer(known_run.folder.path).routes())) as running:
        yield running
