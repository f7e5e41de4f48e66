"""Simulated particles on disk: the files a user would have, and beside them what is true."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch

from cryohydra._typing import Bool, Float, Int
from cryohydra.errors import UnreadableFile, UserError
from cryohydra.geometry.rotations import matrix_to_euler
from cryohydra.io.atomic import write_atomically
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import read_map, write_map, write_stack
from cryohydra.io.pickles import write_pickle
from cryohydra.io.pose_file import write_pose_file
from cryohydra.io.star import StarTable, write_star
from cryohydra.physics.mixture_classes import MixtureClass
from cryohydra.physics.simulation import Imaging, SimulatedParticles, simulate_particles

_CHUNK = 256


@dataclass(frozen=True)
class Truth:
    """What is true of simulated particles."""

    labels: Int[np.ndarray, "n"]
    rotation: Float[np.ndarray, "n t 3 3"]
    """Acts on lattice rows."""
    shift_px: Float[np.ndarray, "n t 2"]
    """Where the particle is, (x, y), from the centre."""
    coordinate: Float[np.ndarray, "n"]
    """On the motion of the particle's class; zero in a rigid one."""
    contrast: Float[np.ndarray, "n"]
    """Zero where an image holds noise alone; its label and pose mean nothing."""
    class_names: tuple[str, ...]
    maps: Float[np.ndarray, "k d d d"]
    """Of each class, half-way along its motion."""
    symmetry: tuple[Float[np.ndarray, "_ 3 3"], ...]
    """For each class the rotations that leave its map as it is, acting on columns; at least the identity."""
    pseudo_symmetry: tuple[Float[np.ndarray, "_ 3 3"], ...]
    """The same with rotations that leave the map nearly as it is; no less than `symmetry`."""
    pixel_size_angstrom: float
    snr: float
    noise_power: Float[np.ndarray, "shells"]

    @property
    def is_junk(self) -> Bool[np.ndarray, "n"]:
        """Whether each image holds noise alone."""
        return self.contrast == 0

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def box_size(self) -> int:
        return self.maps.shape[-1]


def simulate_to_folder(
    folder: Path,
    classes: Sequence[MixtureClass],
    imaging: Imaging,
    num_images: int,
    seed: int,
    advanced: Callable[[int], None] = lambda count: None,
) -> Truth:
    """Simulate particles and write them, white on dark, with everything that is true of them.

    Writes particles.mrcs, particles.star (RELION 3.1), ctf.pkl, pose.pkl, labels.pkl, truth.npz and
    truth_class_K.mrc. Images go to disk as they are made: memory does not grow with their number.

    Raises:
        UserError: If the folder already holds particles, or the mixture cannot be simulated.
    """
    stack = folder / "particles.mrcs"
    if stack.exists():
        raise UserError(f"{stack} exists already and is not overwritten; choose another folder or remove it.")
    if num_images < 1:
        raise UserError(f"{num_images} images are asked for; wanted one or more.")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        particles = _write_images(stack, classes, imaging, num_images, seed, advanced)
    except UserError:
        if is_new:
            folder.rmdir()
        raise
    return _write_beside(folder, particles)


def _write_images(
    stack: Path,
    classes: Sequence[MixtureClass],
    imaging: Imaging,
    num_images: int,
    seed: int,
    advanced: Callable[[int], None],
) -> SimulatedParticles:
    """Simulate into a file, white on dark."""
    num_tilts, box_size = len(imaging.tilt_angles), classes[0].box_size if classes else 0
    with write_atomically(stack) as temporary:
        with mrcfile.new_mmap(temporary, (num_images * num_tilts, box_size, box_size), mrc_mode=2) as file:
            file.set_image_stack()
            file.voxel_size = imaging.pixel_size_angstrom
            images = torch.from_numpy(file.data).view(num_images, num_tilts, box_size, box_size)
            particles = simulate_particles(
                classes, imaging, num_images, torch.Generator().manual_seed(seed), images, advanced
            )
            for part in images.split(_CHUNK):
                part.neg_()
            file.update_header_stats()
    return particles


