"""cryoSPARC's .cs files of particles, with the .csg by which it imports them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.data.findings import ImageBox, ImageFindings, ParticleFile
from cryohydra.data.from_cs import cs_poses
from cryohydra.data.passthrough import rows_of_uids, with_passthrough
from cryohydra.errors import InputMismatch, UnreadableFile
from cryohydra.geometry.rotations import matrix_to_rotation_vector
from cryohydra.io.cs import read_cs, with_columns, write_cs, write_csg

# What cryoSPARC itself keeps of a 3D alignment, and the values for what it measures and a run does not.
_ALIGNMENT: list[tuple[str, Any, int]] = [
    ("split", "<u4", 0), ("shift", ("<f4", (2,)), 0), ("pose", ("<f4", (3,)), 0), ("psize_A", "<f4", 0),
    ("error", "<f4", 0), ("error_min", "<f4", 0), ("resid_pow", "<f4", 0), ("slice_pow", "<f4", 0),
    ("image_pow", "<f4", 0), ("cross_cor", "<f4", 0), ("alpha", "<f4", 1), ("alpha_min", "<f4", 1),
    ("weight", "<f4", 0), ("pose_ess", "<f4", 1), ("shift_ess", "<f4", 1), ("class_posterior", "<f4", 1),
    ("class", "<u4", 0), ("class_ess", "<f4", 1),
]  # fmt: skip
_NEEDED = ("split", "shift", "pose", "psize_A", "class_posterior", "class")


@dataclass(frozen=True, eq=False)
class CsFile(ParticleFile):
    """A .cs file of particles."""

    path: Path
    records: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "CsFile":
        """Read it, with what it lacks from passthrough files beside it, as a training does."""
        records, _ = with_passthrough(path, read_cs(path))
        if not {"uid", "blob/path", "blob/idx"} <= set(records.dtype.names or ()):
            raise UnreadableFile(
                f"{path} lacks uid, blob/path or blob/idx; wanted a .cs of particles that names its images. "
                "If it is a passthrough file, give the file it goes with."
            )
        return cls(path, records)

    def write(self, path: Path) -> None:
        """Write it, and beside it the .csg of the same name."""
        write_cs(path, self.records)
        write_csg(path.with_suffix(".csg"), path, self.records)

    def __len__(self) -> int:
        return len(self.records)

    def first_image(self) -> str:
        """The stack of the first image, from the project's folder."""
        if not len(self.records):
            raise UnreadableFile(f"{self.path} describes no image; wanted at least one row.")
        return bytes(self.records["blob/path"][0]).decode().lstrip(">")

    def box_size_px(self) -> Float[np.ndarray, "n"] | None:
        """The shape of the blob."""
        return self.records["blob/shape"][:, 0].astype(np.float64) if self._has("blob/shape") else None

    def pixel_size_angstrom(self) -> Float[np.ndarray, "n"] | None:
        """That of the blob."""
        return self.records["blob/psize_A"].astype(np.float64) if self._has("blob/psize_A") else None

    def half(self) -> Int[np.ndarray, "n"] | None:
        """The split."""
        return self.records["alignments3D/split"].astype(np.int64) if self._has("alignments3D/split") else None

    def identity(self) -> np.ndarray | None:
        """The uid."""
        return self.records["uid"].astype(str)

    def joined(self, passthrough: Path) -> "CsFile":
        """With the columns of the passthrough file of the same job, found by uid.

        Raises:
            UserError: If it cannot be read, or lacks a particle of this file.
        """
        other = read_cs(passthrough)
        names = other.dtype.names or ()
        if "uid" not in names:
            raise UnreadableFile(f"{passthrough} has no column uid; wanted the passthrough file of {self.path}.")
        rows = rows_of_uids(self.records["uid"], other["uid"])
        if rows is None:
            raise InputMismatch(
                f"{passthrough} lacks particles of {self.path}; wanted the passthrough file of the same job."
            )
        new = [name for name in names if not self._has(name)]
        return replace(self, records=with_columns(self.records, {name: other[name][rows] for name in new}))

    def names_images_beside(self) -> bool:
        """Whether images are named from the folder of the .csg, as in exports of cryoSPARC."""
        return bool(len(self.records)) and bytes(self.records["blob/path"][0]).startswith(b">")

    def stale_columns(self) -> tuple[str, ...]:
        """Statistics of an alignment."""
        found = {name.partition("/")[2] for name in self.records.dtype.names or () if name.startswith("alignments3D/")}
        return tuple(f"alignments3D/{name}" for name, *_ in _ALIGNMENT if name in found and name not in _NEEDED)

    def having(self, findings: ImageFindings, box: ImageBox) -> "CsFile":
        """Poses as rotation vectors, shifts in pixels of the image, class from 0, probability as class posterior."""
        records, box = self.records[findings.row], box[findings.row]
        rotation = torch.from_numpy(findings.rotation).double().mT
        values = {
            "pose": matrix_to_rotation_vector(rotation).numpy(),
            # A file holds what brings the particle to the centre.
            "shift": -findings.shift_fraction * box.size_px[:, None],
            "psize_A": box.pixel_size_angstrom,
            "class": findings.class_index,
            "class_posterior": findings.class_probability,
            "split": findings.half,
        }
        columns = {}
        for name, kind, default in _ALIGNMENT:
            full = f"alignments3D/{name}"
            if name in values or not self._has("alignments3D/pose"):
                column = np.empty(len(records), dtype=records.dtype[full] if self._has(full) else kind)
                column[...] = values.get(name, default)
                columns[full] = column
        return replace(self, records=with_columns(records, columns))

    def findings(self, box: ImageBox) -> ImageFindings:
        """What is in its alignment.

        Raises:
            UnreadableFile: If a column is not there.
        """
        missing = [name for name in _NEEDED if not self._has(f"alignments3D/{name}")]
        rotation, shift_px = cs_poses(self.records, box.pixel_size_angstrom)
        if missing or rotation is None or shift_px is None:
            raise UnreadableFile(f"{self.path} lacks alignments3D/{missing[0]}; wanted a file that was exported.")
        return ImageFindings(
            row=np.arange(len(self)),
            rotation=rotation,
            shift_fraction=shift_px / box.size_px[:, None],
            class_index=self.records["alignments3D/class"].astype(np.int64),
            class_probability=self.records["alignments3D/class_posterior"].astype(np.float64),
            half=self.records["alignments3D/split"].astype(np.int64),
        )

    def is_same(self, other: ParticleFile) -> bool:
        """Byte by byte."""
        return (
            isinstance(other, CsFile)
            and self.records.dtype == other.records.dtype
            and self.records.tobytes() == other.records.tobytes()
        )

    def _has(self, name: str) -> bool:
        return name in (self.records.dtype.names or ())
