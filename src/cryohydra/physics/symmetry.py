"""Rotations that take a complex to itself, from the chains of its atomic model."""

from collections.abc import Sequence

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.physics.atoms import Trace

_FARTHEST_ANGSTROM = 3.0
"""Root mean square distance of chains that count as the same: less than images of a mixture tell apart."""
_LEAST_SHARED = 0.8
"""Of the residues of the longer of two chains that are the same."""


def symmetry_of(traces: Sequence[Trace], centre_angstrom: Float[Tensor, "3"]) -> Float[Tensor, "g 3 3"]:
    """The rotations about a point, acting on columns, that take every chain to one like it; the identity first.

    Each takes the first chain to one of its copies, which it is superposed on (Kabsch, Acta Cryst. A 1976).
    """
    rotations = [torch.eye(3)]
    if traces:
        centred = [Trace(trace.residue, trace.positions_angstrom - centre_angstrom) for trace in traces]
        for copy in centred[1:]:
            rotation = _superposition(centred[0], copy)
            if rotation is not None and all(_has_image(trace, rotation, centred) for trace in centred):
                rotations.append(rotation)
    return torch.stack(rotations)


def _superposition(moving: Trace, fixed: Trace) -> Float[Tensor, "3 3"] | None:
    """The rotation about the origin that brings a chain nearest to another; None if they are not alike."""
    shared = _shared(moving, fixed)
    if shared is None:
        return None
    u, _, vt = torch.linalg.svd(shared[1].double().T @ shared[0].double())
    sign = torch.ones(3, dtype=torch.double)
    sign[2] = torch.linalg.det(u @ vt)
    return (u @ torch.diag(sign) @ vt).float()


def _has_image(trace: Trace, rotation: Float[Tensor, "3 3"], traces: Sequence[Trace]) -> bool:
    moved = Trace(trace.residue, trace.positions_angstrom @ rotation.T)
    pairs = [shared for other in traces if (shared := _shared(moved, other)) is not None]
    return any(float((a - b).square().sum(1).mean().sqrt()) < _FARTHEST_ANGSTROM for a, b in pairs)


def _shared(first: Trace, second: Trace) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 3"]] | None:
    """Positions of the residues that two chains share; None if these are too few."""
    is_same = first.residue[:, None] == second.residue
    if int(is_same.sum()) < _LEAST_SHARED * max(len(first.residue), len(second.residue)):
        return None
    i, j = torch.nonzero(is_same, as_tuple=True)
    return first.positions_angstrom[i], second.positions_angstrom[j]
