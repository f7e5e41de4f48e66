"""All that a training knows, passed from stage to stage."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.data.loader import PreparedImages
from cryohydra.fields.render import lattice_to_map
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.inference.evidence import log_class_posterior
from cryohydra.inference.images import WeightedImages, weigh_images
from cryohydra.inference.junk import junk_log_odds
from cryohydra.inference.partition import is_held_out
from cryohydra.inference.reconstruction import ClassMaps
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.model.conformations import Conformations
from cryohydra.model.mixture import Mixture
from cryohydra.model.tables import ClassScores, PoseTable
from cryohydra.physics.ctf import contrast_transfer
from cryohydra.physics.noise import NoiseSpectrum
from cryohydra.physics.pose import Pose
from cryohydra.training.seeds import Seeds
from cryohydra.training.team import ALONE, Team

SURE = 0.95
"""Mean probability of the images' likeliest classes above which classes count as told."""


class ClassTable(nn.Module):
    """The evidence for each class of each particle, and the classes' shares."""

    log_evidence: Tensor
    """n k, over the likelihood of noise alone"""
    log_pose_volume: Tensor
    """n k: evidence over all poses less the likelihood at the best one; zero where poses are known"""
    log_weight: Tensor
    """k"""

    def __init__(self, num_particles: int, num_classes: int):
        super().__init__()
        self.register_buffer("log_evidence", torch.zeros(num_particles, num_classes))
        self.register_buffer("log_pose_volume", torch.zeros(num_particles, num_classes))
        self.register_buffer("log_weight", torch.full((num_classes,), -math.log(num_classes)))
        self.pseudo_particles: Tensor | float = 1.0
        """Of each class, counted with the particles: what is known of the shares beforehand; some keep it alive."""
        self.may_be_noise = True
        """Whether a particle may be noise alone; else every one counts in full, however little maps explain of it."""

    def log_posterior(self, index: Int[Tensor, "b"] | slice = slice(None)) -> Float[Tensor, "b k"]:
        """Log probability of each class, eq. 3."""
        return log_class_posterior(self.log_weight, self.log_evidence[index])

    def probability_of_likeliest(self) -> Float[Tensor, "n"]:
        """Probability of each particle's likeliest class."""
        return self.log_posterior().amax(1).exp()

    def log_probability(self, index: Int[Tensor, "b"] | slice = slice(None)) -> Float[Tensor, "b"]:
        """Of each particle over that of noise alone, all classes together."""
        return torch.logsumexp(self.log_weight + self.log_evidence[index], dim=1)

    def log_odds_of_noise(self) -> Float[Tensor, ""]:
        """Of a particle to be noise alone, as far as its own evidence is not known.

        Minus infinity if none may be, or if half of all seem to be: then maps show too little to tell.
        """
        log_odds = junk_log_odds(self.log_probability())
        return torch.where((log_odds < 0) & self.may_be_noise, log_odds, -torch.inf)

    def is_noise(self) -> Bool[Tensor, "n"]:
        """Whether each particle is rather noise alone than of any class."""
        return self.log_probability() < self.log_odds_of_noise()

    def keep_classes(self, kept: Int[Tensor, "m"]) -> None:
        """Forget all other classes; those kept share the particles between them."""
        self.log_evidence, self.log_pose_volume = self.log_evidence[:, kept], self.log_pose_volume[:, kept]
        self.log_weight = torch.log_softmax(self.log_weight[kept], dim=0)

    def update_weights(self, index: Int[Tensor, "b"] | slice = slice(None)) -> None:
        """Shares from the posterior of particles, of all or of some that speak for all, and of pseudo-particles."""
        total = self.log_posterior(index).exp().sum(0) + self.pseudo_particles
        self.log_weight.copy_((total / total.sum()).log())


