"""What is known of each particle: what the report and the explorer can plot, colour by and select on."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.analysis.latent import fit_principal_components
from cryohydra.analysis.run import Run
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import UserError
from cryohydra.geometry.rotations import matrix_to_euler
from cryohydra.io.pickles import read_pickle

_MOST_NAMES = 60
"""Labels that can be told apart by colour, at most."""


@dataclass(frozen=True)
class Quantity:
    """A number known of each particle, or to which of some categories it belongs."""

    key: str
    name: str
    """With its unit."""
    group: str
    """Under which heading it is offered."""
    values: Callable[[], np.ndarray]
    """One number per particle; NaN where it is not known."""
    categories: tuple[str, ...] = ()
    """Names of the values 0, 1, ...; none for numbers."""


def quantities_of_run(run: Run, kmeans: int = -1) -> list[Quantity]:
    """All that an epoch of a run knows of its particles, in the order of its latents.

    Args:
        kmeans: Number of groups of the analysis to show; -1 takes the fewest that there are.
    """
    return [
        *_conformation(run),
        *_umap(run),
        *_states(run),
        *_kmeans(run, kmeans),
        *_classes(run),
        *_pose_and_place(run),
    ]


def quantities_of_particles(particles: ParticleSet) -> list[Quantity]:
    """All that the input says of the particles, in its own order; of tilt series, of the first tilt."""
    optics = particles.source.optics(torch.arange(len(particles.source)))
    defocus_u, defocus_v = optics.defocus_u_angstrom[:, 0], optics.defocus_v_angstrom[:, 0]
    group = optics.group[:, 0]
    found = [
        Quantity("defocus", "defocus (µm)", "Input", lambda: mean_defocus(particles) / 1e4),
        Quantity("astigmatism", "astigmatism (Å)", "Input", lambda: (defocus_u - defocus_v).abs().numpy()),
    ]
    if group.max() > 0:
        names = tuple(f"optics group {number + 1}" for number in range(int(group.max()) + 1))
        found.append(Quantity("optics_group", "optics group", "Input", group.numpy, names))
    if particles.micrograph is not None:
        found.append(Quantity("micrograph", "number of the micrograph", "Input", particles.micrograph.numpy))
    if particles.labels is not None:
        different, label = np.unique(particles.labels.numpy(), return_inverse=True)
        names = tuple(f"label {value}" for value in different) if len(different) <= _MOST_NAMES else ()
        values = label if names else particles.labels.numpy()
        found.append(Quantity("label", "label", "Input", lambda: values, names))
    return found


def mean_defocus(particles: ParticleSet) -> Float[np.ndarray, "n"]:
    """Of each particle, over its tilts and both axes, in angstrom."""
    optics = particles.source.optics(torch.arange(len(particles.source)))
    return (optics.defocus_u_angstrom + optics.defocus_v_angstrom).mean(1).double().numpy() / 2


def class_names(count: int) -> tuple[str, ...]:
    """What classes are called, counted from 0 as everywhere on the command line."""
    return tuple(f"class {index}" for index in range(count))


def _conformation(run: Run) -> Iterator[Quantity]:
    group = "Conformation"
    for number in range(run.z_dim if run.z_dim > 1 else 0):
        yield Quantity(f"pc_{number}", f"PC{number + 1} of its class", group, partial(_component, run, number))
    for number in range(run.z_dim):
        yield Quantity(f"z_{number}", f"z{number + 1}", group, partial(_take, run.latents.conformation, number))
    for number in range(run.latents.conformation_std.shape[1]):
        spread = partial(_take, run.latents.conformation_std, number)
        yield Quantity(f"z_std_{number}", f"uncertainty of z{number + 1}", group, spread)


def _take(table: Float[np.ndarray, "n c"], number: int) -> Float[np.ndarray, "n"]:
    return table[:, number]


def _component(run: Run, number: int) -> Float[np.ndarray, "n"]:
    """Along a principal component of each particle's own class: conformations of two classes do not compare."""
    found = np.full(len(run.latents), np.nan)
    for class_index in range(run.num_classes):
        members = run.members(class_index)
        if len(members):
            conformation = run.latents.conformation[members].astype(np.float64)
            found[members] = fit_principal_components(conformation).project(conformation)[:, number]
    return found


def _umap(run: Run) -> Iterator[Quantity]:
    files = [run.folder.class_analysis_path(run.epoch, index) / "umap.pkl" for index in range(run.num_classes)]
    if any(file.exists() for file in files):
        for axis in range(2):
            values = partial(_of_classes, run, files, axis, num_columns=2)
            yield Quantity(f"umap_{axis}", f"UMAP {axis + 1}", "Conformation", values)


