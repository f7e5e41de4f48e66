"""Masks with soft edges, made from the density itself."""

import math

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.half_map_fsc import filter_shells

_LEAST_DENSITY = 0.15
"""Of the highest, low-passed: where density begins."""
_ROUNDING = 1e-5
"""Of the transforms: less is zero."""


def mask_around(
    density: Float[Tensor, "d d d"], radius: int, extend_px: float, edge_px: float
) -> Float[Tensor, "d d d"]:
    """Where a map, low-passed, has density, and a soft edge around it.

    Args:
        radius: Of the low pass, in Fourier pixels: what lies beyond it does not shape the mask.
        extend_px: How far the mask reaches beyond the density before its edge begins.
        edge_px: Over which it falls from one to zero.
    """
    box_size = density.shape[-1]
    smooth = filter_shells(density, torch.exp(-((torch.arange(radius + 1) / (0.6 * radius)) ** 2)))
    distance = _distance_px(box_size, density.device)
    # Room for the edge: the transforms below go round the box.
    smooth = torch.where(distance < box_size / 2 - extend_px - edge_px, smooth, smooth.min())
    # The mean of the few highest voxels stands for the highest: one alone may be noise.
    highest = smooth.flatten().topk(max(1, smooth.numel() // 1000)).values.mean()
    inside = (smooth > _LEAST_DENSITY * highest).float()
    grown = (_spread(inside, extend_px + edge_px / 2) > 0.5 / _ball_size(extend_px + edge_px / 2)).float()
    mask = _spread(grown, edge_px / 2).clamp(0, 1)
    return torch.where(mask < _ROUNDING, 0.0, mask)


def _spread(values: Float[Tensor, "d d d"], radius_px: float) -> Float[Tensor, "d d d"]:
    """The mean over a ball around each voxel."""
    ball = (_distance_px(values.shape[-1], values.device) <= max(radius_px, 0.5)).float()
    transform = torch.fft.rfftn(torch.fft.ifftshift(ball / ball.sum()))
    return torch.fft.irfftn(torch.fft.rfftn(values) * transform, s=values.shape)


def _ball_size(radius_px: float) -> float:
    return 4 / 3 * math.pi * max(radius_px, 1.0) ** 3


def _distance_px(box_size: int, device: torch.device) -> Float[Tensor, "d d d"]:
    axis = torch.arange(box_size, device=device) - box_size // 2
    square = axis.square()
    return (square[:, None, None] + square[:, None] + square).sqrt()