@dataclass
class TrainingState:
    """What stages read and change."""

    images: PreparedImages
    noise: NoiseSpectrum
    mixture: Mixture
    poses: PoseTable
    conformations: Conformations
    classes: ClassTable
    scores: ClassScores
    maps: ClassMaps | None
    """The rigid maps of ab initio and search; None before them, or where the fields say all."""
    fields_are_fitted: bool
    """Whether the fields know what the maps do."""
    known_shift_px: Float[Tensor, "n 2"]
    """Shifts given beforehand, zero where they are searched."""
    shift_prior: ShiftPrior
    """Of what those leave."""
    generator: torch.Generator
    """On the CPU."""
    device: torch.device
    images_seen: int = 0
    epoch: int = -1
    finds_conformations: bool = True
    """Whether there are conformations, in a table, of which nothing is known beforehand."""
    seeds: Seeds | None = None
    """What some classes start from; None if nothing is known of any."""
    teaches: bool = True
    """Whether maps and fields learn of the particles, or are given and only looked at."""
    field_radius: int | None = None
    """Highest frequency that the fields have learned, in Fourier pixels; None for all that is compared."""
    team: Team = ALONE
    """Processes that hold the same state, and share the work on images."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.mixture.num_classes

    @property
    def stays(self) -> Bool[Tensor, "k"] | None:
        """Whether a class is never given up, since it was asked for; None if all may be."""
        return None if self.seeds is None else self.seeds.is_seeded

    def keep_classes(self, kept: Int[Tensor, "m"]) -> None:
        """Forget all other classes: their fields, maps and all that is known of particles in them."""
        parts = (self.mixture, self.poses, self.conformations, self.classes, self.scores)
        for part in parts:
            part.keep_classes(kept)
        # They said where classes begin; that is over.
        self.seeds = None
        if self.maps is not None:
            self.maps = self.maps.keeping(kept)

    def is_held_out(self, index: Int[Tensor, "b"]) -> Bool[Tensor, "b"]:
        """Whether no map learns of particles, so that they can judge maps."""
        return is_held_out(index, len(self)) if self.teaches else torch.ones_like(index, dtype=torch.bool)

    @property
    def drawn_radius(self) -> int:
        """Highest frequency at which the fields mean something: beyond it they only extrapolate."""
        widest = self.images.band.radius
        return widest if self.field_radius is None else min(self.field_radius, widest)

    def band(self, radius: int) -> Band:
        """A band of the images' box, at most the widest that is compared."""
        return Band(self.images.box_size, min(radius, self.images.band.radius), self.device)

    def observed(self, index: Int[Tensor, "b"], band: Band) -> Float[Tensor, "b t p"]:
        """Images in a band."""
        return band.gather(self.images.hartley(index))

    def noise_variance(self, index: Int[Tensor, "b"], band: Band) -> Float[Tensor, "b t p"]:
        """The noise of images in a band."""
        return self.noise.on(band, self.images.optics(index).group)

    def ctf(self, index: Int[Tensor, "b"], band: Band) -> Float[Tensor, "b t p"]:
        """The CTF of images in a band."""
        return contrast_transfer(self.images.optics(index), band.frequencies)

    def weighted(self, index: Int[Tensor, "b"], band: Band) -> WeightedImages:
        """Images with CTF and noise folded in, shifts that are known undone."""
        optics = self.images.optics(index)
        ctf, noise = contrast_transfer(optics, band.frequencies), self.noise.on(band, optics.group)
        images = weigh_images(self.observed(index, band), ctf, noise)
        back = -self.known_shift_px[index].to(self.device)[:, None]
        return WeightedImages(shift_hartley(images.score, band.frequencies, back), images.power, images.constant)

    def poses_in(self, class_index: Int[Tensor, "n"]) -> Pose:
        """The pose of each particle in one class; the class axis has length one."""
        rows = torch.arange(len(class_index), device=class_index.device)
        rotation, shift_px = self.poses.rotation[rows, :, class_index], self.poses.shift_px[rows, :, class_index]
        return Pose(rotation[:, :, None], shift_px[:, :, None])

    def class_map(self, class_index: int) -> Float[Tensor, "d d d"]:
        """The density of a class as known now, at the mean conformation of its particles."""
        if self.fields_are_fitted or self.maps is None:
            return self.mixture.map(class_index, self.mean_conformation(class_index), self.drawn_radius)
        return _density(self.maps, class_index, self.images.box_size)

    def mean_conformation(self, class_index: int) -> Float[Tensor, "z"]:
        """Mean of z over the particles of a class; over all if it has none."""
        posterior = self.classes.log_posterior().exp()[:, class_index]
        mean = self.conformations.all_means(self.images)[:, class_index]
        weight = posterior if float(posterior.sum()) > 0 else torch.ones_like(posterior)
        return (weight[:, None] * mean).sum(0) / weight.sum()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which the state comes back; the fields are saved beside it."""
        return {
            "noise": self.noise.variance,
            "poses": self.poses.state_dict(),
            "conformations": self.conformations.state_dict(),
            "classes": self.classes.state_dict(),
            "scores": self.scores.state_dict(),
            "maps": None if self.maps is None else self.maps.saved(),
            "fields_are_fitted": self.fields_are_fitted,
            "generator": self.generator.get_state(),
            "images_seen": self.images_seen,
            "epoch": self.epoch,
            "field_radius": self.field_radius,
            "mean_square_shift_px": self.shift_prior.mean_square_px,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.noise = NoiseSpectrum(saved["noise"].to(self.device))
        self.poses.load_state_dict(saved["poses"])
        self.conformations.load_state_dict(saved["conformations"])
        self.classes.load_state_dict(saved["classes"])
        self.scores.load_state_dict(saved["scores"])
        if saved["maps"] is not None:
            self.maps = ClassMaps.restored(saved["maps"], self.images.box_size, self.device)
        self.fields_are_fitted = saved["fields_are_fitted"]
        self.generator.set_state(saved["generator"].cpu())
        self.images_seen, self.epoch = saved["images_seen"], saved["epoch"]
        self.field_radius = saved.get("field_radius")
        self.shift_prior = self.shift_prior.learned(saved["mean_square_shift_px"])


def _density(maps: ClassMaps, class_index: int, box_size: int) -> Float[Tensor, "d d d"]:
    """A lattice's density in the pixels of the box."""
    lattice = maps.lattice
    step = lattice.oversampling
    reach = lattice.radius * step
    centre = lattice.size // 2
    kept = slice(centre - reach, centre + reach + 1, step)
    return lattice_to_map(maps.values[class_index][kept, kept, kept], box_size)
