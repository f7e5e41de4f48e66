"""Fourier shell correlations as files: XML as EMDB takes it, and a table."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cryohydra._typing import Float
from cryohydra.io.atomic import write_atomically


def write_fsc_xml(
    path: Path, title: str, frequency_per_angstrom: Float[np.ndarray, "m"], correlation: Float[np.ndarray, "m"]
) -> None:
    """Write a curve in the form of EMDB's FSC files: spatial frequency in 1/A against the correlation."""
    root = ElementTree.Element("fsc", title=title, xaxis="Resolution (A-1)", yaxis="Correlation Coefficient")
    for x, y in zip(frequency_per_angstrom, correlation, strict=True):
        coordinate = ElementTree.SubElement(root, "coordinate")
        ElementTree.SubElement(coordinate, "x").text = f"{x:.6f}"
        ElementTree.SubElement(coordinate, "y").text = f"{y:.6f}"
    ElementTree.indent(root)
    with write_atomically(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def write_fsc_csv(
    path: Path, frequency_per_angstrom: Float[np.ndarray, "m"], curves: Mapping[str, Float[np.ndarray, "m"]]
) -> None:
    """Write curves as columns beside the frequency in 1/A and its inverse; at frequency zero that is inf."""
    with np.errstate(divide="ignore"):
        resolution = 1 / frequency_per_angstrom
    columns = {"frequency_per_angstrom": frequency_per_angstrom, "resolution_angstrom": resolution, **curves}
    with write_atomically(path) as temporary:
        table = np.stack(list(columns.values()), axis=1)
        np.savetxt(temporary, table, fmt="%.6f", delimiter=",", header=",".join(columns), comments="")
