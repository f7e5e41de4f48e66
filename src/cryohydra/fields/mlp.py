"""The published field: a residual network over random Fourier features."""

import math
from typing import Literal, cast

import torch
from pydantic import Field as Bounded
from torch import nn
from torch.nn import functional

from cryohydra._typing import Float, Tensor
from cryohydra.fields.amplitude import RadialAmplitude
from cryohydra.fields.base import FIELDS, Field, FieldConfig
from cryohydra.fields.encodings import GaussianFourierFeatures, GeometricEncoding, IdentityEncoding


@FIELDS.register("mlp")
class MLPFieldConfig(FieldConfig):
    """Settings of an `MLPField`."""

    layers: int = Bounded(default=3, ge=0)
    """Residual layers between the first and the last."""
    width: int = Bounded(default=256, ge=1)
    """Units per hidden layer."""
    pe_dim: int = Bounded(default=64, ge=1)
    """A third of the number of random points against which frequencies are encoded."""
    feat_sigma: float = Bounded(default=0.5, gt=0)
    """Spread of those points, in quarters of the box: where density is expected."""
    z_encoding: Literal["none", "geom"] = "none"
    """How the network sees a conformation: as it is, or with sines and cosines of it."""

    def build(self, *, box_size: int, z_dim: int, generator: torch.Generator) -> "MLPField":
        """A new network, its weights drawn from `generator`."""
        spread_px = self.feat_sigma * box_size / 4
        return MLPField(
            features=GaussianFourierFeatures(3 * self.pe_dim, spread_px, generator),
            z_encoding=GeometricEncoding(z_dim) if self.z_encoding == "geom" else IdentityEncoding(z_dim),
            layers=self.layers,
            width=self.width,
            box_size=box_size,
            z_dim=z_dim,
            generator=generator,
        )


class MLPField(Field):
    """Coefficients as a residual network's answer to an encoded frequency and a conformation."""

    def __init__(
        self,
        features: GaussianFourierFeatures,
        z_encoding: IdentityEncoding | GeometricEncoding,
        *,
        layers: int,
        width: int,
        box_size: int,
        z_dim: int,
        generator: torch.Generator,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.features = features
        self.z_encoding = z_encoding
        self.radial = RadialAmplitude(box_size)
        num_inputs = features.num_features + z_encoding.num_features
        first = _linear(num_inputs, width, generator)
        # One layer in two parts: what it says of z is computed once for all of a particle's points.
        self.from_frequency = nn.Parameter(first.weight[:, : features.num_features].detach().clone())
        self.from_z = nn.Parameter(first.weight[:, features.num_features :].detach().clone())
        self.bias = nn.Parameter(first.bias.detach().clone())
        self.hidden = nn.ModuleList(_linear(width, width, generator) for _ in range(layers))
        self.last = _linear(width, 1, generator)
        with torch.no_grad():
            self.last.weight.mul_(0.01)
            self.last.bias.zero_()

    @property
    def radial_amplitude(self) -> Float[Tensor, "r"]:
        """The factor on the network's output at 0, 1, ... box_size / 2 Fourier pixels from zero."""
        return self.radial.amplitude

    def set_radial_amplitude(self, amplitude: Float[Tensor, "r"]) -> None:
        """Replace `radial_amplitude`."""
        self.radial.set(amplitude)

    def mirror(self) -> None:
        """Exchange f and -f: every random point goes to the opposite place."""
        self.features.points_px.neg_()

    @torch.no_grad()
    def at(self, frequencies: Float[Tensor, "p 3"], dtype: torch.dtype = torch.float32) -> "MLPFieldAt":
        """The first layer's answer to the frequencies, which no conformation changes, is kept."""
        return MLPFieldAt(self, frequencies, dtype)

    def forward(
        self, frequencies: Float[Tensor, "*batch p 3"], z: Float[Tensor, "*batch z"]
    ) -> Float[Tensor, "*batch p"]:
        """Coefficients at frequencies in cycles per pixel."""
        encoded = self.features(frequencies.reshape(-1, 3))
        offset = functional.linear(self.z_encoding(z), self.from_z, self.bias)
        hidden = functional.linear(encoded, self.from_frequency)
        # Changed in place, no backward pass needs what was there: half the memory traffic.
        hidden.view(-1, frequencies.shape[-2], len(self.bias)).add_(offset.reshape(-1, 1, len(self.bias)))
        hidden = hidden.relu_()
        for layer in self.hidden:
            hidden = layer(hidden).add_(hidden).relu_()
        values = self.last(hidden).reshape(frequencies.shape[:-1])
        return values * self.radial(frequencies)


class MLPFieldAt:
    """An `MLPField` at known frequencies: a third of its work, and all sines and cosines, are done already.

    Keeps a number per frequency and unit of width.
    """

    def __init__(self, field: MLPField, frequencies: Float[Tensor, "p 3"], dtype: torch.dtype):
        self._field, self._dtype = field, dtype
        # Phases in float32: rounded further they would be those of other frequencies.
        self._encoded = functional.linear(field.features(frequencies), field.from_frequency).to(dtype)
        self._radial = field.radial(frequencies)
        # A residual layer is a plain one whose matrix holds the identity: a pass over memory less.
        identity = torch.eye(len(field.bias), dtype=field.bias.dtype, device=field.bias.device)
        layers = cast(list[nn.Linear], list(field.hidden))
        self._residual = [((layer.weight.T + identity).to(dtype), layer.bias.to(dtype)) for layer in layers]
        self._last = field.last.weight.to(dtype), field.last.bias.to(dtype)

    @torch.no_grad()
    def __call__(self, z: Float[Tensor, "z"]) -> Float[Tensor, "p"]:
        """Coefficients of one conformation."""
        field = self._field
        offset = functional.linear(field.z_encoding(z), field.from_z, field.bias)
        hidden = (self._encoded + offset.to(self._dtype)).relu_()
        for matrix, bias in self._residual:
            hidden = torch.addmm(bias, hidden, matrix).relu_()
        return functional.linear(hidden, *self._last).squeeze(-1) * self._radial


def _linear(num_inputs: int, num_outputs: int, generator: torch.Generator) -> nn.Linear:
    """PyTorch's usual layer, drawn from `generator` instead of the global state."""
    layer = nn.utils.skip_init(nn.Linear, num_inputs, num_outputs, device=generator.device)
    bound = 1 / math.sqrt(max(num_inputs, 1))
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    assert isinstance(layer, nn.Linear)
    return layer
