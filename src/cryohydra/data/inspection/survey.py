"""What is in the images: broken ones, ones that are there twice, their mean, their spectrum and their noise's."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.data.inspection.findings import Finding, counted, rows_named
from cryohydra.data.sources import read_any_images
from cryohydra.data.table import ImageTable
from cryohydra.physics.noise import spectrum_of_corners

_PIXELS_AT_ONCE = 2**22
_NUM_SHOWN = 28
_MOST_UNEVEN = 4.0
"""Ratio of standard deviations of images, 99th over 1st percentile."""
_WILDEST = 30.0
"""Standard deviations of a pixel from its image's mean: dust, or a hot pixel."""
_SPHERE = 0.38
"""Part of the box that the sphere holds."""
_KNOWN = 0.143
_LEAST_NOISE = 1e-3
"""Part of the white level below which there is no noise worth the name."""


@dataclass(frozen=True, eq=False)
class ImageSurvey:
    """Sums over the images looked at; spectra in units of the images' mean variance per pixel."""

    rows: Int[np.ndarray, "m"]
    """Images looked at that can be used."""
    num_looked_at: int
    num_there: int
    mean: Float[Tensor, "d d"]
    shown: Float[Tensor, "s d d"]
    """Some images, evenly spaced."""
    power: Float[Tensor, "r"]
    """Of whole images, at each Fourier pixel."""
    noise: Float[Tensor, "g r"]
    """Of what lies outside the particles, for each optics group."""
    findings: tuple[Finding, ...]

    @property
    def signal_to_noise(self) -> float:
        """Variance of what is not noise over the noise's, whole box; CTF included."""
        noise = self.noise.mean(0)
        weight = torch.arange(len(noise)).float()
        return float(
            ((self.power - noise).clamp(min=0) * weight)[1:].sum() / (noise * weight)[1:].sum().clamp(min=1e-12)
        )

    def known_radius(self, num_images: float) -> int:
        """The highest frequency, in Fourier pixels, to which a map of so many images can be known, poses being right.

        The plane of an image touches one in 2 r of the points at r, and halves of the images agree above 0.143 within
        the sphere that maps are confined to, which holds so much less of the noise than the box.
        """
        noise = self.noise.mean(0)
        in_image = (self.power - noise).clamp(min=0) / noise.clamp(min=1e-12)
        in_half = num_images / 2 * in_image / (2 * torch.arange(len(noise)).clamp(min=1)) / _SPHERE
        is_known = (in_half / (1 + in_half) > _KNOWN).int()
        is_known[:2] = 1
        return int(is_known.cumprod(0).sum()) - 1


