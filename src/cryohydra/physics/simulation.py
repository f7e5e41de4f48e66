"""Images of a known mixture: image = contrast * CTF * shifted central slice + noise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from cryohydra._typing import Complex, Float, Int, Tensor
from cryohydra.errors import InputMismatch, UserError
from cryohydra.fourier.gridding import FourierSampler
from cryohydra.geometry.rotations import random_rotations, rotation_vector_to_matrix
from cryohydra.physics.ctf import Optics, contrast_transfer
from cryohydra.physics.mixture_classes import MixtureClass
from cryohydra.physics.pose import Pose

_IMAGES_AT_ONCE = 64


@dataclass(frozen=True)
class Imaging:
    """How the images of a simulated set are taken."""

    pixel_size_angstrom: float
    snr: float = 0.1
    """Variance of the noiseless images over that of the noise, whole box, averaged over the set; inf for no noise."""
    noise: Literal["white", "coloured"] = "white"
    defocus_angstrom: tuple[float, float] = (10_000.0, 25_000.0)
    """Underfocus, uniform between the two."""
    astigmatism_angstrom: float = 200.0
    """Standard deviation of half the difference of the two defoci."""
    voltage_kv: float = 300.0
    spherical_aberration_angstrom: float = 2.7e7
    amplitude_contrast: float = 0.1
    shift_std_px: float = 0.0
    """Of each coordinate; cut at three times as much."""
    contrast_std: float = 0.0
    """Spread of the contrast around 1; cut at a fifth and at nine fifths."""
    junk: float = 0.0
    """Part of the images, below 1, that hold noise alone: their contrast is 0."""
    tilt_angles: tuple[float, ...] = (0.0,)
    """Radians about the y axis of the image, in the order in which the tilts were taken."""
    dose_per_tilt: float = 0.0
    """Electrons per square angstrom."""

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise UserError(f"The SNR is {self.snr:g}; it must be above zero, or inf for images without noise.")
        if not self.pixel_size_angstrom > 0:
            raise UserError(f"The pixel size is {self.pixel_size_angstrom:g} A; it must be above zero.")
        if self.defocus_angstrom[0] > self.defocus_angstrom[1]:
            raise UserError(
                f"The defocus range {self.defocus_angstrom[0]:g} to {self.defocus_angstrom[1]:g} A runs backwards."
            )


@dataclass(frozen=True)
class SimulatedParticles:
    """Images and everything that is true of them."""

    images: Float[Tensor, "n t d d"]
    """In the sign of a particle source: the CTF, negative near zero, times a positive density. Unit noise."""
    optics: Optics
    pose: Pose
    """With one class: the true one of each particle."""
    labels: Int[Tensor, "n"]
    coordinate: Float[Tensor, "n"]
    """On the motion of the particle's class."""
    contrast: Float[Tensor, "n"]
    """Zero where an image holds noise alone."""
    maps: Float[Tensor, "k d d d"]
    """The middle map of each class, in the units of the images."""
    classes: tuple[MixtureClass, ...]
    noise_power: Float[Tensor, "shells"]
    """Variance of the noise per frequency, in shells 0 to D/2, scaled as `image_to_hartley`; zero without noise."""
    pixel_size_angstrom: float
    snr: float


