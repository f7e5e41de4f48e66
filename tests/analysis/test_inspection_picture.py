"""The picture of a set of particles is drawn from whatever is known of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryohydra.analysis.drawing import figure_to_png
from cryohydra.analysis.inspection_picture import plot_inspection
from cryohydra.data.inspection import Inspection, inspect_particles
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_stack

NUM, BOX = 12, 16


@pytest.fixture
def inspection(tmp_path: Path) -> Inspection:
    """Noise, with all that can be known of it."""
    write_stack(tmp_path / "p.mrcs", np.random.default_rng(0).normal(size=(NUM, BOX, BOX)).astype(np.float32), 2.0)
    write_ctf_file(tmp_path / "ctf.pkl", np.tile([BOX, 2.0, 15000.0, 15000.0, 0, 300, 2.7, 0.1, 0], (NUM, 1)))
    found = inspect_particles(tmp_path / "p.mrcs", ctf=tmp_path / "ctf.pkl")
    return replace(found, rotation=Rotation.random(NUM, random_state=0).as_matrix())


def words(inspection: Inspection) -> str:
    """Everything written on the picture, which can be drawn."""
    figure = plot_inspection(inspection)
    assert figure_to_png(figure).startswith(b"\x89PNG")
    return " | ".join(text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title, *_titles(axes)])


def _titles(axes: object) -> list:
    return [axes._left_title]  # type: ignore[attr-defined]


def test_all_panels_are_there(inspection: Inspection) -> None:
    drawn = words(inspection)
    for panel in ("Particles, low-passed", "Mean of 12 images", "Polarity", "Power", "Defocus", "Views"):
        assert panel in drawn
    assert "no " not in drawn


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"survey": None, "polarity": None}, "no images were found"),
        ({"ctf": None, "groups": ()}, "no CTF is known"),
        ({"rotation": None}, "no poses are given"),
    ],
)
def test_what_is_not_known_is_said(inspection: Inspection, lost: dict, said: str) -> None:
    assert said in words(replace(inspection, **lost))
