"""How fast and how exactly maps are laid on one another.

python bench/alignment.py
python bench/alignment.py --boxes 20 32 48 --noise 0.2 1.0 --trials 3
"""

import argparse
import itertools
import math
import time

import torch

from cryohydra.fourier.alignment import Alignment, align_map, apply_alignment
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.geometry.rotations import geodesic_angle, random_rotations
from cryohydra.physics.demo_structures import demo_class

BOX_ANGSTROM = 450.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", default=["ribosome", "spliceosome", "tric"], metavar="NAME")
    parser.add_argument("--boxes", type=int, nargs="+", default=[20, 32, 48], metavar="D")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.2, 1.0], help="over the map's spread")
    parser.add_argument("--trials", type=int, default=2)
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads; angles modulo the (pseudo-)symmetry of the class, worst of the trials")
    print("  D  class          noise  CPU s  degrees  correlation  mean FSC  wrong hands")
    generator = torch.Generator().manual_seed(0)
    for box_size, name, noise in itertools.product(args.boxes, args.classes, args.noise):
        cls = demo_class(name, box_size, BOX_ANGSTROM / box_size, num_frames=1)
        group = torch.eye(3)[None] if cls.pseudo_symmetry is None else cls.pseudo_symmetry
        rows = [one_trial(cls.middle_map, group, noise, bool(i % 2), generator) for i in range(args.trials)]
        seconds, angle, correlation, fsc, is_wrong = (list(column) for column in zip(*rows, strict=True))
        print(
            f"{box_size:>3}  {name:<13}  {noise:>5.1f}  {sum(seconds) / len(rows):>5.2f}  {max(angle):>7.2f}"
            f"  {min(correlation):>11.4f}  {min(fsc):>8.3f}  {sum(is_wrong):>11}",
            flush=True,
        )


def one_trial(
    density: torch.Tensor, group: torch.Tensor, noise: float, is_mirrored: bool, generator: torch.Generator
) -> tuple[float, float, float, float, bool]:
    """Move a map, add noise, and lay it back."""
    box_size = density.shape[-1]
    shift = torch.randn(3, generator=generator) * box_size / 32
    true = Alignment(random_rotations(1, generator)[0], shift, is_mirrored, 0.0)
    moving = apply_alignment(density, true)
    moving = moving + noise * density.std() * torch.randn(density.shape, generator=generator)
    begun = time.process_time()
    found = align_map(moving, density)
    seconds = time.process_time() - begun
    left = (found.rotation @ true.rotation).expand_as(group)
    angle = math.degrees(float(geodesic_angle(left, group.mT).min()))
    fsc = float(fourier_shell_correlation(apply_alignment(moving, found), density)[1:].mean())
    return seconds, angle, found.correlation, fsc, found.is_mirrored != is_mirrored


if __name__ == "__main__":
    main()
