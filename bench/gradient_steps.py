"""How fast gradient steps are: images per second of a field's slices, forward and back, in a band.

python bench/gradient_steps.py
python bench/gradient_steps.py --boxes 128 --bands 32 63 --classes 1 4 --widths 256
"""

import argparse
import itertools
import resource
import time

import torch

from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import slice_frequencies
from cryohydra.geometry.rotations import random_rotations
from cryohydra.inference.evidence import negative_log_evidence
from cryohydra.inference.likelihood import GaussianLikelihood
from cryohydra.model.mixture import build_mixture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 128], metavar="D")
    parser.add_argument("--bands", type=int, nargs="+", default=[16, 31], metavar="R", help="in Fourier pixels")
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 3], metavar="K", help="evaluated for each image")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256], metavar="W", help="of the hidden layers")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--z-dim", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="even if there is a GPU")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, batches of {args.batch}")
    print("  D  band  points  K  width  s per step  images/s  M points/s  peak GiB")
    for box_size, radius, num_classes, width in itertools.product(args.boxes, args.bands, args.classes, args.widths):
        if radius >= box_size // 2:
            continue
        seconds, num_points = time_steps(box_size, radius, num_classes, width, args, device)
        points_per_second = args.batch * num_classes * num_points / seconds
        print(
            f"{box_size:>3}  {radius:>4}  {num_points:>6} {num_classes:>2}  {width:>5}  {seconds:>10.3f}"
            f"  {args.batch / seconds:>8.1f}  {points_per_second / 1e6:>10.3f}  {peak_gib(device):>8.2f}",
            flush=True,
        )


def time_steps(
    box_size: int, radius: int, num_classes: int, width: int, args: argparse.Namespace, device: torch.device
) -> tuple[float, int]:
    """Seconds of a step, the first left out, and the number of points of an image."""
    generator = torch.Generator().manual_seed(0)
    field = MLPFieldConfig(width=width)
    mixture = build_mixture(
        field, num_classes=num_classes, box_size=box_size, z_dim=args.z_dim, generator=generator
    ).to(device)
    band, likelihood = Band(box_size, radius, device), GaussianLikelihood()
    optimiser = torch.optim.Adam(mixture.parameters(), lr=1e-4)
    observed = torch.randn(args.batch, 1, len(band), generator=generator).to(device)
    rotation = random_rotations(args.batch * num_classes, generator).reshape(args.batch, 1, num_classes, 3, 3)
    rotation = rotation.to(device)
    shift = torch.randn(args.batch, 1, num_classes, 2, generator=generator).to(device).requires_grad_()
    z = torch.randn(args.batch, num_classes, args.z_dim, generator=generator).to(device).requires_grad_()
    log_weight = torch.zeros(num_classes, device=device)

    def step() -> None:
        predicted = mixture(slice_frequencies(band, rotation), z)
        columns = [
            likelihood.log_likelihood(
                shift_hartley(predicted[:, :, k], band.frequencies, shift[:, :, k]), observed, torch.ones_like(observed)
            )
            for k in range(num_classes)
        ]
        optimiser.zero_grad()
        negative_log_evidence(log_weight, torch.stack(columns, dim=1)).mean().backward()
        optimiser.step()

    step()
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(args.steps):
        step()
    synchronise(device)
    return (time.perf_counter() - begun) / args.steps, len(band)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_gib(device: torch.device) -> float:
    """Most memory held so far, by all rows up to this one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