def write_dataset(folder: Path, particles: SimulatedParticles) -> Truth:
    """Write particles that are in memory, as `simulate_to_folder` does."""
    folder.mkdir(parents=True, exist_ok=True)
    white_on_dark = -particles.images.flatten(0, 1)
    write_stack(folder / "particles.mrcs", white_on_dark.numpy(), particles.pixel_size_angstrom)
    return _write_beside(folder, particles)


def _write_beside(folder: Path, particles: SimulatedParticles) -> Truth:
    """Everything but the images."""
    _write_metadata(folder, particles)
    truth = truth_of(particles)
    write_truth(folder, truth)
    return truth


def truth_of(particles: SimulatedParticles) -> Truth:
    """What is true of particles in memory."""
    identity = torch.eye(3)[None]
    groups = [identity if cls.symmetry is None else cls.symmetry for cls in particles.classes]
    pseudo_groups = [
        group if cls.pseudo_symmetry is None else cls.pseudo_symmetry
        for cls, group in zip(particles.classes, groups, strict=True)
    ]
    return Truth(
        labels=particles.labels.numpy(),
        rotation=particles.pose.rotation[:, :, 0].numpy(),
        shift_px=particles.pose.shift_px[:, :, 0].numpy(),
        coordinate=particles.coordinate.numpy(),
        contrast=particles.contrast.numpy(),
        class_names=tuple(cls.name for cls in particles.classes),
        maps=particles.maps.numpy(),
        symmetry=tuple(group.numpy() for group in groups),
        pseudo_symmetry=tuple(group.numpy() for group in pseudo_groups),
        pixel_size_angstrom=particles.pixel_size_angstrom,
        snr=particles.snr,
        noise_power=particles.noise_power.numpy(),
    )


_ARRAYS = ("labels", "rotation", "shift_px", "coordinate", "contrast", "noise_power")


