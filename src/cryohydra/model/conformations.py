"""Where conformations come from: a table of them, or a network that reads them off images."""

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from cryohydra._typing import Float, Int, Tensor
from cryohydra.errors import UserError
from cryohydra.fourier.hartley import hartley_to_image
from cryohydra.model.encoder import ConvolutionalEncoder
from cryohydra.model.tables import Conformation, ConformationTable, RowAdam

_CHUNK = 512


@runtime_checkable
class HasImages(Protocol):
    """What an encoder reads."""

    def hartley(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]: ...

    def __len__(self) -> int: ...


class Conformations(nn.Module, ABC):
    """The conformations of all particles, and how they learn.

    A step takes those of a batch with `of`, differentiates a loss and calls `update`.
    """

    @abstractmethod
    def of(self, index: Int[Tensor, "b"], images: HasImages) -> Conformation:
        """Conformations of particles, differentiable."""

    @abstractmethod
    def update(self, teaches: bool = True) -> None:
        """Descend along the gradient that the last `of` received.

        Args:
            teaches: Whether what particles share learns of it too.
        """

    def set_means(self, index: Int[Tensor, "b"], mean: Float[Tensor, "b k z"]) -> None:
        """Replace conformations; only a table can.

        Raises:
            UserError: If they are read off images.
        """
        raise UserError("Conformations that an encoder reads off images cannot be set one by one; use an autodecoder.")

    def keep_classes(self, kept: Int[Tensor, "m"]) -> None:
        """Forget the conformations in all other classes; only a table can.

        Raises:
            UserError: If they are read off images.
        """
        raise UserError("An encoder reads conformations off images for all classes; give n_classes a number.")

    @torch.no_grad()
    def all_means(self, images: HasImages) -> Float[Tensor, "n k z"]:
        """The mean conformation of every particle, were it of each class."""
        return torch.cat([self.of(rows, images).mean for rows in torch.arange(len(images)).split(_CHUNK)])

    @torch.no_grad()
    def all_stds(self, images: HasImages) -> Float[Tensor, "n k std"]:
        """Their widths; no numbers for point estimates."""
        parts = [self.of(rows, images) for rows in torch.arange(len(images)).split(_CHUNK)]
        return torch.cat([c.mean[..., :0] if c.log_std is None else c.log_std.exp() for c in parts])


class TabulatedConformations(Conformations):
    """An autodecoder: every particle's conformation is a row that learns by itself."""

    def __init__(self, table: ConformationTable, lr: float):
        super().__init__()
        self.table = table
        self.mean_steps = RowAdam(tuple(table.mean.shape), lr)
        self.std_steps = RowAdam(tuple(table.log_std.shape), lr)
        self._lent: tuple[Tensor, Conformation] | None = None

    def of(self, index: Int[Tensor, "b"], images: HasImages) -> Conformation:
        """Rows of the table, as leaves that collect a gradient."""
        rows = self.table.conformation(index.to(self.table.mean.device))
        width = None if rows.log_std is None else rows.log_std.detach().requires_grad_(torch.is_grad_enabled())
        lent = Conformation(rows.mean.detach().requires_grad_(torch.is_grad_enabled()), width)
        self._lent = (index.to(self.table.mean.device), lent)
        return lent

    def set_means(self, index: Int[Tensor, "b"], mean: Float[Tensor, "b k z"]) -> None:
        """Replace rows; their widths stay."""
        self.table.set(index, Conformation(mean, self.table.conformation(index).log_std))

    def keep_classes(self, kept: Int[Tensor, "m"]) -> None:
        """Forget rows' other classes, and how their steps went: they learn from here on."""
        self.table.keep_classes(kept)
        device = self.table.mean.device
        self.mean_steps = RowAdam(tuple(self.table.mean.shape), self.mean_steps.lr).to(device)
        self.std_steps = RowAdam(tuple(self.table.log_std.shape), self.std_steps.lr).to(device)

    @torch.no_grad()
    def update(self, teaches: bool = True) -> None:
        """One step of Adam on the rows that the last `of` gave."""
        assert self._lent is not None, "nothing was asked for"
        index, lent = self._lent
        if lent.mean.grad is None:
            return
        mean = lent.mean + self.mean_steps.step(index, lent.mean.grad)
        width = lent.log_std
        if width is not None and width.grad is not None:
            width = width + self.std_steps.step(index, width.grad)
        self.table.set(index, Conformation(mean, width))


class EncodedConformations(Conformations):
    """A network's reading of each image."""

    def __init__(self, encoder: ConvolutionalEncoder, lr: float, weight_decay: float):
        super().__init__()
        self.encoder = encoder
        self.optimiser = torch.optim.Adam(encoder.parameters(), lr=lr, weight_decay=weight_decay)

    def of(self, index: Int[Tensor, "b"], images: HasImages) -> Conformation:
        """What the network says."""
        found: Conformation = self.encoder(hartley_to_image(images.hartley(index)))
        return found

    def update(self, teaches: bool = True) -> None:
        """One step of Adam on the network, which particles share."""
        if teaches:
            self.optimiser.step()
        self.optimiser.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's memory, saved with the weights so that training goes on as if it had not stopped."""
        return self.optimiser.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take it over."""
        self.optimiser.load_state_dict(state)
