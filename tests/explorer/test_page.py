"""The explorer in a real browser, as a user goes through it; what was saved is compared with the data."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cryohydra.analysis.run import Run
from cryohydra.cli.explore import build_explorer
from cryohydra.explorer.server import ExplorerServer, serving
from cryohydra.io.mrc import read_map
from cryohydra.io.pickles import read_pickle, write_pickle

from .conftest import KnownRun

playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed; pip install playwright"
)
CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
# Pixels of the plot that are not empty.
PAINTED = """() => { const canvas = document.getElementById("scatter"), context = canvas.getContext("2d");
return new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer).filter(Boolean).length; }"""
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on the path; apt-get install chromium")
    with playwright_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, server: ExplorerServer) -> Iterator[Any]:
    """Opens the explorer; at the end, nothing was complained of and nothing was asked of another machine.

    It asks for the server so that its pages are closed before the server is.
    """
    complaints: list[str] = []
    asked: list[str] = []
    pages = []

    def open_it(server: ExplorerServer, viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Any:
        page = browser.new_page(viewport=viewport, color_scheme=scheme)
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else 0
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]")
        assert page.evaluate(PAINTED) > 100, "the points are there as soon as the page is ready"
        pages.append(page)
        return page

    yield open_it
    for page in pages:
        page.close()
    own = ("http://127.0.0.1:", "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
    # SwiftShader warns of its own slowness when pictures are read back.
    assert [text for text in complaints if "GL Driver Message" not in text] == []


def keep_screenshot(page: Any, name: str, folder: Path) -> None:
    """For people to look at, in the folder that CRYOHYDRA_SCREENSHOTS names."""
    path = Path(os.environ.get("CRYOHYDRA_SCREENSHOTS", folder)) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)


def at(page: Any, across: float, up: float) -> tuple[float, float]:
    """A place in the plot, as fractions of what lies within its frame."""
    box = page.locator("#scatter").bounding_box()
    width, height = box["width"] - 64, box["height"] - 38
    return box["x"] + 56 + across * width, box["y"] + 8 + (1 - up) * height


def drag(page: Any, *places: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *places[0]))
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*at(page, *place), steps=4)
    page.mouse.up()


RIGHT_HALF = [(0.5, 0.001), (0.999, 0.001), (0.999, 0.999), (0.5, 0.999)]


def choose(page: Any, which: str, key: str) -> None:
    page.select_option(f"#{which}", f"s0/{key}")
    page.wait_for_timeout(100)


def num_selected(page: Any) -> int:
    return int(page.evaluate("Number(document.body.dataset.selected)"))


def show_class(page: Any, class_index: int) -> None:
    page.locator("#classes button", has_text=f"class {class_index}").click()
    page.locator("#classes button[aria-pressed=true]", has_text=f"class {class_index}").wait_for()


def wait_for_selection(page: Any, count: int) -> None:
    page.locator(f"body[data-selected='{count}']").wait_for()


def test_from_the_plot_to_a_saved_selection(
    open_page: Any, server: ExplorerServer, known_run: KnownRun, tmp_path: Path
) -> None:
    """Class 1, its right half, and of that the sure ones; saved, and there again when the page is opened anew."""
    latents = known_run.latents
    page = open_page(server)
    show_class(page, 1)
    choose(page, "x", "z_0")
    choose(page, "y", "z_1")
    drag(page, *RIGHT_HALF)
    of_class = latents.best_class == 1
    right = of_class & (latents.conformation[:, 0] > 0)
    wait_for_selection(page, int(right.sum()))

    choose(page, "threshold", "certainty")
    page.fill("#low-value", "0.8")
    page.locator("#low-value").press("Tab")
    page.check("input[name=mode][value=and]", force=True)
    page.click("#apply-threshold")
    sure = right & (latents.class_probability.max(axis=1).astype(np.float32) >= np.float32(0.8))
    assert 0 < sure.sum() < right.sum()
    wait_for_selection(page, int(sure.sum()))
    page.locator("#gallery canvas").first.wait_for()
    keep_screenshot(page, "explorer-1440x900", tmp_path)

    page.fill("#save-name", "right and sure")
    page.click("#save-button")
    page.locator("#saved", has_text="ind.pkl").wait_for()
    saved = known_run.folder.path / "explorer" / "selections" / "right and sure"
    assert read_pickle(saved / "ind.pkl").tolist() == sorted(latents.particle_index[sure])
    assert read_pickle(saved / "ind_inverse.pkl").tolist() == sorted(latents.particle_index[~sure])

    again = open_page(server)
    again.locator("#selections .name", has_text="right and sure").click()
    wait_for_selection(again, int(sure.sum()))
    again.check("input[name=mode][value=not]", force=True)
    again.click("#select-all")
    wait_for_selection(again, 0)
    again.click("#undo")
    wait_for_selection(again, int(sure.sum()))
    again.click("#invert")
    wait_for_selection(again, int((~sure).sum()))


def test_adding_and_taking_away_by_keys(open_page: Any, server: ExplorerServer, known_run: KnownRun) -> None:
    z = known_run.latents.conformation[:, 0]
    page = open_page(server)
    choose(page, "x", "z_0")
    choose(page, "y", "z_1")
    drag(page, *RIGHT_HALF)
    wait_for_selection(page, int((z > 0).sum()))
    page.keyboard.down("Shift")
    drag(page, *[(1 - across, up) for across, up in RIGHT_HALF])
    page.keyboard.up("Shift")
    wait_for_selection(page, len(z))
    page.keyboard.down("Alt")
    drag(page, *RIGHT_HALF)
    page.keyboard.up("Alt")
    wait_for_selection(page, int((z < 0).sum()))


def test_a_click_shows_a_volume_and_a_path_a_film(
    open_page: Any, server: ExplorerServer, known_run: KnownRun, tmp_path: Path
) -> None:
    page = open_page(server)
    show_class(page, 0)
    choose(page, "x", "z_0")
    choose(page, "y", "z_1")
    before = page.locator("#viewer").screenshot()
    page.mouse.click(*at(page, 0.2, 0.5))
    page.wait_for_selector("#viewer[data-drawn='1']")
    first = page.locator("#viewer").screenshot()
    assert first != before
    page.locator("#level").fill("1")
    assert page.locator("#level-value").inner_text() == "1.0 σ"
    assert page.locator("#viewer").screenshot() != first

    page.click("button[data-tool=path]")
    page.mouse.click(*at(page, 0.2, 0.5))
    page.wait_for_selector("#viewer[data-drawn='2']")
    page.mouse.click(*at(page, 0.8, 0.5))
    page.wait_for_selector("#viewer[data-drawn='3']")
    page.fill("#frames", "4")
    page.locator("#frames").press("Tab")
    page.wait_for_selector("#viewer[data-drawn='4']")
    assert page.locator("#frame-value").inner_text().endswith("/ 4")

    page.fill("#volume-name", "opening")
    page.click("#save-volumes")
    page.locator("#volume-said", has_text="Saved in").wait_for()
    folder = known_run.folder.path / "explorer" / "volumes" / "opening"
    z_values = np.loadtxt(folder / "z_values.txt")
    assert np.allclose(np.diff(z_values, n=2, axis=0), 0, atol=1e-5), "a straight way has even steps"
    assert z_values[0, 0] < 0 < z_values[-1, 0]
    run = Run.open(known_run.folder.path, device="cpu")
    for number, z in enumerate(z_values):
        density, pixel_size = read_map(folder / f"vol_{number:03d}.mrc")
        assert np.allclose(density, run.draw(0, z).numpy(), atol=1e-4) and pixel_size == pytest.approx(3.5)

    page.click("#save-movie")
    page.locator("#volume-said", has_text="movies").wait_for()
    (movie,) = (known_run.folder.path / "explorer" / "movies").iterdir()
    assert movie.stem == "opening"
    if movie.suffix == ".gif":
        with Image.open(movie) as opened:
            assert opened.n_frames == 6

    page.click("#clear-path")
    page.select_option("#way", "graph")
    page.mouse.click(*at(page, 0.1, 0.35))
    page.wait_for_selector("#viewer[data-drawn='5']")
    page.mouse.click(*at(page, 0.1, 0.65))
    page.wait_for_selector("#viewer[data-drawn='6']")
    drag(page, (0.05, 0.5), (0.5, 0.4), (0.95, 0.5))
    page.wait_for_selector("#viewer[data-drawn='7']")
    page.locator("#volume-of", has_text="points on the way").wait_for()
    keep_screenshot(page, "explorer-path-1440x900", tmp_path)


def test_epochs_are_compared(open_page: Any, server: ExplorerServer, known_run: KnownRun) -> None:
    page = open_page(server)
    page.select_option("#compare", "s1")
    page.locator("#crosstab button").first.wait_for()
    earlier = Run.open(known_run.folder.path, 3, device="cpu").latents
    order = np.argsort(earlier.particle_index)[np.argsort(np.argsort(known_run.latents.particle_index))]
    both = (known_run.latents.best_class == 0) & (earlier.best_class[order] == 1)
    cell = page.locator("#crosstab tr").nth(1).locator("button").nth(1)
    assert cell.inner_text() == str(both.sum())
    cell.click()
    wait_for_selection(page, int(both.sum()))
    page.select_option("#x", "s1/z_0")
    page.select_option("#origin", "s1")
    page.wait_for_timeout(300)
    assert page.locator("#x").input_value() == "s1/z_0"
    assert num_selected(page) == both.sum(), "a selection stays when another epoch is looked at"


def test_on_a_phone_in_the_dark(open_page: Any, server: ExplorerServer, tmp_path: Path) -> None:
    page = open_page(server, PHONE, "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    keep_screenshot(page, "explorer-390x844", tmp_path)
    page.mouse.click(*at(page, 0.15, 0.5))
    page.wait_for_selector("#viewer[data-drawn]")
    assert page.locator("#viewer").is_visible()
    keep_screenshot(page, "explorer-volume-390x844", tmp_path)
    for panel in ("select", "particles", "plot"):
        page.click(f"nav button[data-panel={panel}]")
        assert page.locator(f"#{panel}").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        keep_screenshot(page, f"explorer-{panel}-390x844", tmp_path)


def test_filter_begins_with_the_particles_of_a_file(open_page: Any, known_run: KnownRun, tmp_path: Path) -> None:
    write_pickle(tmp_path / "mine.pkl", known_run.latents.particle_index[:7])
    explorer = build_explorer(known_run.folder.path, plot_inds=tmp_path / "mine.pkl")
    with serving(ExplorerServer(explorer.routes())) as running:
        page = open_page(running)
        wait_for_selection(page, 7)
        page.close()


def test_what_fails_is_said_on_the_page(browser: Any, server: ExplorerServer) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto(server.address)
    page.wait_for_selector("body[data-ready]")
    page.click("#select-all")
    page.fill("#save-name", "../escape")
    page.click("#save-button")
    page.locator("#alarm", has_text="cannot be a name").wait_for()
    page.close()
