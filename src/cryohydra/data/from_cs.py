"""Images, optics and poses from cryoSPARC's .cs files."""

from pathlib import Path

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.data.aberrations import cs_aberration_notes
from cryohydra.data.passthrough import with_passthrough
from cryohydra.data.table import ImageTable, refer_to_images, rescale_to_box
from cryohydra.errors import Complain, UnreadableFile, stop
from cryohydra.geometry.rotations import rotation_vector_to_matrix
from cryohydra.io.cs import read_cs

_CTF_FIELDS = ("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast")
_MICROGRAPH = "location/micrograph_path"


def read_cs_particles(path: Path, datadir: Path | None, complain: Complain = stop) -> ImageTable:
    """The images that a .cs file describes.

    Raises:
        UserError: If it cannot be read or describes no images.
    """
    records, notes = with_passthrough(path, read_cs(path))
    names = records.dtype.names or ()
    references = refer_to_images(
        path,
        *cs_image_names(path, records),
        datadir,
        stated_box_size=int(records["blob/shape"][0, 0]) if "blob/shape" in names and len(records) else 0,
        complain=complain,
    )
    ctf = cs_ctf(records, references.box_size)
    rotation, shift_px = cs_poses(records, None if ctf is None else ctf[:, 1])
    num_images = len(records)
    group = records["ctf/exp_group_id"] if "ctf/exp_group_id" in names else np.zeros(num_images, dtype=np.int64)
    return ImageTable(
        origin=path,
        references=references,
        ctf=ctf,
        scale=records["ctf/scale"].astype(np.float64) if "ctf/scale" in names else np.ones(num_images),
        dose=None,
        group=np.unique(group, return_inverse=True)[1],
        rotation=rotation,
        shift_px=shift_px,
        particle=None,
        # The sign by which cryoSPARC multiplies images to make particles white.
        is_white=records["blob/sign"] > 0 if "blob/sign" in names else None,
        habit_is_white=False,
        notes=notes + cs_aberration_notes(records, ctf, references.box_size),
        half=records["alignments3D/split"].astype(np.int64) % 2 if "alignments3D/split" in names else None,
        micrograph=np.unique(records[_MICROGRAPH], return_inverse=True)[1] if _MICROGRAPH in names else None,
    )


def cs_image_names(path: Path, records: np.ndarray) -> tuple[np.ndarray, Int[np.ndarray, "n"]]:
    """The file of each image, and the image's number in it, from 0.

    Raises:
        UnreadableFile: If the records name no images.
    """
    if not {"blob/path", "blob/idx"} <= set(records.dtype.names or ()):
        raise UnreadableFile(
            f"{path} lacks blob/path or blob/idx; wanted a .cs of particles that names its images. "
            "Give the file of the job that extracted or imported the particles, or put it beside this one as "
            "..._passthrough_....cs."
        )
    # A path relative to the project begins with ">".
    files = np.char.lstrip(np.char.decode(records["blob/path"].astype(bytes)), ">")
    return files, records["blob/idx"].astype(np.int64)


def cs_ctf(records: np.ndarray, box_size: int) -> Float[np.ndarray, "n 9"] | None:
    """CTF rows for images of `box_size`, None if the file has none."""
    names = records.dtype.names or ()
    if not set(_CTF_FIELDS) | {"blob/psize_A"} <= set(names):
        return None
    own_box = records["blob/shape"][:, 0] if "blob/shape" in names else np.full(len(records), box_size)
    phase_shift = records["ctf/phase_shift_rad"] if "ctf/phase_shift_rad" in names else np.zeros(len(records))
    defocus_u, defocus_v, angle, voltage, aberration, contrast = (records[name] for name in _CTF_FIELDS)
    table = [
        own_box,
        records["blob/psize_A"],
        defocus_u,
        defocus_v,
        np.rad2deg(angle),
        voltage,
        aberration,
        contrast,
        np.rad2deg(phase_shift),
    ]
    return rescale_to_box(np.stack([column.astype(np.float64) for column in table], axis=1), box_size)


def cs_poses(
    records: np.ndarray, pixel_size: Float[np.ndarray, "n"] | None
) -> tuple[Float[np.ndarray, "n 3 3"] | None, Float[np.ndarray, "n 2"] | None]:
    """Rotations, and where particles are: minus the file's shift, which is in pixels of its own size.

    Args:
        pixel_size: Of the images, in angstrom.
    """
    names = records.dtype.names or ()
    if "alignments3D/pose" not in names:
        return None, None
    vector = torch.from_numpy(records["alignments3D/pose"].astype(np.float64))
    rotation = rotation_vector_to_matrix(vector).transpose(-1, -2).numpy()
    if "alignments3D/shift" not in names:
        return rotation, None
    shift = records["alignments3D/shift"].astype(np.float64)
    if "alignments3D/psize_A" in names and pixel_size is not None:
        shift = shift * (records["alignments3D/psize_A"].astype(np.float64) / pixel_size)[:, None]
    return rotation, -shift
