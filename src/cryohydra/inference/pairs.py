"""Images and the classes that they are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from cryohydra._typing import Bool, Int, Tensor


@dataclass(frozen=True)
class ClassRuns:
    """Rows that belong to one class after the other."""

    counts: Sequence[int]
    """Rows of each class."""

    @property
    def of_class(self) -> list[slice]:
        """The rows of each class."""
        return [slice(first, last) for first, last in pairwise(accumulate(self.counts, initial=0))]

    def class_index(self, device: torch.device) -> Int[Tensor, "n"]:
        """Of each row."""
        return torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts)).to(device)

    def within(self, rows: slice) -> "ClassRuns":
        """Those of some rows beside one another."""
        first, last, _ = rows.indices(sum(self.counts))
        return ClassRuns([max(0, min(last, own.stop) - max(first, own.start)) for own in self.of_class])


@dataclass(frozen=True)
class ImagesOfClasses:
    """Pairs of an image and a class that it is compared with, one class after the other."""

    image: Int[Tensor, "n"]
    runs: ClassRuns

    @classmethod
    def all(cls, num_images: int, num_classes: int, device: torch.device) -> "ImagesOfClasses":
        """Every image with every class."""
        return cls(torch.arange(num_images, device=device).repeat(num_classes), ClassRuns([num_images] * num_classes))

    @classmethod
    def asked(cls, is_asked: Bool[Tensor, "b k"]) -> "ImagesOfClasses":
        """Images with the classes that they ask for."""
        return cls(torch.nonzero(is_asked.T)[:, 1], ClassRuns(is_asked.sum(0).tolist()))

    def __len__(self) -> int:
        return len(self.image)
