"""The first comparison of a search as one kernel for GPUs: scores are summed where they are made, and never stored.

`WholeGridComparison` does the same with plain products of matrices, and is what this is tested by. Imported only where
there is Triton.
"""

import torch
import triton
import triton.language as tl

from cryohydra._typing import Float, Int, Tensor
from cryohydra.inference.pairs import ClassRuns

_POINTS = 32
"""Multiplied at a time; more of nothing are added to fill them."""
_ROTATIONS, _SHIFTS, _WARPS, _STAGES = 64, 64, 4, 3
"""Of a tile: what a program works on at a time."""
_LOG2_E = 1.4426950408889634


def sum_over_shifts(
    images: Float[Tensor, "4 n s m"],
    factor: Float[Tensor, "k 4 c m"],
    of_rotation: Float[Tensor, "4 n c"],
    runs: ClassRuns,
) -> tuple[Float[Tensor, "4 n c"], Float[Tensor, "4 n c"], Int[Tensor, "4 n c"]]:
    """Highest of the log likelihoods of all shifts, log of the sum of their exponentials, and which is the highest.

    Args:
        images: The four parts of each, see `Mirrors`, the prior of shifts among their points.
        factor: Those of the slices.
        of_rotation: Added at all shifts.
    """
    num_images, num_shifts, num_points = images.shape[1:]
    num_columns = of_rotation.shape[2]
    filling = -num_points % _POINTS
    images, factor = (torch.nn.functional.pad(part, (0, filling)).contiguous() for part in (images, factor))
    peak, log_mass = torch.empty_like(of_rotation), torch.empty_like(of_rotation)
    best = torch.empty(of_rotation.shape, dtype=torch.int16, device=of_rotation.device)
    grid = (num_images * triton.cdiv(num_columns, _ROTATIONS),)
    if num_images:
        _sum_over_shifts[grid](
            *(images, factor, of_rotation, runs.class_index(images.device), peak, log_mass, best),
            *(num_images, num_shifts, num_columns),
            *(triton.cdiv(num_shifts, _SHIFTS), num_points + filling),
            *(_POINTS, _ROTATIONS, _SHIFTS, _LOG2_E),
            num_warps=_WARPS,
            num_stages=_STAGES,
        )
    return peak, log_mass, best


