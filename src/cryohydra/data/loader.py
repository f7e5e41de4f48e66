"""Images on their way from a source to the model: normalised, transformed, batched and read ahead."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.data.normalisation import Normalisation
from cryohydra.data.source import ParticleSource
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import image_to_hartley
from cryohydra.physics.ctf import Optics

_WINDOW_OUTER_RADIUS = 0.99

Item = TypeVar("Item")


class PreparedImages:
    """The Hartley transforms of a source's images in a band.

    Args:
        window_radius: Fraction of half the box within which images are kept as they are; from there a cosine
            falls to zero at 0.99. None keeps all. A window correlates the noise between frequencies.
        keeps_band: Whether the band of each image is kept in memory after its first use.
    """

    def __init__(
        self,
        source: ParticleSource,
        normalisation: Normalisation,
        band: Band,
        window_radius: float | None = None,
        keeps_band: bool = False,
    ):
        assert band.box_size == source.box_size
        self.box_size = source.box_size
        self.num_tilts = source.num_tilts
        self.pixel_size_angstrom = source.pixel_size_angstrom
        self.band = band
        self._source, self._normalisation = source, normalisation
        self._window = None if window_radius is None else soft_window(source.box_size, window_radius)
        self._kept: Tensor | None = None
        self._is_kept = torch.zeros(len(source), dtype=torch.bool)
        if keeps_band:
            self._kept = torch.empty(len(source), source.num_tilts, len(band))

    def __len__(self) -> int:
        return len(self._source)

    def hartley(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t p"]:
        """Coefficients of the band."""
        if self._kept is None:
            return self.band.gather(self.full_hartley(index))
        missing = index[~self._is_kept[index]]
        if len(missing):
            self._kept[missing] = self.band.gather(self.full_hartley(missing))
            self._is_kept[missing] = True
        return self._kept[index]

    def full_hartley(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]:
        """Coefficients of the whole box."""
        images = self._normalisation.apply(self._source.images(index))
        return image_to_hartley(images if self._window is None else images * self._window)

    def optics(self, index: Int[Tensor, "b"]) -> Optics:
        """Optics of the images."""
        return self._source.optics(index)


def soft_window(box_size: int, radius: float) -> Float[Tensor, "d d"]:
    """One within `radius` half boxes of the centre, zero beyond 0.99, a cosine between."""
    axis = (torch.arange(box_size) - box_size // 2) / (box_size / 2)
    distance = torch.hypot(axis[:, None], axis[None, :])
    way_out = ((distance - radius) / max(_WINDOW_OUTER_RADIUS - radius, 1e-6)).clamp(0, 1)
    return (1 + torch.cos(torch.pi * way_out)) / 2


def shuffled_batches(num_particles: int, batch_size: int, generator: torch.Generator) -> Iterator[Int[Tensor, "b"]]:
    """Every particle once, in random order; the last batch may be smaller."""
    yield from torch.randperm(num_particles, generator=generator).split(batch_size)


def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The same items, made by a background thread up to `depth` ahead.

    An exception there is raised here; the thread ends when the iterator is closed.
    """
    ready: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=depth)
    is_closed = threading.Event()

    def put(is_item: bool, content: Item | BaseException | None) -> bool:
        while not is_closed.is_set():
            try:
                ready.put((is_item, content), timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(True, item):
                    return
            put(False, None)
        except BaseException as error:  # handed over, to be raised where the items are used
            put(False, error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            is_item, content = ready.get()
            if not is_item:
                if isinstance(content, BaseException):
                    raise content
                return
            yield content  # type: ignore[misc]
    finally:
        is_closed.set()
        thread.join()