def _states(run: Run) -> Iterator[Quantity]:
    """States that `analyze` told apart, each class's own; nothing if no class has more than one."""
    files = [run.folder.class_analysis_path(run.epoch, k) / "states" / "labels.pkl" for k in range(run.num_classes)]
    if not any(file.exists() for file in files):
        return
    labels = _of_classes(run, files, 0, num_columns=1)
    count = 1 + int(np.nanmax(np.append(labels, 0)))
    if count > 1:
        names = tuple(f"state {number}" for number in range(count))
        yield Quantity("state", "state in its class", "Conformation", lambda: labels, names)


def _kmeans(run: Run, wanted: int) -> Iterator[Quantity]:
    """The groups that `analyze` made, those of each class counted on from those of the classes before it."""
    folders = run.folder.analysis_path(run.epoch).glob("class_*/kmeans*")
    found = sorted({int(match.group(1)) for path in folders if (match := re.fullmatch(r"kmeans(\d+)", path.name))})
    if wanted == -1 and not found:
        return
    if wanted != -1 and wanted not in found:
        raise UserError(
            f"{run.folder.analysis_path(run.epoch)} holds no kmeans{wanted}; there are "
            f"{', '.join(f'kmeans{count}' for count in found) or 'none'}. "
            f"Make it with `drgnai analyze {run.folder.path} --ksample {wanted}`, or leave --kmeans out."
        )
    count = found[0] if wanted == -1 else wanted
    paths = [
        run.folder.class_analysis_path(run.epoch, index) / f"kmeans{count}" / "labels.pkl"
        for index in range(run.num_classes)
    ]

    def groups() -> Float[np.ndarray, "n"]:
        labels = _of_classes(run, paths, 0, num_columns=1)
        return np.where(labels < 0, np.nan, labels)

    names = tuple(f"group {number}" for number in range(count))
    yield Quantity("kmeans", "k-means group in its class", "Conformation", groups, names)


def _of_classes(run: Run, paths: list[Path], wanted: int, *, num_columns: int) -> Float[np.ndarray, "n"]:
    """A column of what the analysis of each class wrote of the class's own particles, put together."""
    best_class = run.latents.best_class
    found = np.full((len(run.latents), num_columns), np.nan)
    for class_index, path in enumerate(paths):
        if path.exists():
            values = np.asarray(read_pickle(path), dtype=np.float64)
            if values.size != found.size:
                raise UserError(
                    f"{path} holds {values.size} numbers; wanted {num_columns} for each of {len(found)} particles. "
                    "Analyse the epoch again."
                )
            found[best_class == class_index] = values.reshape(found.shape)[best_class == class_index]
    return found[:, wanted]


def _classes(run: Run) -> Iterator[Quantity]:
    probability = run.latents.class_probability
    names = class_names(run.num_classes)
    yield Quantity("class", "class", "Class", lambda: run.latents.best_class, names)
    yield Quantity("certainty", "probability of its class", "Class", lambda: probability.max(axis=1))
    for index, name in enumerate(names):
        yield Quantity(f"p_{index}", f"probability of {name}", "Class", partial(_take, probability, index))
    yield Quantity("log_evidence", "log evidence", "Class", lambda: run.latents.log_evidence)
    yield Quantity("junk", "probability of being noise alone", "Class", lambda: run.junk_probability)


def _pose_and_place(run: Run) -> Iterator[Quantity]:
    yield Quantity("particle", "number in the particle file", "Pose and place", lambda: run.latents.particle_index)
    for axis, name in enumerate(("rot", "tilt", "psi")):
        yield Quantity(f"angle_{name}", f"{name} (°)", "Pose and place", partial(_euler_degrees, run, axis))
    for axis, name in enumerate("xy"):
        values = partial(_take, run.latents.shift_px[:, 0], axis)
        yield Quantity(f"shift_{name}", f"{name} of the particle (px)", "Pose and place", values)


def _euler_degrees(run: Run, axis: int) -> Float[np.ndarray, "n"]:
    """One of RELION's angles; of tilt series, of the first tilt."""
    rotation = torch.from_numpy(np.ascontiguousarray(run.latents.rotation[:, 0]))
    return matrix_to_euler(rotation)[:, axis].rad2deg().numpy()


def align(known: Int[np.ndarray, "m"], wanted: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Where each wanted particle is among the known ones; -1 where it is not."""
    if not len(known):
        return np.full(len(wanted), -1)
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], wanted).clip(0, len(known) - 1)
    return np.where(known[order][place] == wanted, order[place], -1)


def column(quantity: Quantity, rows: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """A quantity of the particles at these rows, as float32; NaN where a row is -1."""
    values = np.asarray(quantity.values(), dtype=np.float32)
    found = np.full(len(rows), np.nan, dtype=np.float32)
    found[rows >= 0] = values[rows[rows >= 0]]
    return found
