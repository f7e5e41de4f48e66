"""Class maps from images of weighed classes and poses: backprojection and its solution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad

from cryohydra._device import chunks
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Corners, Lattice, add, enlarge, slice_frequencies, to_frequency, to_real_space
from cryohydra.inference.images import WeightedImages

_KNOWN = 0.143
"""Half-map correlation down to which a shell counts as known."""
_LEAST_DENSITY = 0.1
_PARTICLE_RADIUS = 0.45
"""As a fraction of the box."""


@dataclass
class ClassSums:
    """Posterior-weighted sums over images, on a lattice, of two halves of the particles or of smaller parts of these.

    The first half of the parts make the first half of the particles (`partition`).

    The numerator gathers CTF times image over noise variance, the denominator CTF squared over noise
    variance: their ratio is the best map. Every image counts at contrast one: weighed by its estimated
    contrast, map and contrasts drift apart in scale, and the evidence falls from pass to pass.
    """

    lattice: Lattice
    numerator: Float[Tensor, "p k n3"]
    denominator: Float[Tensor, "p k n3"]

    @classmethod
    def empty(
        cls, lattice: Lattice, num_classes: int, device: torch.device | str = "cpu", num_parts: int = 2
    ) -> "ClassSums":
        """Sums over no images.

        Args:
            num_parts: Those of `part_of`; others only where nothing is asked of halves (`solve`).
        """
        shape = (num_parts, num_classes, lattice.size**3)
        return cls(lattice, torch.zeros(shape, device=device), torch.zeros(shape, device=device))

    @property
    def num_parts(self) -> int:
        """Of the particles."""
        return len(self.numerator)

    def add(
        self,
        images: WeightedImages,
        band: Band,
        part: Int[Tensor, "b"],
        weight: Float[Tensor, "b c"],
        class_index: Int[Tensor, "b c"],
        rotation: Float[Tensor, "b c t 3 3"],
        shift_px: Float[Tensor, "b c t 2"],
        least_share: float = 1e-2,
    ) -> None:
        """Add images at candidate classes and poses.

        Args:
            part: The part that each image belongs to, from 0.
            least_share: Candidates of less than this part of their image's heaviest are passed over.
        """
        heaviest = weight.amax(1, keepdim=True)
        image, candidate = torch.nonzero((weight >= least_share * heaviest) & (weight > 0), as_tuple=True)
        weight = weight[image, candidate]
        score = shift_hartley(images.score[image], band.frequencies, -shift_px[image, candidate])
        numerator = weight[:, None, None] * score
        denominator = weight[:, None, None] * images.power[image]
        size = score.shape[1:].numel()
        part_and_class = part[image] * self.numerator.shape[1] + class_index[image, candidate]
        for rows in chunks(len(image), 16 * size, image.device):
            corners = Corners.around(
                self.lattice, slice_frequencies(band, rotation[image[rows], candidate[rows]]).flatten(0, 2)
            )
            first = part_and_class[rows].repeat_interleave(size) * self.numerator.shape[2]
            corners = Corners(corners.index + first[:, None], corners.weight)
            add(self.numerator.view(-1), corners, numerator[rows].flatten())
            add(self.denominator.view(-1), corners, denominator[rows].flatten())

    def forget(self, part: int) -> None:
        """Take the images of a part out."""
        self.numerator[part] = 0
        self.denominator[part] = 0

    def within(self, radius: int) -> "ClassSums":
        """These sums up to a radius in Fourier pixels, on a lattice of its own."""
        lattice = Lattice(self.lattice.box_size, radius, self.lattice.oversampling)
        numerator, denominator = (
            enlarge(sums.flatten(0, 1).unflatten(1, self.lattice.shape), lattice)
            .flatten(1)
            .unflatten(0, sums.shape[:2])
            for sums in (self.numerator, self.denominator)
        )
        return ClassSums(lattice, numerator, denominator)

    def halved(self) -> "ClassSums":
        """The sums of two halves of the particles."""
        if self.num_parts == 2:
            return self
        halves = (sums.unflatten(0, (2, -1)).sum(1) for sums in (self.numerator, self.denominator))
        return ClassSums(self.lattice, *halves)

    def solve(
        self, mask: Float[Tensor, "n n n"], least_share: float = 0.02, follows_density: bool = True
    ) -> "Solution":
        """Maps of all images, each shell damped by how well the maps of the two halves agree there.

        Source: Scheres, J. Mol. Biol. 2012, on the signal-to-noise ratio from half maps. Both halves saw the same
        poses, so this is not a resolution to publish. Then each map is confined to where it has density
        (`density_mask`).

        Args:
            mask: Where density may be, on the lattice's coarse voxels.
            least_share: Part of a shell's mean denominator that is added to it, against points that no image touched.
            follows_density: Whether maps are confined to their density, or to `mask` only. A mask that is made of a map
                mixes neighbouring shells, so that halves with a common mask agree better than they should.
        """
        lattice = self.lattice
        shells = lattice.distance(self.numerator.device).round().long().flatten().clamp(max=lattice.radius + 1)
        both = self.halved()
        numerators, denominators = both.numerator, both.denominator
        halves = torch.stack(
            [
                _masked(lattice, ratio(n, d, shells, least_share), mask).flatten(1)
                for n, d in zip(numerators, denominators, strict=True)
            ]
        )
        correlation = _shell_correlation(halves[0], halves[1], shells).clamp(1e-3, 0.999)
        # Two halves together are known better than each: Rosenthal and Henderson, J. Mol. Biol. 2003.
        whole = 2 * correlation / (1 + correlation)
        numerator, denominator = numerators.sum(0), denominators.sum(0)
        mean = _shell_mean(denominator, shells)
        damping = (mean * (1 - whole) / whole)[:, shells]
        values = numerator / (denominator + damping + least_share * mean[:, shells] + 1e-20)
        values = torch.where(shells <= lattice.radius, values, 0.0)
        maps = ClassMaps(
            lattice=lattice,
            values=_confined(lattice, values, _masked(lattice, values, mask), mask, follows_density),
            half_correlation=correlation[:, : lattice.radius + 1],
        )
        return Solution(maps, halves, correlation[:, shells], mask, follows_density)


@dataclass(frozen=True)
class ClassMaps:
    """The map of each class on a lattice, and how well it is known."""

    lattice: Lattice
    values: Float[Tensor, "k n n n"]
    """Hartley coefficients."""
    half_correlation: Float[Tensor, "k r"]
    """Fourier shell correlation of the maps of two halves of the particles, poses shared."""
    halves: Float[Tensor, "2 k n n n"] | None = None
    """Those of each half by itself (`Solution.with_halves`); None where all images are compared with the same maps."""

    @property
    def compared(self) -> Float[Tensor, "h n n n"]:
        """What images are compared with: the maps of the first half and then of the second, or the only ones."""
        return self.values if self.halves is None else self.halves.flatten(0, 1)

    def keeping(self, kept: Int[Tensor, "m"]) -> "ClassMaps":
        """Those of some classes."""
        halves = None if self.halves is None else self.halves[:, kept]
        return ClassMaps(self.lattice, self.values[kept], self.half_correlation[kept], halves)

    def on(self, lattice: Lattice) -> "ClassMaps":
        """The same on a wider lattice; nothing is known beyond what was."""
        if lattice == self.lattice:
            return self
        correlation = pad(self.half_correlation, (0, lattice.radius - self.lattice.radius))
        halves = (
            None
            if self.halves is None
            else enlarge(self.halves.flatten(0, 1), lattice).unflatten(0, self.halves.shape[:2])
        )
        return ClassMaps(lattice, enlarge(self.values, lattice), correlation, halves)

    def without_halves(self) -> "ClassMaps":
        """Only the maps of all images."""
        return replace(self, halves=None)

    def with_others(self, classes: list[int], others: Float[Tensor, "c n n n"]) -> "ClassMaps":
        """Other maps in the place of some classes, in both halves."""
        values, halves = self.values.clone(), self.halves
        values[classes] = others
        if halves is not None:
            halves = halves.clone()
            halves[:, classes] = others
        return replace(self, values=values, halves=halves)

    def saved(self) -> list[Tensor | None]:
        """Tensors from which `restored` makes them."""
        return [self.values, self.half_correlation, self.halves]

    @classmethod
    def restored(cls, saved: Sequence[Tensor | None], box_size: int, device: torch.device) -> "ClassMaps":
        """Undo `saved`, for images of `box_size` pixels; earlier versions saved no halves."""
        values, correlation, *halves = (None if one is None else one.to(device) for one in saved)
        assert values is not None and correlation is not None
        return cls(Lattice(box_size, correlation.shape[1] - 1), values, correlation, *halves)

    def known_radius(self, least_correlation: float = _KNOWN) -> int:
        """The highest frequency, in Fourier pixels, to which the halves of the best known class agree so well."""
        return int(self._is_known(least_correlation).sum(1).max()) - 1

    def signal(self) -> Float[Tensor, "k r"]:
        """Part of each shell that is no noise, up to where halves agree no more.

        2 FSC / (1 + FSC) of maps of all images (Rosenthal and Henderson, J. Mol. Biol. 2003).
        """
        correlation = self.half_correlation.clamp(0, 1)
        return 2 * correlation / (1 + correlation) * self._is_known(_KNOWN)

    def _is_known(self, least_correlation: float) -> Int[Tensor, "k r"]:
        known = (self.half_correlation > least_correlation).int()
        known[:, 0] = 1
        return known.cumprod(1)


@dataclass(frozen=True)
class Solution:
    """Maps of all images, and those of each half of them if they are asked for."""

    maps: ClassMaps
    _halves: Float[Tensor, "2 k n3"]
    """Neither damped nor confined to their density."""
    _damping: Float[Tensor, "k n3"]
    _mask: Float[Tensor, "n n n"]
    _follows_density: bool

    def with_halves(self) -> ClassMaps:
        """The maps of all images beside those of each half by itself, damped and confined as those of all are.

        An image compared with the other half's maps (`half_of`) is judged by images other than itself. Compared with
        maps that it is part of, it seems to fit the class that it was counted to: of few images with much noise, each
        then stays where it is.
        """
        lattice, mask = self.maps.lattice, self._mask
        halves = [
            _confined(lattice, half * self._damping, half.unflatten(1, lattice.shape), mask, self._follows_density)
            for half in self._halves
        ]
        return replace(self.maps, halves=torch.stack(halves))


def particle_mask(lattice: Lattice, device: torch.device | str = "cpu") -> Float[Tensor, "n n n"]:
    """The sphere to which density is confined, with a soft edge, on the lattice's coarse voxels."""
    distance = lattice.real_space_radius_px(device) / lattice.box_size
    return ((_PARTICLE_RADIUS - distance) / 0.05 + 0.5).clamp(0, 1)


