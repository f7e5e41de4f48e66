"""Images as a search sees them: the CTF folded in, weighed by the noise."""

import math
from dataclasses import dataclass

from cryohydra._typing import Float, Int, Tensor


@dataclass(frozen=True)
class WeightedImages:
    """What equation (1)'s likelihood needs of each image.

    For a prediction a C V the log likelihood is a <score, V> - a^2 <power, V^2> / 2 + constant,
    with the images' own shift undone in the score.
    """

    score: Float[Tensor, "b t p"]
    """CTF times image over noise variance."""
    power: Float[Tensor, "b t p"]
    """CTF squared over noise variance."""
    constant: Float[Tensor, "b"]
    """Log likelihood of the image if it were noise alone."""

    def __len__(self) -> int:
        return len(self.constant)

    def at(self, points: Int[Tensor, "n"]) -> "WeightedImages":
        """The same images compared at some of the frequencies only.

        The constant stays that of all points: it is the same for every pose and class.
        """
        return WeightedImages(self.score[..., points], self.power[..., points], self.constant)

    def rows(self, index: Int[Tensor, "n"] | slice) -> "WeightedImages":
        """Some of the images."""
        return WeightedImages(self.score[index], self.power[index], self.constant[index])


def weigh_images(
    image: Float[Tensor, "b t p"], ctf: Float[Tensor, "b t p"], noise_variance: Float[Tensor, "b t p"]
) -> WeightedImages:
    """Fold CTF and noise into images, all on one band."""
    log_noise = -0.5 * (image.square() / noise_variance + (2 * math.pi * noise_variance).log())
    return WeightedImages(
        score=ctf * image / noise_variance, power=ctf.square() / noise_variance, constant=log_noise.sum((1, 2))
    )