def survey_images(
    table: ImageTable, max_images: int, seen: Callable[[int, int], None] = lambda done, total: None
) -> ImageSurvey | None:
    """Look at up to `max_images` images, evenly spaced over the set; None if none can be read.

    Args:
        seen: Told how many of how many have been looked at.
    """
    there = np.flatnonzero(table.references.stack >= 0)
    if not len(there) or not table.box_size or not max_images:
        return None
    chosen = there[np.linspace(0, len(there) - 1, min(len(there), max_images)).astype(np.int64)]
    sums = _Sums(table, num_shown=min(_NUM_SHOWN, len(chosen)), num_chosen=len(chosen))
    at_once = max(1, _PIXELS_AT_ONCE // table.box_size**2)
    for first in range(0, len(chosen), at_once):
        sums.add(chosen[first : first + at_once], first)
        seen(min(first + at_once, len(chosen)), len(chosen))
    return sums.survey(len(chosen), len(there))


class _Sums:
    """What is added up, chunk by chunk."""

    def __init__(self, table: ImageTable, num_shown: int, num_chosen: int):
        self.table = table
        self.box_size = table.box_size
        self.shown_at = set(np.linspace(0, num_chosen - 1, num_shown).astype(int).tolist())
        self.num_groups = int(table.group.max()) + 1
        num_shells = self.box_size // 2 + 1
        self.mean = torch.zeros(self.box_size, self.box_size, dtype=torch.float64)
        self.power = torch.zeros(num_shells, dtype=torch.float64)
        self.noise = torch.zeros(self.num_groups, num_shells, dtype=torch.float64)
        self.count = torch.zeros(self.num_groups, dtype=torch.float64)
        self.variance = 0.0
        self.shown: list[Tensor] = []
        self.good: list[np.ndarray] = []
        self.spread: list[np.ndarray] = []
        self.not_finite: list[int] = []
        self.constant: list[int] = []
        self.wild: list[int] = []
        self.twice: list[tuple[int, int]] = []
        self._digests: dict[bytes, int] = {}
        frequency = torch.fft.fftfreq(self.box_size, 1 / self.box_size)
        self._shell = (frequency[:, None].square() + frequency.square()).sqrt().round().long().flatten()

    def add(self, rows: Int[np.ndarray, "b"], first: int) -> None:
        images = read_any_images(self.table.references, rows)
        low, high = images.amin((1, 2)), images.amax((1, 2))
        finite, varied = torch.isfinite(high - low), low != high
        self.not_finite += rows[~finite.numpy()].tolist()
        self.constant += rows[(finite & ~varied).numpy()].tolist()
        is_good = (finite & varied).numpy()
        self.shown += [images[i] for i in range(len(rows)) if first + i in self.shown_at and is_good[i]]
        images, rows = images[is_good], rows[is_good]
        if not len(rows):
            return
        self._look_for_twins(images, rows)
        mean, spread = images.mean((1, 2), keepdim=True), images.std((1, 2), keepdim=True)
        self.wild += rows[(((images - mean).abs().amax((1, 2)) / spread[:, 0, 0]) > _WILDEST).numpy()].tolist()
        self.good.append(rows)
        self.spread.append(spread[:, 0, 0].numpy())
        self.mean += (images - mean).sum(0).double()
        self.variance += float(spread.double().square().sum())
        group = torch.from_numpy(self.table.group[rows]).long()
        self.power += self._radial(torch.fft.fft2(images - mean).abs().square().sum(0))
        counts = torch.bincount(group, minlength=self.num_groups)
        corners = spectrum_of_corners(images - mean, group, self.num_groups).variance
        self.noise += torch.nan_to_num(corners.double()) * counts[:, None]
        self.count += counts

    def _radial(self, power: Float[Tensor, "d d"]) -> Float[Tensor, "r"]:
        num_shells = self.box_size // 2 + 1
        inside = self._shell < num_shells
        total = torch.zeros(num_shells, dtype=torch.float64)
        total.index_add_(0, self._shell[inside], power.flatten()[inside].double())
        return total / torch.bincount(self._shell[inside], minlength=num_shells) / self.box_size**2

    def _look_for_twins(self, images: Float[Tensor, "b d d"], rows: Int[np.ndarray, "b"]) -> None:
        for image, row in zip(images.numpy(), rows.tolist(), strict=True):
            digest = hashlib.blake2b(image.tobytes(), digest_size=12).digest()
            if digest in self._digests:
                self.twice.append((self._digests[digest], row))
            self._digests.setdefault(digest, row)

    def survey(self, num_looked_at: int, num_there: int) -> ImageSurvey:
        rows = np.concatenate(self.good) if self.good else np.zeros(0, dtype=np.int64)
        num_good = max(1, len(rows))
        unit = max(self.variance / num_good, 1e-30)
        pooled = self.noise.sum(0) / num_good
        noise = torch.where(self.count[:, None] > 0, self.noise / self.count.clamp(min=1)[:, None], pooled) / unit
        power = self.power / num_good / unit
        return ImageSurvey(
            rows=rows,
            num_looked_at=num_looked_at,
            num_there=num_there,
            mean=(self.mean / num_good).float(),
            shown=torch.stack(self.shown) if self.shown else torch.zeros(0, self.box_size, self.box_size),
            power=power.float(),
            noise=noise.float(),
            findings=tuple(self._findings(num_looked_at, num_there, noise.mean(0), power)),
        )

    def _findings(
        self, num_looked_at: int, num_there: int, noise: Float[Tensor, "r"], power: Float[Tensor, "r"]
    ) -> list[Finding]:
        looked = f"of {num_looked_at:,} looked at" if num_looked_at < num_there else "of all"
        leave = "Leave them out with `ind`, or remove them."
        found = []
        for rows, what in ((self.not_finite, "has NaN or infinite values"), (self.constant, "is constant")):
            if rows:
                plural = what.replace("has", "have").replace("is ", "are ") if len(rows) > 1 else what
                said = f"{counted(len(rows), 'image')} {looked} {plural}: row{'s' if len(rows) > 1 else ''} "
                found.append(
                    Finding("error", said + f"{rows_named(rows)}, counted from 0; {self._first(rows)}.", leave)
                )
        if self.twice:
            pairs = ", ".join(f"{a} and {b}" for a, b in self.twice[:3]) + (", ..." if len(self.twice) > 3 else "")
            said = (
                f"{counted(len(self.twice), 'image')} {looked} {'is a copy' if len(self.twice) == 1 else 'are copies'}"
            )
            found.append(Finding("warning", f"{said} of another: rows {pairs}.", TWICE))
        if self.wild:
            said = (
                f"{counted(len(self.wild), 'image')} {looked} with a pixel more than {_WILDEST:.0f} standard deviations"
            )
            advice = "Remove dust when extracting, or leave them out."
            found.append(Finding("warning", f"{said} from the mean: rows {rows_named(self.wild)}.", advice))
        return found + self._findings_of_noise(noise, power)

    def _findings_of_noise(self, noise: Float[Tensor, "r"], power: Float[Tensor, "r"]) -> list[Finding]:
        found = []
        spread = np.concatenate(self.spread) if self.spread else np.ones(1)
        low, high = np.percentile(spread, [1, 99])
        if high > _MOST_UNEVEN * low:
            said = f"Images differ in standard deviation by a factor of {high / low:.3g} (1st to 99th percentile)."
            found.append(
                Finding("warning", said, "Extract them with normalisation, so that none outweighs the others.")
            )
        if not self.good:
            return found
        # White noise of variance one has power one at every frequency.
        if float(noise[2:].max()) < _LEAST_NOISE:
            said = "There is no noise outside the particles: the images were masked, or made without noise."
            return [*found, Finding("warning", said, "Give images as extracted: classes are weighed by their noise.")]
        # The power of whole images: that of a part of them leaks from frequency to frequency.
        empty = 1 + torch.nonzero(power[1:] < _LEAST_NOISE * noise.max()).flatten()
        shell = empty[:1]
        if len(shell) and len(empty) == len(power) - int(shell[0]):
            said = (
                f"The images hold nothing beyond Fourier pixel {int(shell[0])} of {len(noise) - 1}: they were filtered"
            )
            advice = f"Give images as extracted, or set max_freq={int(shell[0]) - 1}."
            found.append(Finding("warning", said + " or enlarged.", advice))
        return found

    def _first(self, rows: list[int]) -> str:
        references = self.table.references
        path = references.stacks[references.stack[rows[0]]].path
        return f"the first is image {references.row[rows[0]] + 1} of {path}"


TWICE = "Remove copies: a particle that is there twice counts twice, and halves of the set are not independent."
