"""What the rest of the program needs to know of a set of particles."""

from typing import Protocol, runtime_checkable

from cryohydra._typing import Float, Int, Tensor
from cryohydra.physics.ctf import Optics


@runtime_checkable
class ParticleSource(Protocol):
    """A set of particles that can be read in any order.

    It commutes with subsetting, gives the same lazy or eager, and describes as many particles as it holds.
    """

    box_size: int
    pixel_size_angstrom: float
    num_tilts: int

    def __len__(self) -> int: ...

    def images(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]:
        """Real-space images, rows [y, x], dark particles on white turned so that density is negative-CTF.

        That is: white-on-dark particles are inverted once, here, so that image = ctf * slice of a
        positive density.
        """
        ...

    def optics(self, index: Int[Tensor, "b"]) -> Optics: ...
