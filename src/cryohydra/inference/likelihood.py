"""How likely an image is, given a prediction: the noise model, in one place."""

from typing import Protocol, runtime_checkable

from cryohydra._typing import Float, Tensor
from cryohydra.inference.evidence import log_likelihood_over_contrast


@runtime_checkable
class Likelihood(Protocol):
    """The probability of images if a prediction is right."""

    def log_likelihood(
        self,
        predicted: Float[Tensor, "b t p"],
        observed: Float[Tensor, "b t p"],
        noise_variance: Float[Tensor, "b t p"],
    ) -> Float[Tensor, "b"]:
        """Natural logarithm, over that of noise alone."""
        ...


class GaussianLikelihood:
    """Independent normal noise at every frequency, summed over them, the contrast integrated out: eq. 2 at one pose.

    Args:
        temperature: Divides the logarithm; 1 for probabilities that mean something.
    """

    def __init__(self, temperature: float = 1.0):
        self.temperature = temperature

    def log_likelihood(
        self,
        predicted: Float[Tensor, "b t p"],
        observed: Float[Tensor, "b t p"],
        noise_variance: Float[Tensor, "b t p"],
    ) -> Float[Tensor, "b"]:
        """Natural logarithm, over that of noise alone."""
        weighted = predicted / noise_variance
        score, power = (weighted * observed).sum((1, 2)), (weighted * predicted).sum((1, 2))
        return log_likelihood_over_contrast(score, power) / self.temperature


class PixelMeanLikelihood:
    """The published one: mean squared error over the frequencies, divided by 2 std_noise^2."""

    def __init__(self, std_noise: float):
        self.std_noise = std_noise

    def log_likelihood(
        self,
        predicted: Float[Tensor, "b t p"],
        observed: Float[Tensor, "b t p"],
        noise_variance: Float[Tensor, "b t p"],
    ) -> Float[Tensor, "b"]:
        """Natural logarithm, over that of an empty prediction."""
        error = (observed - predicted).square() - observed.square()
        return -error.flatten(1).mean(1) / (2 * self.std_noise**2)
