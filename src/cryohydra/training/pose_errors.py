"""How far poses are from given ones, whatever the frame and hand of the map they belong to."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.geometry.rotations import geodesic_angle
from cryohydra.physics.pose import Pose

_MOST_FRAMES = 200


@dataclass(frozen=True)
class PoseErrors:
    """How far the poses of one class's particles are from given ones, after one rotation, hand and shift."""

    aligned: Pose
    """The estimated poses in the frame of the given ones; axes n 1 1."""
    angle_degrees: Float[Tensor, "n"]
    """Of the whole rotation."""
    out_of_plane_degrees: Float[Tensor, "n"]
    """Between the viewing directions."""
    shift_px: Float[Tensor, "n"]


def pose_errors(estimated: Pose, reference: Pose) -> PoseErrors:
    """Compare the first tilt of the first class of each particle.

    A field has a frame and hand of its own: the rotation is the one, of those that single particles
    propose, with the smallest median error, for either hand.
    """
    own, given = estimated.rotation[:, 0, 0].float(), reference.rotation[:, 0, 0].float()
    mirror = torch.diag(torch.tensor([-1.0, -1.0, 1.0], device=own.device))
    aligned = min((_in_frame_of(given, hand) for hand in (own, mirror @ own)), key=lambda found: float(found[0]))[1]
    cosine = (aligned[:, 2] * given[:, 2]).sum(-1).clamp(-1, 1)
    moved = (estimated.shift_px - reference.shift_px)[:, 0, 0].double()
    # The map may lie off the centre of its box: an offset o moves each image by R o.
    planes = own[:, :2].double()
    offset = torch.linalg.lstsq(planes.flatten(0, 1).cpu(), moved.reshape(-1, 1).cpu()).solution[:, 0].to(moved)
    centred = moved - planes @ offset
    shift_px = reference.shift_px[:, 0, 0] + centred.float()
    return PoseErrors(
        Pose(aligned[:, None, None], shift_px[:, None, None]),
        torch.rad2deg(geodesic_angle(aligned, given)),
        torch.rad2deg(torch.arccos(cosine)),
        centred.norm(dim=-1).float(),
    )


def _in_frame_of(
    given: Float[Tensor, "n 3 3"], own: Float[Tensor, "n 3 3"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "n 3 3"]]:
    """The smallest median of 1 - cos(angle), and the rotations in the frame that has it."""
    proposed = own.mT @ given  # the frame's rotation, as each particle sees it
    chosen = proposed[torch.linspace(0, len(own) - 1, min(len(own), _MOST_FRAMES)).long()]
    trace = chosen.flatten(1) @ proposed.flatten(1).T
    median = ((3 - trace) / 2).median(dim=1).values
    best = int(median.argmin())
    return median[best], own @ chosen[best]
