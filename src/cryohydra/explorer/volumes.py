"""Densities for the page: drawn by the network as far as a screen can show them."""

import threading
from typing import Any

import numpy as np
import torch

from cryohydra._typing import Float, Tensor
from cryohydra.analysis.maps import enlarge_map, shrink_map
from cryohydra.analysis.run import Run
from cryohydra.fields.render import LatticeRenderer, lattice_to_map
from cryohydra.fourier.band import largest_radius

SHOWN_BOX_SIZE = 64
_MOST_REMEMBERED = 8
"""A first look and a full volume of four classes: 128 MB at most for each full volume of a network 256 units wide."""


class VolumePainter:
    """Draws classes in a box of 64 voxels, remembering what holds for every conformation of the last ones."""

    def __init__(self) -> None:
        # Two volumes drawn at once on a few cores take longer than one after the other.
        self._one_at_a_time = threading.Lock()
        self._renderers: dict[tuple[int, int, int], LatticeRenderer] = {}

    def draw(
        self, run: Run, class_index: int, conformation: Float[np.ndarray, "z"], finest: int
    ) -> tuple[Float[Tensor, "d d d"], float]:
        """A class in one conformation, and its voxel size in angstrom.

        Args:
            finest: Highest frequency drawn, in Fourier pixels: the time it takes goes with its cube.
        """
        box_size = run.mixture.box_size
        voxel_size = run.pixel_size_angstrom * box_size / SHOWN_BOX_SIZE
        with self._one_at_a_time, torch.inference_mode():
            if not _is_drawn(run):
                density = run.draw(class_index, conformation)
                return enlarge_map(shrink_map(density, SHOWN_BOX_SIZE), SHOWN_BOX_SIZE), voxel_size
            z = torch.from_numpy(np.ascontiguousarray(conformation, dtype=np.float32)).to(run.device)
            lattice = self._renderer(run, class_index, finest).hartley(z).float().cpu()
            # As `shrink_map` and `enlarge_map`: the same density at the points of another grid.
            scale = run.density_scale * (SHOWN_BOX_SIZE / box_size) ** 2
            return lattice_to_map(lattice, SHOWN_BOX_SIZE) * scale, voxel_size

    def prepare(self, run: Run, class_index: int, finest: int) -> None:
        """Compute what holds for every conformation of a class, before the first one is asked for."""
        with self._one_at_a_time, torch.inference_mode():
            if _is_drawn(run):
                self._renderer(run, class_index, finest)

    def _renderer(self, run: Run, class_index: int, finest: int) -> LatticeRenderer:
        box_size = run.mixture.box_size
        radius = min(finest, largest_radius(min(box_size, SHOWN_BOX_SIZE)), run.radius or box_size)
        key = id(run), class_index, radius
        found = self._renderers.pop(key, None)
        if found is None:
            while len(self._renderers) >= _MOST_REMEMBERED:
                del self._renderers[next(iter(self._renderers))]
            field = run.mixture.field(class_index)
            dtype = _dtype_to_look_at(run.device)
            found = LatticeRenderer(field, box_size, radius, device=run.device, dtype=dtype)
        self._renderers[key] = found  # the last one used is the last to be forgotten
        return found


def _dtype_to_look_at(device: torch.device) -> torch.dtype:
    """Hidden layers in bfloat16 where a CPU multiplies it natively: three times as fast.

    Coefficients are off by about a hundredth, each in its own way, which no eye finds in a surface. Volumes that are
    saved are drawn in float32.
    """
    if device.type != "cpu":
        return torch.float32
    # An older torch cannot tell.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if able.get("amx_bf16") or able.get("avx512_bf16") else torch.float32


def _is_drawn(run: Run) -> bool:
    """Whether a class is what its network draws; rigid ones look as their map was written."""
    return run.z_dim > 0 and run.has_fitted_fields
