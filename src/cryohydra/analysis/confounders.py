"""Whether what was found follows how a particle was seen instead of what it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cryohydra.analysis.class_analysis import ClassFindings
from cryohydra.analysis.quantities import mean_defocus
from cryohydra.analysis.run import Run
from cryohydra.data.particles import ParticleSet

_NUM_FOLDS = 5
_NOTABLE = 0.1
"""Of the variance: above it, the report warns."""
FEWEST = 50
"""Particles: from fewer, nothing is said."""
_MOST = 20_000
_NUM_LOTS = 499
_CHANCE = 0.01
"""Of calling an accident more than one, where shares by chance are large: few particles of each of many micrographs."""


@dataclass(frozen=True)
class Following:
    """How well one thing is predicted by another."""

    what: str
    """As in: the conformations of class 2."""
    by: str
    """As in: the viewing direction."""
    share: float
    """Of its variance that is predicted on particles held out; 0 and below is nothing."""
    chance: float = 0.0
    """Of a share as large among particles dealt out by lot; 0 where the share itself tells that."""

    @property
    def is_notable(self) -> bool:
        """Whether it is large, and more than an accident."""
        return self.share > _NOTABLE and self.chance < _CHANCE


def viewing_features(rotation: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 8"]:
    """Harmonics of first and second degree of the viewing directions."""
    x, y, z = rotation[:, 2, :].T
    return np.stack([x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], axis=1)


def defocus_features(defocus: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 2"]:
    """Defocus and its square, about their mean."""
    scaled = (defocus - defocus.mean()) / max(float(defocus.std()), 1e-12)
    return np.stack([scaled, scaled**2], axis=1)


def predicted_share(features: Float[np.ndarray, "n f"], values: Float[np.ndarray, "n c"]) -> float:
    """The share of the values' variance that a linear prediction from features explains on particles held out.

    Predicted in turn for each fifth of the particles from the others, so that chance predicts nothing.
    """
    order = np.random.default_rng(0).permutation(len(values))[:_MOST]
    features, values = features[order], values[order].astype(np.float64)
    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    left = np.zeros_like(values)
    for fold in range(_NUM_FOLDS):
        held = np.arange(len(values)) % _NUM_FOLDS == fold
        weights, *_ = np.linalg.lstsq(design[~held], values[~held], rcond=None)
        left[held] = values[held] - design[held] @ weights
    variance = np.square(values - values.mean(axis=0)).sum()
    return float(1 - np.square(left).sum() / variance) if variance > 0 else 0.0


def grouped_share(group: Int[np.ndarray, "n"], values: Float[np.ndarray, "n c"]) -> tuple[float, float] | None:
    """The share of the values' variance that lies between groups, and the chance of as much if they were drawn by lot.

    The share that groups of few would take up by chance is taken off, so that it is 0 on average if groups do not
    matter. Groups of one say nothing and are left out; of many particles, groups are picked at random.

    Returns:
        None if fewer than two groups, or too few particles, are left.
    """
    random = np.random.default_rng(0)
    group = np.unique(group, return_inverse=True)[1]
    size = np.bincount(group)
    order = random.permutation(np.flatnonzero(size > 1))
    picked = order[np.cumsum(size[order]) <= max(_MOST, int(size.max()))]
    rows = np.flatnonzero(np.isin(group, picked))
    if len(picked) < 2 or len(rows) < FEWEST:
        return None
    group = np.unique(group[rows], return_inverse=True)[1]
    centred = values[rows].astype(np.float64) - values[rows].mean(axis=0, dtype=np.float64)
    total = float(np.square(centred).sum())
    if total == 0:
        return 0.0, 1.0
    size = np.bincount(group)

    def between(shuffled: Float[np.ndarray, "n c"]) -> float:
        sums = np.stack([np.bincount(group, weights=column) for column in shuffled.T])
        return float((sums**2 / size).sum()) / total

    found = between(centred)
    by_lot = [between(random.permutation(centred)) for _ in range(_NUM_LOTS)]
    chance = (1 + sum(share >= found for share in by_lot)) / (1 + _NUM_LOTS)
    freedom = len(rows) - len(picked)
    return 1 - (1 - found) * (len(rows) - 1) / freedom, chance


def find_following(run: Run, findings: Sequence[ClassFindings], particles: ParticleSet | None) -> tuple[Following, ...]:
    """Look at the conformations of each class, and at the classes, of all that has enough particles.

    Classes are not held against the viewing direction: each is seen in a frame of its own.
    """
    found = []
    defocus = None if particles is None else mean_defocus(particles)
    micrograph = None if particles is None or particles.micrograph is None else particles.micrograph.numpy()
    for one in findings:
        members = run.members(one.class_index)
        if not run.z_dim or len(members) < FEWEST:
            continue
        what = f"The conformations of class {one.class_index}"
        conformation = run.latents.conformation[members]
        views = viewing_features(run.latents.rotation[members, 0].astype(np.float64))
        found.append(Following(what, "the viewing direction", predicted_share(views, conformation)))
        if defocus is not None:
            share = predicted_share(defocus_features(defocus[members]), conformation)
            found.append(Following(what, "the defocus", share))
        if micrograph is not None:
            found += _following_micrographs(what, micrograph[members], conformation)
    if run.num_classes > 1 and defocus is not None and len(defocus) >= FEWEST:
        share = predicted_share(defocus_features(defocus), run.latents.class_probability)
        found.append(Following("The classes", "the defocus", share))
    if run.num_classes > 1 and micrograph is not None:
        found += _following_micrographs("The classes", micrograph, run.latents.class_probability)
    return tuple(found)


def _following_micrographs(
    what: str, micrograph: Int[np.ndarray, "n"], values: Float[np.ndarray, "n c"]
) -> list[Following]:
    found = grouped_share(micrograph, values)
    return [] if found is None else [Following(what, "the micrograph", *found)]


def tell_following(found: Sequence[Following]) -> tuple[str, ...]:
    """Warnings, one sentence each."""
    return tuple(
        f"{one.what} follow {one.by}: {100 * one.share:.0f} % of their variance can be predicted from it, so they may "
        "tell how particles were seen, not what they are."
        for one in found
        if one.is_notable
    )


def tell_independence(found: Sequence[Following]) -> str:
    """What was looked for and not found; empty if nothing was looked for or all was found."""
    clear = [one for one in found if not one.is_notable]
    if not clear:
        return ""
    what = " and ".join(dict.fromkeys("conformations" if "onformation" in one.what else "classes" for one in clear))
    by = " or ".join(dict.fromkeys(one.by for one in clear))
    # Shares that chance explains are none.
    most = max([0.0, *(one.share for one in clear if one.chance < _CHANCE)])
    return f"{what.capitalize()} do not follow {by}: at most {100 * most:.1f} % of their variance is predicted by it."
