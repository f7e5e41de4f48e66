"""A trained mixture on disk: tensors and plain containers, loadable without running code."""

import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from cryohydra._typing import Tensor
from cryohydra.errors import UnreadableFile, UserError
from cryohydra.fields import FIELDS
from cryohydra.fields.base import FieldConfig
from cryohydra.io.atomic import write_atomically
from cryohydra.model.mixture import Mixture, build_mixture


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to draw the maps again, and to go on training."""

    epoch: int
    field_name: str
    """As registered in `FIELDS`."""
    field_settings: dict[str, Any]
    """Plain values from which the field's config is made."""
    box_size: int
    pixel_size_angstrom: float
    z_dim: int
    num_classes: int
    mixture_state: dict[str, Tensor]
    extra: dict[str, Any] = field(default_factory=dict)
    """Tensors and plain containers that the trainer needs to go on."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under a temporary name, then rename it."""
    content = {entry.name: getattr(checkpoint, entry.name) for entry in fields(Checkpoint)}
    _assert_plain(content, "checkpoint")
    with write_atomically(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint, its tensors on `device`.

    Raises:
        UnreadableFile: If it is missing, truncated, or not a checkpoint of this program.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles that torch did not write, refused below
            content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UnreadableFile(f"There is no checkpoint {path}; name a weights.E.pkl of an earlier run.") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise UnreadableFile(
            f"{path} is not a readable checkpoint; it may be truncated, or hold more than tensors and plain "
            "values. Use a weights.E.pkl that this program wrote."
        ) from error
    missing = [entry.name for entry in fields(Checkpoint) if not isinstance(content, dict) or entry.name not in content]
    if missing:
        raise UnreadableFile(
            f"{path} is not a checkpoint of this program: it lacks {', '.join(missing)}. "
            "Checkpoints of other programs cannot be continued; start a new run from their poses instead."
        )
    return Checkpoint(**{entry.name: content[entry.name] for entry in fields(Checkpoint)})


def _assert_plain(value: Any, name: str) -> None:
    """Find what `load_checkpoint` would refuse before it is too late."""
    if isinstance(value, dict):
        for key, item in value.items():
            _assert_plain(item, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _assert_plain(item, f"{name}[{position}]")
    else:
        is_plain = value is None or type(value) in (bool, int, float, str, bytes) or isinstance(value, Tensor)
        assert is_plain, f"{name} is a {type(value)}: convert it to a tensor or a plain value"


def field_config(name: str, settings: dict[str, Any]) -> FieldConfig:
    """The config of a registered field from plain values."""
    return FIELDS[name](**settings)


def mixture_from_checkpoint(checkpoint: Checkpoint) -> Mixture:
    """The mixture as it was saved, on the device of its tensors.

    Raises:
        UserError: If the saved weights do not fit the saved settings.
    """
    mixture = build_mixture(
        field_config(checkpoint.field_name, checkpoint.field_settings),
        num_classes=checkpoint.num_classes,
        box_size=checkpoint.box_size,
        z_dim=checkpoint.z_dim,
        generator=torch.Generator().manual_seed(0),
    )
    try:
        mixture.load_state_dict(checkpoint.mixture_state)
    except RuntimeError as error:
        raise UserError(
            f"The checkpoint's weights do not fit its settings ({checkpoint.num_classes} classes, "
            f"field '{checkpoint.field_name}', box {checkpoint.box_size}); it was edited or written by another version."
        ) from error
    devices = {tensor.device for tensor in checkpoint.mixture_state.values()}
    return mixture.to(devices.pop()) if len(devices) == 1 else mixture
