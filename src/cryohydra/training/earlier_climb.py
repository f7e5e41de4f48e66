"""Images of noise alone that hold a class of ab initio: set aside, so that maps climb once more without them.

To maps all such images are alike. They gather where they are contradicted least, and once they have a class for
themselves, two structures share another, which no later stage undoes.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.inference.selection import needed_classes
from cryohydra.training.gibbs import GibbsSampling
from cryohydra.training.state import TrainingState

_FEWEST = 50
"""Images that a class of noise holds at least: fewer take no class from anything."""
_TABLES = ("poses", "classes")


@dataclass(frozen=True)
class EarlierClimb:
    """What maps had come to when noise held a class."""

    maps: Float[Tensor, "k n n n"]
    members: Int[Tensor, "m"]
    is_noise: Bool[Tensor, "m"]
    """Whether each of these is one that noise alone explains better, in a class of such images."""
    num_needed: int
    """Classes that images could not do without."""
    tables: dict[str, dict[str, Tensor]]

    @classmethod
    def of(cls, state: TrainingState, sampling: GibbsSampling) -> "EarlierClimb | None":
        """Remember maps that have settled; None if noise holds no class, or others are to spare as well."""
        evidence = sampling.log_evidence
        is_noise, likeliest = sampling.evidence < 0, evidence.argmax(1)
        size, held = (torch.bincount(of, minlength=evidence.shape[1]) for of in (likeliest, likeliest[is_noise]))
        is_of_noise = (size >= _FEWEST) & (2 * held > size)
        num_needed = len(needed_classes(evidence))
        is_noise &= is_of_noise[likeliest]
        if not is_of_noise.any() or is_of_noise.sum() + num_needed < len(size) or 2 * is_noise.sum() > len(likeliest):
            return None
        tables = copy.deepcopy({name: getattr(state, name).state_dict() for name in _TABLES})
        return cls(sampling.maps(), sampling.members, is_noise.cpu(), num_needed, tables)

    @property
    def rest(self) -> Int[Tensor, "r"]:
        """The images that are left."""
        return self.members[~self.is_noise]

    def set_aside(self, state: TrainingState) -> None:
        """Forget what the images of noise said of the maps that were there."""
        state.classes.log_evidence[self.members[self.is_noise].to(state.device)] = 0.0

    def is_bettered(self, sampling: GibbsSampling) -> bool:
        """Whether more of the maps that have climbed without them are needed."""
        return len(needed_classes(sampling.log_evidence)) > self.num_needed

    def put_back(self, state: TrainingState) -> None:
        """Undo what came later, but for the maps."""
        for name, table in self.tables.items():
            getattr(state, name).load_state_dict(table)

    @classmethod
    def restored(cls, saved: dict[str, Any], device: torch.device) -> "EarlierClimb":
        """Undo `vars`."""
        at_home = {name: saved[name].cpu() for name in ("members", "is_noise")}
        return cls(**{**saved, **at_home, "maps": saved["maps"].to(device)})
