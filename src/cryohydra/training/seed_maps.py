"""Maps from elsewhere, or of labelled particles at known poses, made ready to start classes from."""

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice, to_frequency, to_real_space
from cryohydra.fourier.lattice_density import density_on_lattice
from cryohydra.inference.partition import half_of
from cryohydra.inference.reconstruction import ClassSums, particle_mask
from cryohydra.physics.noise import shell_means
from cryohydra.physics.pose import Pose
from cryohydra.training.state import TrainingState

_NUM_IMAGES = 1000
"""Whose power tells the scale."""
_FIRST_SHELL = 2
"""Below it power is of backgrounds as much as of particles."""
_LEAST_SIGNAL = 0.02
"""Power of the signal over the noise's in an image, below which the noise's estimate is in the way."""
_AT_ONCE = 256


def seed_of_density(state: TrainingState, density: Float[Tensor, "d d d"], lattice: Lattice) -> Float[Tensor, "n n n"]:
    """A density in the pixels of the images, low-passed to the lattice and scaled to the images' power."""
    values = density_on_lattice(lattice, density.to(state.device))
    mask = particle_mask(lattice, state.device)
    values = to_frequency(to_real_space(values[None]) * mask)[0]
    return values * _scale(state, values, lattice)


def seed_of_members(
    state: TrainingState, members: Int[Tensor, "m"], pose: Pose, lattice: Lattice
) -> Float[Tensor, "n n n"]:
    """The map of some particles at their poses; it has the images' scale.

    Args:
        members: Rows, on the CPU.
        pose: Of all particles, in one class.
    """
    sums = ClassSums.empty(lattice, 1, state.device)
    band = state.band(lattice.radius)
    for index in members.split(_AT_ONCE):
        rows = index.to(state.device)
        rotation = pose.rotation[index].to(state.device).transpose(1, 2)
        shift_px = pose.shift_px[index].to(state.device).transpose(1, 2) - state.known_shift_px[rows][:, None, None]
        one = torch.ones(len(rows), 1, device=state.device)
        sums.add(
            state.weighted(index, band),
            band,
            half_of(rows),
            one,
            torch.zeros_like(one, dtype=torch.long),
            rotation,
            shift_px,
        )
    return sums.solve(particle_mask(lattice, state.device)).maps.values[0]


def _scale(state: TrainingState, values: Float[Tensor, "n n n"], lattice: Lattice) -> float:
    """By which a map is to be multiplied to have the power of the images beyond that of the noise: least squares.

    In a mixture this is the power of an average class; where a class has another, its scale follows as maps climb.
    """
    index = torch.linspace(0, len(state) - 1, min(len(state), _NUM_IMAGES)).long()
    band, num_shells = state.band(lattice.radius), lattice.radius + 1
    images = [state.weighted(some, band) for some in index.split(_AT_ONCE)]
    over_noise = torch.cat([one.score.square() / one.power.clamp(min=1e-20) for one in images]).mean((0, 1)) - 1
    power = torch.cat([one.power for one in images]).mean((0, 1))
    shells = lattice.distance(state.device).round().long().flatten().clamp(max=num_shells)
    count = torch.bincount(shells, minlength=num_shells + 1)
    energy = values.new_zeros(num_shells + 1).index_add_(0, shells, values.flatten().square()) / count
    found, of_seed = (shell_means(one[None], band, num_shells)[0][_FIRST_SHELL:] for one in (over_noise, power))
    of_seed = of_seed * energy[_FIRST_SHELL:num_shells]
    square = (found.clamp(min=_LEAST_SIGNAL) * of_seed).sum() / of_seed.square().sum().clamp(min=1e-30)
    return float(square.sqrt())
