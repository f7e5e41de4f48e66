"""How alike two maps are, shell by shell."""

import torch

from cryohydra._typing import Float, Int, Tensor


def shell_index(box_size: int, device: torch.device | str = "cpu") -> Int[Tensor, "d d h"]:
    """The shell of each point of a real transform (`torch.fft.rfftn`), in Fourier pixels, rounded."""
    full = torch.fft.fftfreq(box_size, 1 / box_size, device=device)
    half = torch.fft.rfftfreq(box_size, 1 / box_size, device=device)
    return (full[:, None, None].square() + full[:, None].square() + half.square()).sqrt().round().long()


def fourier_shell_correlation(a: Float[Tensor, "d d d"], b: Float[Tensor, "d d d"]) -> Float[Tensor, "shells"]:
    """Signed correlation of two maps in shells 0, 1, ... D/2 of one Fourier pixel each.

    In [-1, 1]; 0 in a shell in which one of the maps is empty.
    """
    box_size = a.shape[-1]
    first, second = torch.fft.rfftn(a.double()), torch.fft.rfftn(b.double())
    shell = shell_index(box_size, a.device).flatten()
    # The columns of a real transform stand for themselves and their mirror image, but for the edges.
    weight = torch.full_like(first.real, 2.0)
    weight[..., 0] = 1
    if box_size % 2 == 0:
        weight[..., -1] = 1

    def sum_over_shells(value: Tensor) -> Tensor:
        total = torch.zeros(int(shell.max()) + 1, dtype=torch.float64, device=a.device)
        return total.index_add(0, shell, (weight * value).flatten())[: box_size // 2 + 1]

    covariance = sum_over_shells((first * second.conj()).real)
    power = sum_over_shells(first.abs().square()) * sum_over_shells(second.abs().square())
    return torch.where(power > 0, covariance / power.clamp(min=1e-300).sqrt(), 0.0).float()


def crossing_shell(fsc: Float[Tensor, "shells"], threshold: float) -> float:
    """The first shell, interpolated, at which a curve falls below `threshold`; its last shell if it never does.

    Shell 0, which holds only the mean, is passed over.
    """
    below = torch.nonzero(fsc[1:] < threshold).flatten()
    if len(below) == 0:
        return float(len(fsc) - 1)
    shell = int(below[0]) + 1
    if shell == 1:
        return 1.0
    before, after = float(fsc[shell - 1]), float(fsc[shell])
    return shell - 1 + (before - threshold) / (before - after)


def resolution_at(fsc: Float[Tensor, "shells"], threshold: float, box_size: int, pixel_size_angstrom: float) -> float:
    """Resolution in angstrom at which a curve falls below `threshold`; twice the pixel size if it never does."""
    return box_size * pixel_size_angstrom / crossing_shell(fsc, threshold)
