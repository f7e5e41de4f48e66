"""Hand a map on a lattice over to a field."""

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fields.base import Field
from cryohydra.fields.render import lattice_frequencies

FIT_STEPS = 800
"""Of Adam, by which a field takes over a map."""
_POINTS_PER_CONFORMATION = 32
_CONFORMATIONS_PER_STEP = 64
_POINTS_TO_JUDGE = 65536


def fit_field_to_lattice(
    field: Field,
    target: Float[Tensor, "n n n"],
    weight: Float[Tensor, "n n n"],
    box_size: int,
    radius: int,
    oversampling: int = 1,
    *,
    z: Float[Tensor, "z"],
    components: Float[Tensor, "z n n n"] | None = None,
    conformations: Float[Tensor, "m z"] | None = None,
    generator: torch.Generator,
    steps: int = FIT_STEPS,
    lr: float = 1e-2,
) -> float:
    """Fit a field to coefficients on a lattice by weighted least squares over |f| <= radius.

    Sets the field's radial amplitude to that of the target, then follows Adam on random points. Squared errors are
    taken relative to the amplitude of their shell: outer shells hold the detail of a map and hardly any of its power.

    Args:
        target: Coefficients [z, y, x], n = 2 * radius * oversampling + 1, as `render_hartley` gives them.
        weight: Inverse variance of each coefficient; zero where nothing is known.
        radius: Fourier pixels of a box of `box_size`.
        oversampling: Lattice steps per Fourier pixel.
        z: The conformation that the map is of.
        components: What each unit of a conformation beyond `z` adds to the map; nothing by default.
        conformations: Those at which the field learns; `z` alone by default.
        generator: On the CPU.
        steps: Of Adam, on 2048 points each.

    Returns:
        The weighted root mean square of what is left, over that of the target.
    """
    frequencies, inside = lattice_frequencies(box_size, radius, oversampling, target.device)
    values, weights = target[inside], weight[inside]
    slopes = values.new_zeros(len(z), len(values)) if components is None else components[:, inside]
    learned = z[None] if conformations is None else conformations
    amplitude = measure_radial_amplitude(frequencies, values, weights, box_size)
    field.set_radial_amplitude(amplitude)
    shell = _shells(frequencies, box_size)
    share_of_loss = weights * amplitude[shell]
    if not share_of_loss.any():
        return 0.0
    # A shell near zero holds much of the loss in few points, an outer one little in many: drawing
    # points by the root of their share of the loss, and weighing them by it again, serves both.
    importance = share_of_loss.sqrt()
    cumulative = importance.double().cumsum(0)
    step_weight = importance / importance.square().sum() * importance.sum()
    inverse_amplitude = 1 / amplitude[shell]
    optimiser = torch.optim.Adam(field.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * _share_of_rate(step, steps)
        shape = (_CONFORMATIONS_PER_STEP, _POINTS_PER_CONFORMATION)
        uniform = torch.rand(shape, generator=generator, dtype=torch.double).to(cumulative.device)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[-1]).clamp(max=len(values) - 1)
        at = learned[torch.randint(len(learned), (len(drawn),), generator=generator).to(learned.device)]
        wanted = values[drawn] + torch.einsum("cz,zcp->cp", at - z, slopes[:, drawn])
        residual = (field(frequencies[drawn], at) - wanted) * inverse_amplitude[drawn]
        loss = (step_weight[drawn] * residual.square()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    judged = torch.randperm(len(values), generator=generator)[:_POINTS_TO_JUDGE].to(values.device)
    return _relative_error(field, frequencies[judged], values[judged], weights[judged], z)


def measure_radial_amplitude(
    frequencies: Float[Tensor, "p 3"], values: Float[Tensor, "p"], weight: Float[Tensor, "p"], box_size: int
) -> Float[Tensor, "r"]:
    """Weighted root mean square of coefficients at 0, 1, ... box_size / 2 Fourier pixels from zero.

    A shell of which nothing is known takes after its nearest known neighbour; none is smaller than
    a ten-thousandth of the largest.
    """
    shell, length = _shells(frequencies, box_size), box_size // 2 + 1
    total = values.new_zeros(length).index_add(0, shell, weight)
    power = values.new_zeros(length).index_add(0, shell, weight * values.square())
    known = torch.nonzero(power > 0).squeeze(-1)
    if not len(known):
        return torch.ones_like(power)
    radius = torch.arange(length, device=values.device)
    nearest = known[(radius[:, None] - known).abs().argmin(-1)]
    amplitude = (power[nearest] / total[nearest]).sqrt()
    return amplitude.clamp(min=1e-4 * float(amplitude.max()))


def _shells(frequencies: Tensor, box_size: int) -> Tensor:
    return (frequencies.norm(dim=-1) * box_size).round().long().clamp(max=box_size // 2)


def _share_of_rate(step: int, steps: int) -> float:
    """Twenty steps upwards, level to the middle, then down to zero in a straight line."""
    return min(1.0, (step + 1) / 20, 2 * (1 - step / steps))


@torch.no_grad()
def _relative_error(field: Field, frequencies: Tensor, values: Tensor, weight: Tensor, z: Tensor) -> float:
    predicted = torch.cat([field(points, z) for points in frequencies.split(16384)])
    left, whole = weight * (predicted - values).square(), weight * values.square()
    return float((left.sum() / whole.sum()).sqrt())
