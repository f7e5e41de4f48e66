"""How fast poses are searched, against the number of classes, the box and the band; sliced and exact.

python bench/search.py                                   a table, a minute or two on one core
python bench/search.py --classes 1 4 16 --boxes 128 --bands 16 32 --images 64
python bench/search.py --boxes 128 --bands 32 --exact 2  the defaults at 128 px, with the exact network path
"""

import argparse
import itertools
import time

import torch

from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import image_to_hartley, volume_to_hartley
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.images import WeightedImages, weigh_images
from cryohydra.inference.pose_search import POSE_SEARCHES
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.mixture import build_mixture
from cryohydra.model.slices import FieldSlices
from cryohydra.physics.ctf import contrast_transfer
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.noise import spectrum_of_corners
from cryohydra.physics.simulation import Imaging, simulate_particles
from cryohydra.training.search import plan_search

PUBLIC_SECONDS = 6.2
"""Per image and class: the public Hydra at 128 px with default poses, shifts and levels, on two cores."""
NAMES = ("ribosome", "spliceosome", "tric", "large_subunit")
BOX_ANGSTROM = 450.0
DIFFERENT_IMAGES = 512
"""More of them are these again."""


def main() -> None:
    args = parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    torch.manual_seed(0)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}; images of SNR {args.snr:g}")
    print("  D   K  band  path    images  seconds  images/s  s per image and class  public / this")
    for box_size in args.boxes:
        maps, images, band = simulated(box_size, max(args.bands), max(args.images, args.exact), args.snr, device)
        for radius, num_classes in itertools.product(args.bands, args.classes):
            lattice = Lattice(box_size, radius)
            values = torch.stack([on_lattice(maps[k % len(maps)], lattice) for k in range(num_classes)]).to(device)
            # Classes beyond the structures at hand are noisy copies, not equals.
            values = values + 0.05 * values.std() * torch.randn(values.shape).to(device)
            sliced = LatticeSlices.of_maps(lattice, values, GridSlicers())
            compared = images.at(band.within(radius))
            report(args, "sliced", sliced, compared.rows(slice(args.images)), box_size, radius)
            if args.exact:
                generator = torch.Generator().manual_seed(0)
                mixture = build_mixture(
                    MLPFieldConfig(), num_classes=num_classes, box_size=box_size, z_dim=0, generator=generator
                )
                exact = FieldSlices(mixture.to(device), torch.zeros(num_classes, 0, device=device))
                report(args, "exact", exact, compared.rows(slice(args.exact)), box_size, radius)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 4], metavar="K")
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 128], metavar="D")
    parser.add_argument("--bands", type=int, nargs="+", default=[16, 32], metavar="R", help="in Fourier pixels")
    parser.add_argument("--images", type=int, default=64, metavar="N")
    parser.add_argument("--exact", type=int, default=0, metavar="N", help="images for the exact path; 0 leaves it out")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--cpu", action="store_true", help="even if there is a GPU")
    return parser.parse_args()


def simulated(
    box_size: int, radius: int, num_images: int, snr: float, device: torch.device
) -> tuple[list[torch.Tensor], WeightedImages, Band]:
    """Maps, and images of them as a search sees them."""
    pixel_size = BOX_ANGSTROM / box_size
    classes = [demo_class(name, box_size, pixel_size, num_frames=1) for name in NAMES]
    imaging = Imaging(pixel_size, snr=snr, shift_std_px=2.0)
    num_different = min(num_images, DIFFERENT_IMAGES)
    particles = simulate_particles(classes, imaging, num_different, torch.Generator().manual_seed(0))
    band = Band(box_size, min(radius, box_size // 2 - 1))
    noise = spectrum_of_corners(particles.images.flatten(0, 1), torch.zeros(num_different, dtype=torch.long), 1)
    variance = noise.on(band, torch.zeros(num_different, 1, dtype=torch.long))
    ctf = contrast_transfer(particles.optics, band.frequencies)
    weighted = weigh_images(band.gather(image_to_hartley(particles.images)), ctf, variance)
    weighted = weighted.rows(torch.arange(num_images) % num_different)
    on_device = WeightedImages(*(part.to(device) for part in (weighted.score, weighted.power, weighted.constant)))
    return [cls.middle_map for cls in classes], on_device, Band(box_size, band.radius, device)


def on_lattice(density: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    """Hartley coefficients of a map on a lattice."""
    box_size, finer = density.shape[-1], lattice.oversampling
    margin = (finer - 1) * box_size // 2
    fine = volume_to_hartley(torch.nn.functional.pad(density, (margin,) * 6)) * finer
    first = finer * box_size // 2 - lattice.size // 2
    inner = slice(first, first + lattice.size)
    return fine[inner, inner, inner]


def report(
    args: argparse.Namespace, path: str, slices: SliceSource, images: WeightedImages, box_size: int, radius: int
) -> None:
    """Time a search, once warm, and print a row."""
    plan = plan_search(
        radius,
        base_level=2,
        num_refinements=4,
        box_size=box_size,
        shifts=ShiftPrior.uninformed(20.0 * box_size / 128),
        num_kept=8,
    )
    device = images.constant.device
    band, log_weight = Band(box_size, radius, device), torch.zeros(slices.num_classes, device=device)
    search = POSE_SEARCHES["sliced"](plan)
    if path == "sliced":
        # Grids of slices are made once and kept.
        search.search(slices, images.rows(slice(2)), band, log_weight)
    synchronise(device)
    begun = time.perf_counter()
    search.search(slices, images, band, log_weight)
    synchronise(device)
    seconds = time.perf_counter() - begun
    each = seconds / len(images) / slices.num_classes
    faster = f"{PUBLIC_SECONDS / each:>10.0f}" if box_size == 128 else f"{'-':>10}"
    print(
        f"{box_size:>3} {slices.num_classes:>3}  {radius:>4}  {path:<6} {len(images):>7}  {seconds:>7.2f}"
        f"  {len(images) / seconds:>8.1f}  {each:>21.4f}  {faster}",
        flush=True,
    )


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
