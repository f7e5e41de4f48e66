"""What a user may ask of an analysis."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AnalyzeOptions:
    """What to compute from a run folder; the flags of `drgnai analyze`.

    Particles are named by their number in the particle file as it was given, before any `ind`, counted from zero:
    the same numbers as in `ind` files, in `centers_ind.txt` and in `particle_index` of the latents.
    """

    epoch: int = -1
    """Epoch to analyse; -1 takes the last one saved."""
    skip_umap: bool = False
    """Leave the UMAP embedding out."""
    pc: int = 2
    """Principal components to traverse; no more than the conformation has."""
    n_per_pc: int = 10
    """Volumes along each component, from the 5th to the 95th percentile; also along a one-dimensional conformation."""
    ksample: int = 20
    """Volumes at k-means centres; no more than the class has particles."""
    seed: int = -1
    """Seed of k-means and UMAP; -1 takes the seed of the run."""
    invert: bool = False
    """Flip the sign of the volumes that are written."""
    sample_z_idx: tuple[int, ...] = ()
    """Particles at whose conformations volumes are written, each in the folder of its own class."""
    trajectory_1d: tuple[int, int, int] | None = None
    """Particles i and j of one class and a number of volumes on the straight line between them."""
    direct_traversal_txt: Path | None = None
    """File of particle numbers whose conformations are visited in order."""
    z_values_txt: Path | None = None
    """File of conformations, one row of `z_dim` numbers each, at which every chosen class is drawn."""
    class_idx: tuple[int, ...] = ()
    """Classes to analyse, counted from zero; none means all."""
