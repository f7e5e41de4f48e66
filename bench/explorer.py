"""How fast the explorer's page is with a million particles: first draw, lasso, and volumes, in a headless Chromium.

python bench/explorer.py [--particles N] [--repeats R]
"""

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import Page, sync_playwright

from cryohydra.cli.explore import build_explorer
from cryohydra.explorer.server import ExplorerServer, serving
from cryohydra.fields.mlp import MLPField, MLPFieldConfig
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.model.mixture import build_mixture

NUM_CLASSES, Z_DIM, BOX_SIZE = 4, 2, 64
CHROMIUM_FLAGS = ("--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def write_run(path: Path, num_particles: int) -> None:
    """A run that was never trained: random conformations, and networks of the usual size."""
    random = np.random.default_rng(0)
    folder = RunFolder(path)
    folder.results.mkdir(parents=True)
    probability = random.dirichlet(np.full(NUM_CLASSES, 0.1), num_particles)
    conformation = random.normal(size=(num_particles, Z_DIM)) + 3 * probability[:, :Z_DIM]
    nothing = np.zeros((num_particles, 0))
    rotation = np.broadcast_to(np.eye(3), (num_particles, 1, 3, 3))
    latents = Latents(
        rotation=rotation,
        shift_px=np.zeros((num_particles, 1, 2)),
        class_probability=probability,
        conformation=conformation,
        conformation_std=nothing,
        log_evidence=random.normal(size=num_particles),
        particle_index=np.arange(num_particles),
    )
    write_latents(folder.latents_path(0), latents)
    field = MLPFieldConfig()
    generator = torch.Generator().manual_seed(0)
    mixture = build_mixture(field, num_classes=NUM_CLASSES, box_size=BOX_SIZE, z_dim=Z_DIM, generator=generator)
    for one in mixture.fields:
        assert isinstance(one, MLPField)
        # As densities fall off: without it a surface would be one of noise, with far more triangles.
        one.set_radial_amplitude(torch.exp(-0.5 * (torch.arange(BOX_SIZE // 2 + 1) / 6) ** 2))
    save_checkpoint(
        folder.weights_path(0),
        Checkpoint(0, "mlp", field.model_dump(), BOX_SIZE, 3.0, Z_DIM, NUM_CLASSES, mixture.state_dict()),
    )


def seconds_to_first_draw(page: Page, address: str) -> float:
    """From opening the address to the points on the screen, as the page's own clock tells."""
    page.goto(address)
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    return float(page.evaluate("performance.getEntriesByName('first-draw')[0].startTime")) / 1000


def seconds_of_lasso(page: Page) -> tuple[float, int]:
    """From letting go of the mouse to the selection on the screen, and how many it holds."""
    box = page.locator("#scatter").bounding_box()
    assert box is not None
    centre = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(centre[0] + 150, centre[1])
    page.mouse.down()
    for angle in np.linspace(0, 2 * math.pi, 120):
        page.mouse.move(centre[0] + 150 * math.cos(angle), centre[1] + 150 * math.sin(angle))
    begun = time.perf_counter()
    page.mouse.up()
    page.locator("body:not([data-selected='0'])").wait_for()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seconds = time.perf_counter() - begun
    count = int(page.evaluate("Number(document.body.dataset.selected)"))
    page.locator("#select-none").click()
    return seconds, count


def seconds_of_volume(page: Page) -> tuple[float, float, float]:
    """From a click on a particle to its volume on the screen: the first look, and the whole of 64 voxels a side.

    The third is the time of this process, server and all, that it took: what others do on the machine is not in it.
    """
    page.evaluate("document.getElementById('viewer').removeAttribute('data-looked')")
    page.evaluate("document.getElementById('viewer').removeAttribute('data-drawn')")
    begun, busy = time.perf_counter(), time.process_time()
    page.locator("#scatter").click()
    page.wait_for_selector("#viewer[data-looked]", timeout=120_000)
    looked = time.perf_counter() - begun
    page.wait_for_selector("#viewer[data-drawn]", timeout=120_000)
    return looked, time.perf_counter() - begun, time.process_time() - busy


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--screenshot", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_run(Path(folder) / "run", args.particles)
        begun = time.perf_counter()
        explorer = build_explorer(Path(folder) / "run")
        print(f"{args.particles:,} particles; opened by the command in {time.perf_counter() - begun:.1f} s")
        browser = playwright.chromium.launch(executable_path=args.chromium, args=CHROMIUM_FLAGS)
        with serving(ExplorerServer(explorer.routes())) as server:
            print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
            print("[s] first draw | lasso (selected) | volume, first: look, whole | next: look, whole, server's CPU")
            for _ in range(args.repeats):
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                draw = seconds_to_first_draw(page, server.address)
                lasso, count = seconds_of_lasso(page)
                first, then = seconds_of_volume(page), seconds_of_volume(page)
                volumes = f"{first[0]:.2f}, {first[1]:.2f} | {then[0]:.2f}, {then[1]:.2f}, {then[2]:.2f}"
                print(f"{draw:10.2f} | {lasso:5.2f} ({count:,}) | {volumes}", flush=True)
                if args.screenshot:
                    page.screenshot(path=args.screenshot)
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
