"""A STAR file for images that came without one."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cryohydra._typing import Float, Int
from cryohydra.data.aberrations import cs_aberration_notes
from cryohydra.data.cs_file import CsFile
from cryohydra.data.from_cs import cs_ctf, cs_image_names
from cryohydra.data.from_star import STACK_SUFFIX
from cryohydra.data.star_file import StarFile
from cryohydra.data.table import rescale_to_box
from cryohydra.errors import InputMismatch, UserError
from cryohydra.io.star import StarTable


def new_star_file(
    origin: Path, stack: np.ndarray, row: Int[np.ndarray, "n"], box_size: int, ctf: Float[np.ndarray, "m 9"]
) -> StarFile:
    """Images with their CTF as RELION 3.1 lists them.

    Args:
        origin: What messages name.
        stack: Of each image, as it shall be named.
        row: In the stack, from 0.
        ctf: Columns as in a CTF file, for any box that these images were cropped from.

    Raises:
        InputMismatch: If the table has another number of images.
    """
    if len(ctf) != len(row):
        raise InputMismatch(
            f"The CTF table describes {len(ctf)} images but {origin} holds {len(row)}; give the table of these images."
        )
    ctf = rescale_to_box(ctf, box_size)
    # Pixel size, voltage, spherical aberration, amplitude contrast.
    groups, group = np.unique(ctf[:, [1, 5, 6, 7]], axis=0, return_inverse=True)
    # RELION takes a .mrc for a map unless it is told.
    stack = np.array([name if name.endswith(".mrcs") else name + STACK_SUFFIX for name in stack.tolist()])
    numbers = np.arange(1, len(groups) + 1).astype(str)
    optics = {
        "rlnOpticsGroup": numbers,
        "rlnOpticsGroupName": np.char.add("opticsGroup", numbers),
        "rlnVoltage": _decimals(groups[:, 1]),
        "rlnSphericalAberration": _decimals(groups[:, 2]),
        "rlnAmplitudeContrast": _decimals(groups[:, 3]),
        "rlnImagePixelSize": _decimals(groups[:, 0]),
        "rlnImageSize": np.full(len(groups), str(box_size)),
        "rlnImageDimensionality": np.full(len(groups), "2"),
    }
    particles = {
        "rlnImageName": np.char.add(np.char.mod("%06d@", row + 1), stack),
        "rlnOpticsGroup": numbers[group.reshape(-1)],
        "rlnDefocusU": _decimals(ctf[:, 2]),
        "rlnDefocusV": _decimals(ctf[:, 3]),
        "rlnDefocusAngle": _decimals(ctf[:, 4]),
        "rlnPhaseShift": _decimals(ctf[:, 8]),
    }
    return StarFile(origin, {"optics": StarTable(optics), "particles": StarTable(particles)})


def star_of_cs(file: CsFile) -> tuple[StarFile, tuple[str, ...]]:
    """The images of a .cs with their CTF, halves and names as RELION lists them; and what is left behind.

    Raises:
        UserError: If the file does not tell the CTF or the box.
    """
    records, box_size = file.records, file.box_size_px()
    if box_size is None or (ctf := cs_ctf(records, int(box_size[0]))) is None:
        raise UserError(f"{file.path} does not tell the CTF and the box of its images; export it as .cs.")
    star = new_star_file(file.path, *cs_image_names(file.path, records), int(box_size[0]), ctf)
    half = file.half()
    if half is not None:
        particles = star.blocks["particles"].having({"rlnRandomSubset": (half + 1).astype(str)})
        star = replace(star, blocks={**star.blocks, "particles": particles})
    return star, (
        "A .star made of a .cs has its images, CTF and halves; other columns are left behind.",
        *cs_aberration_notes(records, ctf, int(box_size[0])),
    )


def _decimals(values: Float[np.ndarray, "n"]) -> np.ndarray:
    return np.char.mod("%.6f", values)
