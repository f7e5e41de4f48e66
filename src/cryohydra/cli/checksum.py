"""`drgnai checksum`: a few numbers by which two runs can be told apart."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryohydra._typing import Tensor
from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import load_checkpoint

DESCRIPTION = """\
Print, for each saved epoch, sums over the weights of the first layers and over what was found for the
particles. Two runs with the same settings, seed and machine print the same; particles that change
places change the sums.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    add_outdir(subparser(subparsers, "checksum", "numbers that tell runs apart", DESCRIPTION))


def run(args: argparse.Namespace) -> int:
    """Print a line per epoch and their total."""
    folder = RunFolder(Path(args.outdir))
    folder.latest_epoch()
    sums = [checksum(folder, epoch) for epoch in folder.epochs()]
    print(f"{'epoch':>5} {'weights':>16} {'conformations':>16} {'poses':>16} {'classes':>16}")
    for entry in sums:
        print(f"{entry.epoch:>5} {_columns(entry)}")
    total = Checksum(
        epoch=sums[-1].epoch,
        weights=sums[-1].weights,
        conformations=sum(entry.conformations for entry in sums),
        poses=sum(entry.poses for entry in sums),
        classes=sum(entry.classes for entry in sums),
    )
    print(f"{'total':>5} {_columns(total)}")
    return 0


@dataclass(frozen=True)
class Checksum:
    """Sums over one epoch; signs alternate from particle to particle, so that their order counts."""

    epoch: int
    weights: float
    """Of the first layer of every field."""
    conformations: float
    poses: float
    """Rotations and shifts."""
    classes: float
    """Class probabilities, weighed by the number of the class, from 1."""


def checksum(folder: RunFolder, epoch: int) -> Checksum:
    """The sums of a saved epoch."""
    checkpoint = load_checkpoint(folder.weights_path(epoch))
    latents = read_latents(folder.latents_path(epoch))
    first = [_first_layer(checkpoint.mixture_state, f"fields.{k}.") for k in range(checkpoint.num_classes)]
    return Checksum(
        epoch=epoch,
        weights=sum(float(layer.double().sum()) for layer in first),
        conformations=_signed_sum(latents.conformation),
        poses=_signed_sum(latents.rotation) + _signed_sum(latents.shift_px),
        classes=_class_sum(latents),
    )


def _first_layer(state: dict[str, Tensor], prefix: str) -> Tensor:
    """The first matrix of weights of a field, or the grid of one that has no layers."""
    tensors = {key: tensor for key, tensor in state.items() if key.startswith(prefix) and tensor.is_floating_point()}
    weights = [tensor for key, tensor in tensors.items() if key.endswith("weight")]
    return weights[0] if weights else max(tensors.values(), key=lambda tensor: tensor.numel())


def _signed_sum(rows: np.ndarray) -> float:
    signs = np.where(np.arange(len(rows)) % 2 == 0, 1.0, -1.0)
    return float((rows.reshape(len(rows), -1).astype(np.float64).sum(axis=1) * signs).sum())


def _class_sum(latents: Latents) -> float:
    return _signed_sum(latents.class_probability * np.arange(1, latents.class_probability.shape[1] + 1))


def _columns(entry: Checksum) -> str:
    return f"{entry.weights:16.8f} {entry.conformations:16.8f} {entry.poses:16.8f} {entry.classes:16.8f}"
