"""What the classes are: how large, how certain, how much alike."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from cryohydra._typing import Tensor
from cryohydra.analysis.maps import shrink_map
from cryohydra.fourier.alignment import AlignableMap, align_map

_MOST_ALIGNED_CLASSES = 12
_COMPARED_BOX_SIZE = 20
"""Enough pixels for the overall shape, few enough for a pair to be aligned in a fraction of a second."""
_SECONDS_BETWEEN_WORDS = 10.0
_LOOK_ALIKE = 0.95
_SMALL_SHARE = 0.1
"""Of an equal share."""


@dataclass(frozen=True)
class ClassSummary:
    """Sizes and certainty of all classes."""

    share: Float[np.ndarray, "k"]
    """Mean probability over all particles; sums to one."""
    hard_count: Int[np.ndarray, "k"]
    """Particles whose best class it is."""
    certainty: Float[np.ndarray, "k"]
    """Mean probability of the class among those particles; nan if there are none."""
    effective_number: float
    """Exponential of the entropy of the shares: how many classes of equal size would be as mixed."""

    @property
    def hard_share(self) -> Float[np.ndarray, "k"]:
        """Share of the particles whose best class it is."""
        return self.hard_count / max(1, self.hard_count.sum())


def summarise_classes(class_probability: Float[np.ndarray, "n k"]) -> ClassSummary:
    """Count and average the class probabilities."""
    num_classes = class_probability.shape[1]
    best_class = class_probability.argmax(axis=1)
    hard_count = np.bincount(best_class, minlength=num_classes)
    share = class_probability.mean(axis=0, dtype=np.float64)
    total_certainty = np.bincount(best_class, weights=class_probability.max(axis=1), minlength=num_classes)
    certainty = np.full(num_classes, np.nan)
    np.divide(total_certainty, hard_count, out=certainty, where=hard_count > 0)
    entropy = -float((share * np.log(np.where(share > 0, share, 1))).sum())
    return ClassSummary(
        share=share, hard_count=hard_count, certainty=certainty, effective_number=float(np.exp(entropy))
    )


@dataclass(frozen=True)
class Likeness:
    """How much the maps of every two classes correlate."""

    correlation: Float[np.ndarray, "k k"]
    """In real space, over the low frequencies; nan where a class has no map."""
    is_aligned: bool
    """Whether each pair was first brought together over rotation, shift and hand."""


def compare_maps(maps: Sequence[Tensor | None], says: Callable[[str], None]) -> Likeness:
    """Correlate the classes' maps; aligned first if they are few enough for that to be quick."""
    small = [None if density is None else shrink_map(density.cpu(), _COMPARED_BOX_SIZE) for density in maps]
    num_classes = len(maps)
    is_aligned = num_classes <= _MOST_ALIGNED_CLASSES
    correlation = np.full((num_classes, num_classes), np.nan)
    held = {index: density for index, density in enumerate(small) if density is not None}
    correlation[list(held), list(held)] = 1
    prepared = {index: AlignableMap(density) for index, density in held.items()}
    pairs = list(itertools.combinations(held, 2))
    last_word = -math.inf
    for number, (first, second) in enumerate(pairs):
        if is_aligned and time.monotonic() - last_word > _SECONDS_BETWEEN_WORDS:
            last_word = time.monotonic()
            says(f"Comparing the maps of the classes, each pair aligned first: {number} of {len(pairs)} pairs done.")
        value = _correlate(held[second], held[first])
        # Nothing is gained by aligning what already lies alike.
        if is_aligned and value < _LOOK_ALIKE:
            value = max(value, align_map(prepared[second], prepared[first]).correlation)
        correlation[first, second] = correlation[second, first] = value
    return Likeness(correlation=correlation, is_aligned=is_aligned)


def class_warnings(summary: ClassSummary, likeness: Likeness | None) -> tuple[str, ...]:
    """What a user should know before believing the classes, one sentence or two each."""
    num_classes = len(summary.share)
    if num_classes == 1:
        return ()
    warnings = []
    empty = np.flatnonzero(summary.hard_count == 0)
    smaller = np.minimum(summary.share, summary.hard_share)
    small = np.flatnonzero((summary.hard_count > 0) & (smaller < _SMALL_SHARE / num_classes))
    if len(empty):
        warnings.append(
            f"{_name_classes(empty)} {_is(empty)} empty: no particle fits {_it(empty)} best. "
            f"Fewer than {num_classes} classes may be enough."
        )
    if len(small):
        share = 100 * float(smaller[small].max())
        warnings.append(
            f"{_name_classes(small)} {'has' if len(small) == 1 else 'have'} at most {share:.2g} % of the particles"
            f"{'' if len(small) == 1 else ' each'}: too few, perhaps, for a map to be trusted."
        )
    unsure = np.flatnonzero(summary.certainty < max(0.6, 1.2 / num_classes))
    if len(unsure):
        warnings.append(
            f"{_name_classes(unsure)} {'holds' if len(unsure) == 1 else 'hold'} particles that fit another class "
            "nearly as well: their best class has a mean probability below 0.6."
        )
    if likeness is not None:
        how = "after alignment" if likeness.is_aligned else "as they lie, not aligned"
        for first, second in zip(*np.nonzero(np.triu(likeness.correlation > _LOOK_ALIKE, 1)), strict=True):
            warnings.append(
                f"Classes {first} and {second} look alike (correlation {likeness.correlation[first, second]:.2f} "
                f"{how}): they may be one structure split in two, or two conformations of it."
            )
    return tuple(warnings)


def _correlate(first: Tensor, second: Tensor) -> float:
    first, second = first - first.mean(), second - second.mean()
    scale = torch.sqrt(first.square().sum() * second.square().sum())
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def _name_classes(numbers: Int[np.ndarray, "m"]) -> str:
    words = [str(number) for number in numbers]
    return f"Class {words[0]}" if len(words) == 1 else f"Classes {', '.join(words[:-1])} and {words[-1]}"


def _is(numbers: Int[np.ndarray, "m"]) -> str:
    return "is" if len(numbers) == 1 else "are"


def _it(numbers: Int[np.ndarray, "m"]) -> str:
    return "it" if len(numbers) == 1 else "them"
