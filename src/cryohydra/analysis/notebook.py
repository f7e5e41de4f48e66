"""A notebook to go on from: load, look, select, save."""

import json
from pathlib import Path
from typing import Any

from cryohydra.analysis.run import Run
from cryohydra.io.atomic import write_atomically

NOTEBOOK_NAME = "cryoDRGN-analysis.ipynb"
"""The name it has always had."""


def write_notebook(run: Run, class_index: int) -> Path:
    """Write the notebook of a class, unless it is there: what a user changed in it is kept."""
    path = run.folder.class_analysis_path(run.epoch, class_index) / NOTEBOOK_NAME
    if not path.exists():
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(_notebook(run.epoch, class_index), indent=1) + "\n")
    return path


def _notebook(epoch: int, class_index: int) -> dict[str, Any]:
    cells = [_text(_TITLE.format(epoch=epoch, class_index=class_index))]
    for title, code in _STEPS:
        filled = code.replace("EPOCH_HERE", str(epoch)).replace("CLASS_HERE", str(class_index))
        cells += [_text(title), _code(filled)]
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source.strip().splitlines(keepends=True)}


def _code(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": source.strip().splitlines(keepends=True),
    }


_TITLE = """
# Epoch {epoch}, class {class_index}

Run it from the folder it lies in, or set `RESULTS` to the folder `out` of the run.
Every array has a row per particle of the run; `particle_index` tells where that particle is in the
particle file, counted from 0.
"""

_STEPS = (
    (
        "## Load",
        """
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from cryohydra.io.pickles import read_pickle, write_pickle

EPOCH = EPOCH_HERE
CLASS = CLASS_HERE
RESULTS = Path("../..")
FOLDER = RESULTS / f"analysis_{EPOCH}" / f"class_{CLASS}"

latents = np.load(RESULTS / f"latents.{EPOCH}.npz", allow_pickle=False)
probability = latents["class_probability"]
best_class = probability.argmax(axis=1)
particle_index = latents["particle_index"]
z = latents["conformation"]
rows = np.flatnonzero(best_class == CLASS)
print(f"{len(rows):,} of {len(best_class):,} particles are of class {CLASS}; z has {z.shape[1]} dimensions")
""",
    ),
    (
        "## How sure the classes are",
        """
plt.hist(probability[rows, CLASS], bins=50)
plt.xlabel(f"probability of class {CLASS}")
plt.ylabel("particles")
plt.show()
""",
    ),
    (
        "## Conformations",
        """
if z.shape[1] >= 2 and len(rows) >= 2:
    centred = z[rows] - z[rows].mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2]
    projected = centred @ components.T
    plt.scatter(projected[:, 0], projected[:, -1] if projected.shape[1] < 2 else projected[:, 1], s=3)
    plt.xlabel("PC1")
    plt.ylabel("PC2")
    plt.show()
elif z.shape[1] == 1:
    plt.hist(z[rows, 0], bins=50)
    plt.xlabel("z")
    plt.show()
""",
    ),
    (
        "## Viewing directions",
        """
direction = latents["rotation"][rows, 0, 2]
plt.subplot(projection="mollweide")
plt.scatter(np.arctan2(direction[:, 1], direction[:, 0]), np.arcsin(direction[:, 2].clip(-1, 1)), s=3)
plt.show()
""",
    ),
    (
        "## Select\n\nBy class probability, by k-means group, by distance from the middle of z: change this cell.",
        """
keep = probability[rows, CLASS] > 0.5

# By k-means group: labels hold -1 for particles of other classes.
# labels = read_pickle(FOLDER / "kmeans20" / "labels.pkl")
# keep &= np.isin(labels[rows], [0, 1, 2])

# Without outliers of z.
if z.shape[1] and len(rows) > 2:
    distance = np.linalg.norm(z[rows] - z[rows].mean(axis=0), axis=1)
    keep &= distance <= distance.mean() + 3 * distance.std()
print(f"{keep.sum():,} of {len(rows):,} kept")
""",
    ),
    (
        "## Save\n\nNumbers of the particle file, for the setting `ind` of another run.",
        """
ind_keep = particle_index[rows[keep]]
ind_bad = particle_index[rows[~keep]]
write_pickle(FOLDER / f"ind_keep.{len(ind_keep)}_particles.pkl", ind_keep)
write_pickle(FOLDER / f"ind_bad.{len(ind_bad)}_particles.pkl", ind_bad)
""",
    ),
)