def write_truth(folder: Path, truth: Truth) -> None:
    """Write truth.npz and truth_class_K.mrc."""
    for k, map_zyx in enumerate(truth.maps):
        write_map(folder / f"truth_class_{k}.mrc", map_zyx, truth.pixel_size_angstrom)
    stored: dict[str, Any] = {name: getattr(truth, name) for name in _ARRAYS}
    stored |= {f"symmetry_{k}": group for k, group in enumerate(truth.symmetry)}
    stored |= {f"pseudo_symmetry_{k}": group for k, group in enumerate(truth.pseudo_symmetry)}
    stored["class_names"] = np.array(truth.class_names)
    stored["pixel_size_angstrom"], stored["snr"] = np.array(truth.pixel_size_angstrom), np.array(truth.snr)
    with write_atomically(folder / "truth.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, **stored)


def read_truth(folder: Path) -> Truth:
    """Read what `write_truth` wrote.

    Raises:
        UnreadableFile: If a file is missing or damaged.
    """
    path = folder / "truth.npz"
    if not path.is_file():
        raise UnreadableFile(f"{path} does not exist; wanted the folder that `drgnai simulate` wrote.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = tuple(str(name) for name in stored["class_names"])
            symmetry = tuple(stored[f"symmetry_{k}"] for k in range(len(names)))
            # Sets that were simulated before these were recorded have none.
            pseudo = tuple(
                stored[f"pseudo_symmetry_{k}"] if f"pseudo_symmetry_{k}" in stored else symmetry[k]
                for k in range(len(names))
            )
            arrays = {name: stored[name] for name in _ARRAYS}
            pixel_size, snr = float(stored["pixel_size_angstrom"]), float(stored["snr"])
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise UnreadableFile(f"{path} cannot be read as a truth ({error}); simulate the set again.") from error
    maps = np.stack([read_map(folder / f"truth_class_{k}.mrc")[0] for k in range(len(names))])
    return Truth(
        **arrays,
        class_names=names,
        maps=maps,
        symmetry=symmetry,
        pseudo_symmetry=pseudo,
        pixel_size_angstrom=pixel_size,
        snr=snr,
    )


def _write_metadata(folder: Path, particles: SimulatedParticles) -> None:
    """The star and pickle files, one row per image, a particle's tilts one after another."""
    optics = particles.optics
    num_tilts, box_size = particles.images.shape[1], particles.images.shape[-1]
    pixel_size = particles.pixel_size_angstrom
    rotation = particles.pose.rotation[:, :, 0].flatten(0, 1)
    # Files hold what brings the particle to the centre.
    to_centre_px = -particles.pose.shift_px[:, :, 0].flatten(0, 1).double().numpy()
    ctf = np.stack(
        [
            np.full(len(rotation), float(box_size)),
            optics.pixel_size_angstrom.flatten(),
            optics.defocus_u_angstrom.flatten(),
            optics.defocus_v_angstrom.flatten(),
            optics.defocus_angle.rad2deg().flatten(),
            optics.voltage_kv.flatten(),
            optics.spherical_aberration_angstrom.flatten() * 1e-7,
            optics.amplitude_contrast.flatten(),
            optics.phase_shift.rad2deg().flatten(),
        ],
        axis=1,
    ).astype(np.float64)
    write_ctf_file(folder / "ctf.pkl", ctf)
    write_pose_file(folder / "pose.pkl", rotation.double().numpy(), to_centre_px / box_size)
    write_pickle(folder / "labels.pkl", particles.labels.numpy())

    euler = matrix_to_euler(rotation.double()).rad2deg().numpy()
    particle = np.repeat(np.arange(len(particles.labels)), num_tilts)
    columns: dict[str, np.ndarray] = {
        "rlnImageName": np.array([f"{row + 1:06d}@particles.mrcs" for row in range(len(rotation))]),
        "rlnOpticsGroup": optics.group.flatten().numpy() + 1,
        "rlnDefocusU": _decimals(ctf[:, 2], 2),
        "rlnDefocusV": _decimals(ctf[:, 3], 2),
        "rlnDefocusAngle": _decimals(ctf[:, 4], 4),
        "rlnPhaseShift": _decimals(ctf[:, 8], 4),
        "rlnAngleRot": _decimals(euler[:, 0], 4),
        "rlnAngleTilt": _decimals(euler[:, 1], 4),
        "rlnAnglePsi": _decimals(euler[:, 2], 4),
        "rlnOriginXAngst": _decimals(to_centre_px[:, 0] * pixel_size, 4),
        "rlnOriginYAngst": _decimals(to_centre_px[:, 1] * pixel_size, 4),
        "rlnClassNumber": particles.labels.numpy()[particle] + 1,
    }
    if num_tilts > 1:
        columns["rlnGroupName"] = np.array([f"particle_{index:06d}" for index in particle])
        columns["rlnCtfScalefactor"] = _decimals(optics.scale.flatten().numpy(), 6)
        columns["rlnMicrographPreExposure"] = _decimals(optics.dose_electrons_per_square_angstrom.flatten().numpy(), 4)
    group = {
        "rlnOpticsGroup": ["1"],
        "rlnOpticsGroupName": ["simulated"],
        "rlnVoltage": [f"{ctf[0, 5]:g}"],
        "rlnSphericalAberration": [f"{ctf[0, 6]:g}"],
        "rlnAmplitudeContrast": [f"{ctf[0, 7]:g}"],
        "rlnImagePixelSize": [f"{pixel_size:g}"],
        "rlnImageSize": [str(box_size)],
        "rlnImageDimensionality": ["2"],
    }
    blocks = {
        "optics": StarTable({name: np.array(values) for name, values in group.items()}),
        "particles": StarTable(columns),
    }
    write_star(folder / "particles.star", blocks)


def _decimals(values: np.ndarray, count: int) -> np.ndarray:
    return np.array([f"{value:.{count}f}" for value in values])
