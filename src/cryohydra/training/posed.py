"""Images of one class at the poses that the tables hold."""

import torch

from cryohydra._typing import Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.inference.variation import PosedImages
from cryohydra.training.state import TrainingState

_AT_ONCE = 256


def posed_images(state: TrainingState, index: Int[Tensor, "m"], class_index: int, band: Band) -> PosedImages:
    """Particles as members of a class, at the poses that they have in it, their shifts undone."""
    parts = [state.weighted(rows, band) for rows in index.split(_AT_ONCE)]
    score, power = torch.cat([part.score for part in parts]), torch.cat([part.power for part in parts])
    rows = index.to(state.device)
    pose = state.poses.pose(rows)
    # Known shifts were undone already, with the images' scores.
    shift = pose.shift_px[:, :, class_index] - state.known_shift_px[rows][:, None]
    return PosedImages(
        score=shift_hartley(score, band.frequencies, -shift),
        power=power,
        rotation=pose.rotation[:, :, class_index],
        weight=state.classes.log_posterior(rows).exp()[:, class_index],
    )