def simulate_particles(
    classes: Sequence[MixtureClass],
    imaging: Imaging,
    num_images: int,
    generator: torch.Generator,
    images: Float[Tensor, "n t d d"] | None = None,
    advanced: Callable[[int], None] = lambda count: None,
) -> SimulatedParticles:
    """Draw particles of a mixture and take their images.

    Rotations are uniform; each class has its share of particles exactly, up to rounding, in random order.
    Everything is scaled so that the noise has a variance of one (without noise: the signal).

    Args:
        images: Where to write the images, for instance a tensor over a memory-mapped file; None for new memory.
        advanced: Called with the number of images finished since the last call.

    Raises:
        UserError: If there are no classes or no images.
        InputMismatch: If the classes' boxes differ.
    """
    box_size = _common_box_size(classes)
    if num_images < 1:
        raise UserError(f"{num_images} images were asked for; at least one is wanted.")
    labels = _draw_labels(torch.tensor([cls.share for cls in classes]), num_images, generator)
    frame = _draw_frames(classes, labels, generator)
    optics, pose = _draw_optics(imaging, num_images, generator), _draw_pose(imaging, num_images, generator)
    spread = torch.randn(num_images, generator=generator) * imaging.contrast_std
    contrast = 1 + spread.clamp(-0.8, 0.8)
    num_particles = num_images - round(imaging.junk * num_images)
    if num_particles < num_images:
        contrast[torch.randperm(num_images, generator=generator)[num_particles:]] = 0.0
    num_tilts = len(imaging.tilt_angles)
    if images is None:
        images = torch.empty(num_images, num_tilts, box_size, box_size)
    assert images.shape == (num_images, num_tilts, box_size, box_size)

    variance = 0.0
    for label, mixture_class in enumerate(classes):
        for position, map_zyx in enumerate(mixture_class.maps):
            chosen = torch.nonzero((labels == label) & (frame == position)).flatten()
            if len(chosen) == 0:
                continue
            sampler = FourierSampler(map_zyx)
            for index in chosen.split(_IMAGES_AT_ONCE):
                rotation, shift = pose.rotation[index, :, 0], pose.shift_px[index, :, 0]
                signal = image_density(sampler, rotation, shift, optics[index])
                signal = contrast[index, None, None, None] * signal
                variance += float(signal.var((-2, -1), correction=0).mean(1).sum()) / max(num_particles, 1)
                images[index] = signal
                advanced(len(index))
    if variance == 0:
        raise UserError("The maps are empty: there is no signal to take images of.")

    has_noise = math.isfinite(imaging.snr)
    scale = 1 / math.sqrt(variance / (imaging.snr if has_noise else 1.0))
    power = noise_power(imaging.noise, box_size) if has_noise else torch.zeros(box_size // 2 + 1)
    for start in range(0, num_images, _IMAGES_AT_ONCE):
        part = images[start : start + _IMAGES_AT_ONCE]
        noise = draw_noise(power, part.shape[0] * num_tilts, box_size, generator)
        part.mul_(scale).add_(noise.view_as(part))
    middle = torch.stack([mixture_class.middle_map for mixture_class in classes]) * scale
    coordinate = torch.stack([classes[int(k)].coordinate[int(m)] for k, m in zip(labels, frame, strict=True)])
    return SimulatedParticles(
        images, optics, pose, labels, coordinate, contrast, middle, tuple(classes), power,
        imaging.pixel_size_angstrom, imaging.snr,
    )  # fmt: skip


def image_density(
    sampler: FourierSampler,
    rotation: Float[Tensor, "b t 3 3"],
    shift_px: Float[Tensor, "b t 2"],
    optics: Optics | None = None,
) -> Float[Tensor, "b t d d"]:
    """Noiseless images of a density; without optics its plain projections.

    Frequencies at and beyond Nyquist are left empty.
    """
    box_size = sampler.box_size
    frequencies, inside = half_plane(box_size, rotation.device)
    slices = sampler.at(torch.nn.functional.pad(frequencies, (0, 1)) @ rotation)
    phase = -2 * math.pi * (shift_px @ frequencies.T)
    fourier = slices * torch.polar(torch.ones_like(phase), phase)
    if optics is not None:
        fourier = fourier * contrast_transfer(optics, frequencies)
    half = torch.zeros(*rotation.shape[:2], box_size, box_size // 2 + 1, dtype=fourier.dtype, device=rotation.device)
    half[..., inside] = fourier
    return _to_image(half)


def half_plane(box_size: int, device: torch.device | str = "cpu") -> tuple[Float[Tensor, "p 2"], Tensor]:
    """Frequencies below Nyquist, (x, y), of a real transform (`rfft2`), and the mask of where they lie in it."""
    y = torch.fft.fftfreq(box_size, device=device)
    x = torch.fft.rfftfreq(box_size, device=device)
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)
    inside = grid.norm(dim=-1) < 0.5 - 1e-6
    return grid[inside], inside


def _to_image(half: Complex[Tensor, "b t d h"]) -> Float[Tensor, "b t d d"]:
    return torch.fft.fftshift(torch.fft.irfft2(half), dim=(-2, -1))


def noise_power(noise: Literal["white", "coloured"], box_size: int) -> Float[Tensor, "shells"]:
    """Variance of noise per frequency in shells 0 to D/2; its mean over an image's pixels is one.

    Coloured noise is about ten times stronger near zero than at Nyquist, as behind solvent and carbon.
    """
    shells = torch.arange(box_size // 2 + 1)
    frequency = shells / box_size
    power = torch.ones(len(shells)) if noise == "white" else 0.2 + 1 / (1 + (frequency / 0.1).square()) ** 1.5
    pixels = _shell_of_frequency(box_size)
    return power / _interpolate(power, pixels).mean()


def draw_noise(
    power: Float[Tensor, "shells"], num_images: int, box_size: int, generator: torch.Generator
) -> Float[Tensor, "n d d"]:
    """Noise of a given power per frequency; white noise of variance one has a power of one."""
    white = torch.randn(num_images, box_size, box_size, generator=generator)
    amplitude = _interpolate(power, _shell_of_frequency(box_size)).sqrt()[:, : box_size // 2 + 1]
    return torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(box_size, box_size))


def _shell_of_frequency(box_size: int) -> Float[Tensor, "d d"]:
    """Distance from zero in Fourier pixels, in the order of `fft2`, not beyond D/2."""
    axis = torch.fft.fftfreq(box_size, 1 / box_size)
    return (axis[:, None].square() + axis.square()).sqrt().clamp(max=box_size // 2)


def _interpolate(curve: Float[Tensor, "shells"], position: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    below = position.floor().long().clamp(max=len(curve) - 2)
    return torch.lerp(curve[below], curve[below + 1], position - below)


def _common_box_size(classes: Sequence[MixtureClass]) -> int:
    if not classes:
        raise UserError("A mixture needs at least one class: give an atomic model or a map.")
    sizes = {mixture_class.box_size for mixture_class in classes}
    if len(sizes) > 1:
        raise InputMismatch(f"The classes have boxes of {sorted(sizes)} pixels; all must have the same.")
    (box_size,) = sizes
    if box_size % 2 or box_size < 8:
        raise UserError(f"The box has {box_size} pixels; an even number of at least 8 is wanted.")
    return box_size


def _draw_labels(shares: Float[Tensor, "k"], num_images: int, generator: torch.Generator) -> Int[Tensor, "n"]:
    """Labels in random order, counts as near to the shares as whole numbers can be."""
    exact = shares.double() / shares.double().sum() * num_images
    counts = exact.floor().long()
    left_over = num_images - int(counts.sum())
    counts[torch.argsort(exact - counts, descending=True, stable=True)[:left_over]] += 1
    labels = torch.repeat_interleave(torch.arange(len(shares)), counts)
    return labels[torch.randperm(num_images, generator=generator)]


def _draw_frames(
    classes: Sequence[MixtureClass], labels: Int[Tensor, "n"], generator: torch.Generator
) -> Int[Tensor, "n"]:
    """Which map of its class each particle shows, uniformly."""
    num_frames = torch.tensor([len(mixture_class.maps) for mixture_class in classes])[labels]
    return (torch.rand(len(labels), generator=generator) * num_frames).long().clamp(max=num_frames - 1)


def _draw_optics(imaging: Imaging, num_images: int, generator: torch.Generator) -> Optics:
    num_tilts = len(imaging.tilt_angles)

    def column(value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.expand(num_images, num_tilts).clone()
        return torch.full((num_images, num_tilts), float(value))

    low, high = imaging.defocus_angstrom
    mean = low + (high - low) * torch.rand(num_images, 1, generator=generator)
    half_difference = imaging.astigmatism_angstrom * torch.randn(num_images, 1, generator=generator).abs()
    angle = math.pi * torch.rand(num_images, 1, generator=generator)
    return Optics(
        pixel_size_angstrom=column(imaging.pixel_size_angstrom),
        defocus_u_angstrom=column(mean + half_difference),
        defocus_v_angstrom=column(mean - half_difference),
        defocus_angle=column(angle),
        voltage_kv=column(imaging.voltage_kv),
        spherical_aberration_angstrom=column(imaging.spherical_aberration_angstrom),
        amplitude_contrast=column(imaging.amplitude_contrast),
        phase_shift=column(0.0),
        scale=column(torch.tensor(imaging.tilt_angles).cos()),
        dose_electrons_per_square_angstrom=column(imaging.dose_per_tilt * torch.arange(1, num_tilts + 1).float())
        if imaging.dose_per_tilt
        else column(0.0),
        group=torch.zeros(num_images, num_tilts, dtype=torch.long),
    )


def _draw_pose(imaging: Imaging, num_images: int, generator: torch.Generator) -> Pose:
    num_tilts = len(imaging.tilt_angles)
    about_y = torch.zeros(num_tilts, 3)
    about_y[:, 1] = torch.tensor(imaging.tilt_angles)
    # Rows turn with the particle first and with the stage last.
    tilt = rotation_vector_to_matrix(about_y)
    rotation = tilt @ random_rotations(num_images, generator)[:, None]
    shift = torch.randn(num_images, num_tilts, 2, generator=generator).clamp(-3, 3) * imaging.shift_std_px
    return Pose(rotation[:, :, None], shift[:, :, None])
