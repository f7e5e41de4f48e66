"""How half maps of each class agree, where that has been measured."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cryohydra.errors import UnreadableFile
from cryohydra.io.run_folder import RunFolder


@dataclass(frozen=True)
class FscCurve:
    """The Fourier shell correlation of one class's half maps."""

    class_index: int
    halves: str
    """How they were made, for the reader of a figure."""
    frequency_per_angstrom: Float[np.ndarray, "m"]
    correlation: Float[np.ndarray, "m"]
    """Masked, less what the mask adds."""
    resolution_angstrom: float
    """At 0.143."""


def read_fsc_curves(folder: RunFolder, epoch: int) -> tuple[FscCurve, ...]:
    """The curves in `proof_E_KIND/class_k.json` and `class_k_fsc.csv` beside it; none if nothing was measured.

    Raises:
        UnreadableFile: If they are damaged.
    """
    return tuple(_read(path) for path in sorted(folder.results.glob(f"proof_{epoch}_*/class_*.json")))


def _read(path: Path) -> FscCurve:
    try:
        record = json.loads(path.read_text())
        with open(path.with_name(f"{path.stem}_fsc.csv"), newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError("no rows")
        return FscCurve(
            class_index=int(record["class"]),
            halves=str(record["halves"]),
            frequency_per_angstrom=np.array([float(row["frequency_per_angstrom"]) for row in rows]),
            correlation=np.array([float(row["corrected"]) for row in rows]),
            resolution_angstrom=float(record["resolution_angstrom"]["corrected"]["0.143"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(
            f"{path} and the correlations beside it cannot be read ({type(error).__name__}: {error}); "
            f"measure them again, or move {path.parent} away."
        ) from error
