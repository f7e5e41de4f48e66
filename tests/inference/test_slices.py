"""Slices of rendered fields against the fields themselves."""

import pytest
import torch

from cryohydra.fields import MLPFieldConfig
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.rotations import random_rotations
from cryohydra.geometry.so3_grid import num_rotations
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.model.fitting import fit_field_to_lattice
from cryohydra.model.mixture import Mixture
from cryohydra.model.slices import OVERSAMPLING, FieldSlices, render_lattices

RADIUS = 9


@pytest.fixture(scope="module")
def mixture(blobs) -> Mixture:
    """Two fields trained on densities that lie within a quarter of the box of its centre."""
    generator = torch.Generator().manual_seed(0)
    config = MLPFieldConfig(layers=2, width=64, pe_dim=32)
    lattice = Lattice(32, RADIUS)
    margin = lattice.size // 2 - RADIUS * lattice.oversampling
    fields = []
    for values in blobs.on_lattice(lattice):
        field = config.build(box_size=32, z_dim=1, generator=generator)
        target = values[margin:-margin, margin:-margin, margin:-margin]
        left = fit_field_to_lattice(
            field, target, torch.ones_like(target), 32, RADIUS, 2, z=torch.zeros(1), generator=generator, steps=400
        )
        assert left < 0.03
        fields.append(field)
    return Mixture(fields, 32)


def test_slices_of_rendered_fields_differ_from_fields_by_less_than_a_hundredth(mixture: Mixture) -> None:
    conformation = torch.tensor([[0.3], [-0.2]])
    lattice, band = Lattice(32, RADIUS, OVERSAMPLING), Band(32, RADIUS)
    rendered = LatticeSlices.of_maps(lattice, render_lattices(mixture, conformation, lattice), GridSlicers())
    exact = FieldSlices(mixture, conformation)
    rotations = random_rotations(40, torch.Generator().manual_seed(1))
    expected, found = exact.on_grid(band, rotations), rendered.on_grid(band, rotations)
    assert float((found - expected).norm() / expected.norm()) < 0.01
    which = torch.arange(40) % 2
    expected, found = (source.of_candidates(band, which, rotations) for source in (exact, rendered))
    assert float((found - expected).norm() / expected.norm()) < 0.01


def test_candidates_are_cut_as_grids_are(mixture: Mixture) -> None:
    conformation = torch.zeros(2, 1)
    lattice, band = Lattice(32, RADIUS, OVERSAMPLING), Band(32, RADIUS)
    rotations = random_rotations(7, torch.Generator().manual_seed(2))
    for slices in (
        FieldSlices(mixture, conformation),
        LatticeSlices.of_maps(lattice, render_lattices(mixture, conformation, lattice), GridSlicers()),
    ):
        on_grid = slices.on_grid(band, rotations)
        for k in range(2):
            one = slices.of_candidates(band, torch.full((7,), k), rotations)
            torch.testing.assert_close(one, on_grid[k], atol=1e-4 * float(on_grid.abs().max()), rtol=1e-3)


def test_cells_cut_ahead_by_two_are_those_cut_one_by_one(blobs) -> None:
    """Also those that are mirror images of what is cut."""
    lattice, band, level = Lattice(32, RADIUS), Band(32, RADIUS), 1
    slices = LatticeSlices.of_maps(lattice, blobs.on_lattice(lattice), GridSlicers())
    number = slices.num_cells(band, level)
    halves = [slices.cut_cells(band, level, range(number)[rank::2]) for rank in range(2)]
    generator = torch.Generator().manual_seed(0)
    which = torch.randint(2, (60,), generator=generator)
    cells = torch.randint(num_rotations(level), (60,), generator=generator)
    one_by_one = slices.of_cells(band, which, level, cells)
    assert not slices._cells and slices._num_asked == {(level, band.radius): 60}
    slices.keep_cells(band, level, torch.stack(halves, dim=1).flatten(0, 1))
    ahead = slices.of_cells(band, which, level, cells)
    torch.testing.assert_close(ahead, one_by_one, atol=1e-4 * float(one_by_one.abs().max()), rtol=1e-3)
    # Once enough are asked for, they are cut as they were ahead.
    later = LatticeSlices.of_maps(lattice, blobs.on_lattice(lattice), GridSlicers())
    for _ in range(2 * num_rotations(level) // 8 // 60 + 1):
        found = later.of_cells(band, which, level, cells)
    assert list(later._cells) == [(level, band.radius)] and torch.equal(found, ahead)


def test_few_grids_are_remembered() -> None:
    lattice, slicers = Lattice(16, 5), GridSlicers(num_kept=2)
    rotations = random_rotations(6, torch.Generator().manual_seed(0))
    first = slicers.slicer(lattice, Band(16, 3), rotations)
    assert slicers.slicer(lattice, Band(16, 3), rotations) is first
    slicers.slicer(lattice, Band(16, 4), rotations)
    slicers.slicer(lattice, Band(16, 5), rotations)
    assert slicers.slicer(lattice, Band(16, 3), rotations) is not first