def density_mask(lattice: Lattice, values: Float[Tensor, "k n n n"]) -> Float[Tensor, "k n n n"]:
    """Where each map, low-passed, has more than a tenth of its highest density, a voxel and a soft edge around it.

    Outside there is only noise; what leaving it out is worth is measured in docs/decisions/engine-ablations.md.

    Returns:
        In [0, 1], on the lattice's coarse voxels.
    """
    low_pass = (-(lattice.distance(values.device) / (lattice.radius / 2)).square()).exp()
    density = to_real_space(values * low_pass)
    # The mean of the few highest voxels stands for the highest: one alone may be noise.
    highest = density.flatten(1).topk(max(1, density[0].numel() // 1000), dim=1).values.mean(1)
    inside = (density > _LEAST_DENSITY * highest[:, None, None, None]).float()
    grown = _neighbours(inside, torch.maximum)
    return _neighbours(_neighbours(grown, torch.add), torch.add) / 27**2


def _neighbours(
    values: Float[Tensor, "k n n n"], combine: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, "k n n n"]:
    """Each voxel combined with its 26 neighbours, along one axis after the other; zero beyond the edge."""
    for axis in (1, 2, 3):
        size = values.shape[axis]
        padded = pad(values, [0, 0] * (3 - axis) + [1, 1])
        low, middle, high = (padded.narrow(axis, start, size) for start in range(3))
        values = combine(combine(low, middle), high)
    return values


def _masked(
    lattice: Lattice, values: Float[Tensor, "k n3"], mask: Float[Tensor, "*#k n n n"]
) -> Float[Tensor, "k n n n"]:
    return to_frequency(to_real_space(values.unflatten(1, lattice.shape)) * mask)


def _confined(
    lattice: Lattice,
    values: Float[Tensor, "k n3"],
    undamped: Float[Tensor, "k n n n"],
    mask: Float[Tensor, "n n n"],
    follows_density: bool,
) -> Float[Tensor, "k n n n"]:
    density = density_mask(lattice, undamped) if follows_density else torch.ones_like(mask)
    return _masked(lattice, values, mask * density)


def ratio(
    numerator: Float[Tensor, "k n3"], denominator: Float[Tensor, "k n3"], shells: Int[Tensor, "n3"], least_share: float
) -> Float[Tensor, "k n3"]:
    """The maps that sums come to, undamped.

    Args:
        least_share: Part of a shell's mean denominator that is added to it, against points that no image touched.
    """
    mean = _shell_mean(denominator, shells)
    return numerator / (denominator + least_share * mean[:, shells] + 1e-20)


def _shell_mean(values: Float[Tensor, "k n3"], shells: Int[Tensor, "n3"]) -> Float[Tensor, "k r"]:
    count = torch.bincount(shells)
    return values.new_zeros(len(values), len(count)).index_add_(1, shells, values) / count


def _shell_correlation(
    a: Float[Tensor, "k n3"], b: Float[Tensor, "k n3"], shells: Int[Tensor, "n3"]
) -> Float[Tensor, "k r"]:
    cross, first, second = (_shell_mean(product, shells) for product in (a * b, a * a, b * b))
    return cross / (first * second).sqrt().clamp(min=1e-20)
