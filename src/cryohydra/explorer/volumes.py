"""Densities for the page: drawn by the network as far as a screen can show them."""

import threading

import numpy as np
import torch

from cryohydra._typing import Float, Tensor
from cryohydra.analysis.maps import shrink_map
from cryohydra.analysis.run import Run
from cryohydra.fields.render import lattice_to_map, render_hartley
from cryohydra.fourier.band import largest_radius

SHOWN_BOX_SIZE = 64
_ONE_AT_A_TIME = threading.Lock()
"""Two volumes drawn at once on a few cores take longer than one after the other."""


def draw_shown(
    run: Run, class_index: int, conformation: Float[np.ndarray, "z"], finest: int
) -> tuple[Float[Tensor, "d d d"], float]:
    """A class in one conformation, in a box of 64 pixels at most, and its pixel size in angstrom.

    Args:
        finest: Highest frequency drawn, in Fourier pixels: the time it takes goes with its cube.
    """
    box_size = min(SHOWN_BOX_SIZE, run.mixture.box_size)
    pixel_size = run.pixel_size_angstrom * run.mixture.box_size / box_size
    with _ONE_AT_A_TIME, torch.inference_mode():
        if run.z_dim == 0 or not run.has_fitted_fields:
            return shrink_map(run.draw(class_index, conformation), box_size), pixel_size
        radius = min(finest, largest_radius(box_size), run.radius or box_size)
        z = torch.from_numpy(np.ascontiguousarray(conformation, dtype=np.float32)).to(run.device)
        lattice = render_hartley(run.mixture.field(class_index), z, run.mixture.box_size, radius)
        # As `shrink_map`: the same density at fewer points of a coarser grid.
        scale = run.density_scale * (box_size / run.mixture.box_size) ** 2
        return lattice_to_map(lattice.float().cpu(), box_size) * scale, pixel_size
