"""How maps that climb from nothing go from coarse to fine."""

from dataclasses import dataclass

from cryohydra.geometry.so3_grid import angular_step

RESOLVED = 2.1
"""A grid of step s resolves up to RESOLVED / s Fourier pixels of a particle half as wide as the box."""
TOLERATED = 3.2
"""The same where what the grid misses counts as unexplained: a coarser one is enough."""


@dataclass(frozen=True)
class Annealing:
    """How band and balance go from start to end."""

    num_steps: int = 1000
    """At most."""
    num_warm_steps: int = 80
    """After which band and balance have their last values."""
    first_radius: int = 4
    last_radius: int = 10
    first_temperature: float = 1 / 0.7
    """What log likelihoods are divided by at first."""
    num_hot_steps: int = 0
    """In which it stays."""
    num_cool_steps: int = 0
    """After which it is one; its inverse goes there in a straight line."""
    level: int = 1
    """Of the grid of rotations that is turned at random in every step (`draw`): 1 is 30 degrees, 2 is 15."""
    last_balance: float = 0.25
    """How much of the pull towards equal shares is left at the end."""
    memory: float = 0.8
    """Part of what was unexplained before that the next step still believes."""
    memory_of_shifts: float = 0.95
    """The same of how far from the centre particles lie: a normal spread, re-estimated in every step."""

    def progress(self, step: int) -> float:
        """From 0 to 1 over the warm part."""
        return min(1.0, step / self.num_warm_steps)

    def radius(self, step: int) -> int:
        """Grows in a straight line, in Fourier pixels; the last only where the warm part ends."""
        return self.first_radius + int((self.last_radius - self.first_radius) * self.progress(step))

    def temperature(self, step: int) -> float:
        """What log likelihoods are divided by."""
        if step >= self.num_cool_steps:
            return 1.0
        cooled = max(0, step - self.num_hot_steps) / (self.num_cool_steps - self.num_hot_steps)
        return 1 / (cooled + (1 - cooled) / self.first_temperature)

    def balance(self, step: int) -> float:
        """How much classes are pulled towards equal shares."""
        return 1 + (self.last_balance - 1) * self.progress(step)


def shift_step(level: int, box_size: int) -> float:
    """Step in pixels of shifts as fine as a level's rotations: a quarter of the shortest wave that those resolve."""
    return box_size * angular_step(level) / (4 * RESOLVED)
