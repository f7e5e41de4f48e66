"""The contrast transfer function and what it depends on.

Negative near zero frequency and positive underfocus, as in cryoDRGN; RELION's sign is the opposite.
"""

import math
from dataclasses import dataclass, fields

import torch

from cryohydra._typing import Float, Int, Tensor


@dataclass(frozen=True)
class Optics:
    """How each image was taken; one row per particle and tilt."""

    pixel_size_angstrom: Float[Tensor, "b t"]
    defocus_u_angstrom: Float[Tensor, "b t"]
    """Underfocus is positive."""
    defocus_v_angstrom: Float[Tensor, "b t"]
    defocus_angle: Float[Tensor, "b t"]
    """Radians from the x axis to the direction of `defocus_u`."""
    voltage_kv: Float[Tensor, "b t"]
    spherical_aberration_angstrom: Float[Tensor, "b t"]
    amplitude_contrast: Float[Tensor, "b t"]
    """In [0, 1]."""
    phase_shift: Float[Tensor, "b t"]
    """Of a phase plate, in radians."""
    scale: Float[Tensor, "b t"]
    """Factor on the whole CTF, 1 if nothing is known; a tilt's cosine in tilt series."""
    dose_electrons_per_square_angstrom: Float[Tensor, "b t"]
    """Exposure before the image was taken, which damps high frequencies; 0 for single particles."""
    group: Int[Tensor, "b t"]
    """Optics group, from 0; images of one group share a noise spectrum."""

    def __len__(self) -> int:
        return len(self.pixel_size_angstrom)

    def __getitem__(self, index: Int[Tensor, "b"] | slice) -> "Optics":
        return Optics(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> "Optics":
        """The same optics on another device."""
        return Optics(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @classmethod
    def concatenate(cls, parts: list["Optics"]) -> "Optics":
        """Rows of several optics, one after another."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def wavelength_angstrom(voltage_kv: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Relativistic wavelength of an electron."""
    voltage = voltage_kv * 1e3
    return 12.2639 / torch.sqrt(voltage + 0.97845e-6 * voltage.square())


def contrast_transfer(optics: Optics, frequencies: Float[Tensor, "p 2"]) -> Float[Tensor, "b t p"]:
    """The CTF of each image, its scale and the damping of its dose included.

    gamma = 2 pi (-df lambda s^2 / 2 + Cs lambda^3 s^4 / 4) - phase;
    ctf = sqrt(1 - w^2) sin gamma - w cos gamma.

    Args:
        frequencies: Cycles per pixel, (x, y); each image's own pixel size turns them into 1/A.
    """
    column = _Columns(optics)
    x, y = frequencies.unbind(-1)
    square = (x.square() + y.square()) / column.pixel_size_angstrom.square()
    azimuth = torch.atan2(y, x)
    mean = (column.defocus_u_angstrom + column.defocus_v_angstrom) / 2
    half_difference = (column.defocus_u_angstrom - column.defocus_v_angstrom) / 2
    defocus = mean + half_difference * torch.cos(2 * (azimuth - column.defocus_angle))
    wavelength = wavelength_angstrom(column.voltage_kv)
    aberration = column.spherical_aberration_angstrom * wavelength**3 * square.square() / 4
    gamma = 2 * math.pi * (aberration - defocus * wavelength * square / 2) - column.phase_shift
    amplitude = column.amplitude_contrast
    ctf = torch.sqrt(1 - amplitude.square()) * gamma.sin() - amplitude * gamma.cos()
    dose = column.dose_electrons_per_square_angstrom
    return ctf * column.scale * dose_damping(square.sqrt(), dose, column.voltage_kv)


def dose_damping(
    frequency_per_angstrom: Float[Tensor, "*batch"],
    dose_electrons_per_square_angstrom: Float[Tensor, "*#batch"],
    voltage_kv: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*batch"]:
    """How much of the amplitude at a frequency is left after an exposure, in (0, 1].

    References:
        Grant and Grigorieff, eLife 2015: critical exposure 0.245 s^-1.665 + 2.81 at 300 kV,
        0.8 of that at 200 kV; other voltages are interpolated between them.
    """
    # The curve diverges at zero, where nothing is lost.
    critical = 0.245 * frequency_per_angstrom.clamp(min=1e-6) ** -1.665 + 2.81
    voltage_factor = 1 - 0.2 * (300 - voltage_kv) / 100
    return torch.exp(-0.5 * dose_electrons_per_square_angstrom / (critical * voltage_factor))


class _Columns:
    """The fields of an `Optics` with an axis for frequencies."""

    def __init__(self, optics: Optics):
        self._optics = optics

    def __getattr__(self, name: str) -> Tensor:
        column: Tensor = getattr(self._optics, name)
        return column[..., None]
