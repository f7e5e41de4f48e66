"""Correlations in files that others read."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from cryohydra.io.fsc_file import write_fsc_csv, write_fsc_xml

FREQUENCY = np.arange(4) / 40
CURVE = np.array([1, 0.9, 0.25, -0.01])


def test_xml_has_the_form_that_emdb_takes(tmp_path: Path) -> None:
    write_fsc_xml(tmp_path / "a.xml", "class 0 < & >", FREQUENCY, CURVE)
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert root.tag == "fsc" and set(root.attrib) == {"title", "xaxis", "yaxis"}
    assert root.attrib["title"] == "class 0 < & >"
    assert [[child.tag for child in coordinate] for coordinate in root] == [["x", "y"]] * 4
    numbers = np.array([[float(child.text or "") for child in coordinate] for coordinate in root])
    np.testing.assert_allclose(numbers, np.stack([FREQUENCY, CURVE], axis=1), atol=1e-6)


def test_csv_has_a_column_for_each_curve(tmp_path: Path) -> None:
    write_fsc_csv(tmp_path / "a.csv", FREQUENCY, {"masked": CURVE})
    table = np.genfromtxt(tmp_path / "a.csv", delimiter=",", names=True)
    assert table.dtype.names == ("frequency_per_angstrom", "resolution_angstrom", "masked")
    np.testing.assert_allclose(table["masked"], CURVE)
    assert table["resolution_angstrom"][0] == np.inf and table["resolution_angstrom"][2] == 20
