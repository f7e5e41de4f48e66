"""What is known of each particle, a row each; a step touches only the rows of its batch.

Rows are buffers, not parameters: a trainer takes those of a batch, differentiates with respect to
them and hands the change back, so nothing costs more for there being more particles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from cryohydra._typing import Float, Int, Tensor
from cryohydra.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix, rotation_vector_to_matrix
from cryohydra.physics.pose import Pose


class PoseTable(nn.Module):
    """The pose of each particle in each tilt, were it of each class."""

    rotation: Tensor
    """n t k 3 3"""
    shift_px: Tensor
    """n t k 2"""

    def __init__(self, num_particles: int, num_tilts: int, num_classes: int):
        super().__init__()
        identity = torch.eye(3).expand(num_particles, num_tilts, num_classes, 3, 3).contiguous()
        self.register_buffer("rotation", identity)
        self.register_buffer("shift_px", torch.zeros(num_particles, num_tilts, num_classes, 2))

    def pose(self, index: Int[Tensor, "b"]) -> Pose:
        """The poses of some particles."""
        return Pose(self.rotation[index], self.shift_px[index])

    def set(self, index: Int[Tensor, "b"], pose: Pose) -> None:
        """Replace the poses of some particles; one given class stands for all."""
        self.rotation[index] = pose.rotation.detach().expand_as(self.rotation[index])
        self.shift_px[index] = pose.shift_px.detach().expand_as(self.shift_px[index])

    def keep_classes(self, kept: Int[Tensor, "m"]) -> None:
        """Forget the poses in all other classes."""
        self.rotation, self.shift_px = self.rotation[:, :, kept], self.shift_px[:, :, kept]

    def apply_tangent(
        self,
        index: Int[Tensor, "b"],
        rotation_vector: Float[Tensor, "b t k 3"],
        shift_step_px: Float[Tensor, "b t k 2"],
    ) -> None:
        """Move the poses of some particles by steps as `moved` takes them; rotations stay orthonormal."""
        step = moved(self.pose(index), rotation_vector.detach(), shift_step_px.detach())
        exact = quaternion_to_matrix(matrix_to_quaternion(step.rotation))
        self.set(index, Pose(exact, step.shift_px))


def moved(pose: Pose, rotation_vector: Float[Tensor, "b t k 3"], shift_step_px: Float[Tensor, "b t k 2"]) -> Pose:
    """A pose after a small turn of the density's frame and a small shift, differentiable in both.

    R becomes R @ exp(step), the step an axis times an angle in radians.
    """
    return Pose(pose.rotation @ rotation_vector_to_matrix(rotation_vector), pose.shift_px + shift_step_px)


@dataclass(frozen=True)
class Conformation:
    """Where particles are in the latent space of each class."""

    mean: Float[Tensor, "b k z"]
    log_std: Float[Tensor, "b k z"] | None = None
    """Natural logarithm of the posterior's width; None for a point estimate."""

    def detached(self) -> "Conformation":
        """The same, receiving no gradient."""
        return Conformation(self.mean.detach(), None if self.log_std is None else self.log_std.detach())

    def sample(self, draw: Callable[[int, int], Float[Tensor, "b k z"]]) -> Float[Tensor, "b k z"]:
        """A draw from the posterior, differentiable in its mean and width; the mean of a point estimate.

        Args:
            draw: Gives standard normal numbers for each particle, so many rows of so many.
        """
        if self.log_std is None:
            return self.mean
        return self.mean + self.log_std.exp() * draw(*self.mean.shape[1:]).to(self.mean)


class ConformationTable(nn.Module):
    """The conformation of each particle, were it of each class."""

    mean: Tensor
    """n k z"""
    log_std: Tensor
    """n k z; of no rows for point estimates"""

    def __init__(
        self,
        num_particles: int,
        num_classes: int,
        z_dim: int,
        std_init: float,
        generator: torch.Generator,
        is_variational: bool = False,
    ):
        """Draw means from N(0, std_init^2); posteriors start as wide as that, at least a thousandth."""
        super().__init__()
        self.is_variational = is_variational
        shape = (num_particles, num_classes, z_dim)
        self.register_buffer("mean", std_init * torch.randn(shape, generator=generator, device=generator.device))
        rows = num_particles if is_variational else 0
        log_std = torch.full((rows, num_classes, z_dim), math.log(max(std_init, 1e-3)))
        self.register_buffer("log_std", log_std.to(self.mean))

    def conformation(self, index: Int[Tensor, "b"]) -> Conformation:
        """The conformations of some particles."""
        return Conformation(self.mean[index], self.log_std[index] if self.is_variational else None)

    def set(self, index: Int[Tensor, "b"], conformation: Conformation) -> None:
        """Replace the conformations of some particles."""
        self.mean[index] = conformation.mean.detach()
        if self.is_variational:
            assert conformation.log_std is not None, "a variational table needs a width"
            self.log_std[index] = conformation.log_std.detach()

    def keep_classes(self, kept: Int[Tensor, "m"]) -> None:
        """Forget the conformations in all other classes."""
        self.mean, self.log_std = self.mean[:, kept], self.log_std[:, kept]


class ClassScores(nn.Module):
    """A learned preference of each particle for each class: the published alternative to a posterior."""

    scores: Tensor
    """n k"""

    def __init__(self, num_particles: int, num_classes: int):
        super().__init__()
        self.register_buffer("scores", torch.zeros(num_particles, num_classes))

    def rows(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b k"]:
        """The scores of some particles; their softmax is the class weight."""
        return self.scores[index]

    def keep_classes(self, kept: Int[Tensor, "m"]) -> None:
        """Forget all other classes."""
        self.scores = self.scores[:, kept]

    def set(self, index: Int[Tensor, "b"], scores: Float[Tensor, "b k"]) -> None:
        """Replace the scores of some particles."""
        self.scores[index] = scores.detach()


class RowAdam(nn.Module):
    """Adam for a table of which each step sees a few rows; the others keep their values and moments.

    References:
        Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015.
    """

    first: Tensor
    second: Tensor
    num_steps: Tensor

    def __init__(
        self, shape: tuple[int, ...], lr: float, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8
    ):
        """Start without memory.

        Args:
            shape: Of the table; rows are its first axis.
            lr: Size of a row's steps, in the table's unit.
        """
        super().__init__()
        self.lr = lr
        self.betas = betas
        self.epsilon = epsilon
        self.register_buffer("first", torch.zeros(shape))
        self.register_buffer("second", torch.zeros(shape))
        self.register_buffer("num_steps", torch.zeros(shape[0], dtype=torch.long))

    @torch.no_grad()
    def step(self, index: Int[Tensor, "b"], gradient: Float[Tensor, "b *row"]) -> Float[Tensor, "b *row"]:
        """What to add to the rows at `index`, no row twice, to descend along `gradient`."""
        decay_first, decay_second = self.betas
        count = self.num_steps[index] + 1
        first = torch.lerp(gradient, self.first[index], decay_first)
        second = torch.lerp(gradient.square(), self.second[index], decay_second)
        self.num_steps[index], self.first[index], self.second[index] = count, first, second
        count = count.to(gradient).reshape(-1, *[1] * (gradient.ndim - 1))
        unbiased_first = first / (1 - decay_first**count)
        unbiased_second = second / (1 - decay_second**count)
        return -self.lr * unbiased_first / (unbiased_second.sqrt() + self.epsilon)