@triton.jit
def _sum_over_shifts(
    images,
    factor,
    of_rotation,
    class_index,
    peak,
    log_mass,
    best,
    num_images,
    num_shifts,
    num_columns,
    num_blocks: tl.constexpr,
    num_points: tl.constexpr,
    points_at_once: tl.constexpr,
    rotations_at_once: tl.constexpr,
    shifts_at_once: tl.constexpr,
    log2_e: tl.constexpr,
):
    """One image, some rotations of its class, and the three that mirror each."""
    num_tiles = tl.cdiv(num_columns, rotations_at_once)
    image = (tl.program_id(0) // num_tiles).to(tl.int64)
    column = (tl.program_id(0) % num_tiles) * rotations_at_once + tl.arange(0, rotations_at_once)
    part_of_image, part_of_class = num_images.to(tl.int64) * num_shifts * num_points, num_columns * num_points
    images += image * num_shifts * num_points
    factor += tl.load(class_index + image) * 4 * part_of_class
    point = tl.arange(0, points_at_once)
    is_column = column < num_columns
    at_slice = factor + column[:, None] * num_points + point[None, :]
    highest_0 = tl.full((rotations_at_once,), -float("inf"), tl.float32)
    highest_1, highest_2, highest_3 = highest_0, highest_0, highest_0
    sum_0 = tl.zeros((rotations_at_once,), tl.float32)
    sum_1, sum_2, sum_3 = sum_0, sum_0, sum_0
    best_0 = tl.zeros((rotations_at_once,), tl.int32)
    best_1, best_2, best_3 = best_0, best_0, best_0
    for block in range(num_blocks):
        shift = block * shifts_at_once + tl.arange(0, shifts_at_once)
        is_shift = shift < num_shifts
        at_image = images + shift[None, :] * num_points + point[:, None]
        nothing = tl.zeros((rotations_at_once, shifts_at_once), tl.float32)
        even_even, odd_even, even_odd, odd_odd = nothing, nothing, nothing, nothing
        for m in range(0, num_points, points_at_once):
            for part in tl.static_range(4):
                slices = tl.load(at_slice + part * part_of_class + m, mask=is_column[:, None], other=0.0)
                shifted = tl.load(at_image + part * part_of_image + m, mask=is_shift[None, :], other=0.0)
                if part == 0:
                    even_even = tl.dot(slices, shifted, even_even)
                elif part == 1:
                    odd_even = tl.dot(slices, shifted, odd_even)
                elif part == 2:
                    even_odd = tl.dot(slices, shifted, even_odd)
                else:
                    odd_odd = tl.dot(slices, shifted, odd_odd)
        # Shifts that are none are told by no score.
        extra = tl.where(is_shift, 0.0, -1e30)
        both, apart = even_even + odd_even, even_even - odd_even
        odd_both, odd_apart = even_odd + odd_odd, even_odd - odd_odd
        highest_0, sum_0, best_0 = _sum_further(
            both + odd_both, block, extra, highest_0, sum_0, best_0, shifts_at_once, log2_e
        )
        highest_1, sum_1, best_1 = _sum_further(
            apart + odd_apart, block, extra, highest_1, sum_1, best_1, shifts_at_once, log2_e
        )
        highest_2, sum_2, best_2 = _sum_further(
            both - odd_both, block, extra, highest_2, sum_2, best_2, shifts_at_once, log2_e
        )
        highest_3, sum_3, best_3 = _sum_further(
            apart - odd_apart, block, extra, highest_3, sum_3, best_3, shifts_at_once, log2_e
        )
    at = image * num_columns + column
    step = num_images.to(tl.int64) * num_columns
    _write(of_rotation, peak, log_mass, best, at, is_column, highest_0, sum_0, best_0, log2_e)
    _write(of_rotation, peak, log_mass, best, at + step, is_column, highest_1, sum_1, best_1, log2_e)
    _write(of_rotation, peak, log_mass, best, at + 2 * step, is_column, highest_2, sum_2, best_2, log2_e)
    _write(of_rotation, peak, log_mass, best, at + 3 * step, is_column, highest_3, sum_3, best_3, log2_e)


@triton.jit
def _sum_further(score, block, extra, highest, total, best, shifts_at_once: tl.constexpr, log2_e: tl.constexpr):
    """The highest, the sum of exponentials relative to it and the likeliest shift, with a block of shifts more.

    The last digits of a score give way to the number of its shift, so that the highest says which it is.
    """
    number = tl.arange(0, shifts_at_once)
    score = score * log2_e + extra[None, :]
    bits = (score.to(tl.int32, bitcast=True) & -shifts_at_once) | number[None, :]
    score = bits.to(tl.float32, bitcast=True)
    now = tl.max(score, axis=1)
    where = block * shifts_at_once + (now.to(tl.int32, bitcast=True) & (shifts_at_once - 1))
    higher = tl.maximum(highest, now)
    total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(score - higher[:, None]), axis=1)
    return higher, total, tl.where(now > highest, where, best)


@triton.jit
def _write(of_rotation, peak, log_mass, best, at, is_column, highest, total, which, log2_e: tl.constexpr):
    """What is known of some rotations."""
    shared = tl.load(of_rotation + at, mask=is_column)
    tl.store(peak + at, highest / log2_e + shared, mask=is_column)
    tl.store(log_mass + at, (highest + tl.log2(total)) / log2_e + shared, mask=is_column)
    tl.store(best + at, which.to(tl.int16), mask=is_column)
