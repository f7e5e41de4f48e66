"""What every particle source promises."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.data import ArraySource, ParticleSource, Subset, open_particles
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_stack
from cryohydra.io.star import StarTable, write_star
from cryohydra.physics.ctf import Optics

NUM_PARTICLES, NUM_TILTS, BOX_SIZE = 6, 3, 8
ROWS = NUM_PARTICLES * NUM_TILTS


def pixels() -> np.ndarray:
    """Images in which nothing repeats."""
    return np.random.default_rng(0).normal(size=(ROWS, BOX_SIZE, BOX_SIZE)).astype(np.float32)


def ctf_table() -> np.ndarray:
    """Optics that differ from row to row."""
    table = np.tile([BOX_SIZE, 2.0, 1e4, 9e3, 30, 300, 2.7, 0.1, 0], (ROWS, 1))
    table[:, 2] += np.arange(ROWS) * 100
    return table


def from_stack(folder: Path, lazy: bool) -> ParticleSource:
    write_stack(folder / "a.mrcs", pixels(), 2.0)
    write_ctf_file(folder / "ctf.pkl", ctf_table())
    return open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl", lazy=lazy).source


def from_tilt_series(folder: Path, lazy: bool) -> ParticleSource:
    write_stack(folder / "a.mrcs", pixels(), 2.0)
    write_ctf_file(folder / "ctf.pkl", ctf_table())
    table = {
        "rlnImageName": [f"{row + 1}@a.mrcs" for row in range(ROWS)],
        "rlnGroupName": [f"p{row % NUM_PARTICLES}" for row in range(ROWS)],
        "rlnCtfBfactor": [-4.0 * (ROWS - row) for row in range(ROWS)],
    }
    write_star(folder / "a.star", {"": StarTable({name: np.array(column) for name, column in table.items()})})
    ctf = folder / "ctf.pkl"
    return open_particles(folder / "a.star", ctf=ctf, lazy=lazy, num_tilts=NUM_TILTS).source


def from_array(folder: Path, lazy: bool) -> ParticleSource:
    images = torch.from_numpy(pixels()).unflatten(0, (NUM_PARTICLES, NUM_TILTS))
    ones = torch.ones(NUM_PARTICLES, NUM_TILTS)
    optics = Optics(**{field.name: ones * 0.1 for field in fields(Optics)} | {"group": ones.long()})
    return ArraySource(images, optics, 2.0)


def from_subset(folder: Path, lazy: bool) -> ParticleSource:
    return Subset(from_tilt_series(folder, lazy), torch.tensor([5, 0, 3, 2]))


SOURCES = [from_stack, from_tilt_series, from_array, from_subset]
Make = Callable[[Path, bool], ParticleSource]


def same_optics(one: Optics, other: Optics) -> bool:
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Optics))


@pytest.mark.parametrize("make", SOURCES)
def test_it_holds_what_it_describes(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, False)
    assert isinstance(source, ParticleSource)
    everything = torch.arange(len(source))
    images, optics = source.images(everything), source.optics(everything)
    assert images.shape == (len(source), source.num_tilts, source.box_size, source.box_size)
    assert images.dtype == torch.float32 and optics.pixel_size_angstrom.shape == images.shape[:2]
    assert source.pixel_size_angstrom == 2.0


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("lazy", [False, True])
def test_it_commutes_with_subsetting(make: Make, lazy: bool, tmp_path: Path) -> None:
    source = make(tmp_path, lazy)
    index = torch.tensor([3, 1, 2, 1])
    everything = torch.arange(len(source))
    assert torch.equal(source.images(index), source.images(everything)[index])
    assert same_optics(source.optics(index), source.optics(everything)[index])
    subset = Subset(source, torch.tensor([2, 0, 3]))
    assert torch.equal(subset.images(torch.tensor([2, 0])), source.images(torch.tensor([3, 2])))
    assert same_optics(subset.optics(torch.tensor([1])), source.optics(torch.tensor([0])))


@pytest.mark.parametrize("make", SOURCES)
def test_it_is_the_same_lazy_or_eager(make: Make, tmp_path: Path) -> None:
    eager, lazy = make(tmp_path, False), make(tmp_path, True)
    everything = torch.arange(len(eager))
    assert torch.equal(eager.images(everything), lazy.images(everything))
    assert same_optics(eager.optics(everything), lazy.optics(everything))


@pytest.mark.parametrize("make", SOURCES)
def test_no_particles_are_no_images(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, True)
    none = torch.arange(0)
    assert source.images(none).shape == (0, source.num_tilts, source.box_size, source.box_size)
    assert len(source.optics(none)) == 0
