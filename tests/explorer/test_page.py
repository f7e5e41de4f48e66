"""The explorer in a real browser, as a user goes through it; what was saved is compared with the data."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from cryohydra.analysis.movies import movie_suffix
from cryohydra.analysis.run import Run
from cryohydra.cli.explore import build_explorer
from cryohydra.explorer.server import ExplorerServer, serving
from cryohydra.io.mrc import read_map
from cryohydra.io.pickles import read_pickle, write_pickle
from cryohydra.io.run_folder import RunFolder
from cryohydra.io.star import read_star

from .conftest import NUM_USED, KnownRun, make_latents, write_epoch

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
    open_page: Any, server: ExplorerServer, known_run: KnownRun, screenshots: Path
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
    page.screenshot(path=screenshots / "explorer-1440x900.png")

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
    open_page: Any, server: ExplorerServer, known_run: KnownRun, screenshots: Path
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
    sigmas = []
    for number, z in enumerate(z_values):
        density, pixel_size = read_map(folder / f"vol_{number:03d}.mrc")
        sigmas.append(float(density.std()))
        assert np.allclose(density, run.draw(0, z).numpy(), atol=1e-4) and pixel_size == pytest.approx(3.5)
    script = (folder / "volumes.cxc").read_text()
    assert all(f"vol_{number:03d}.mrc" in script for number in range(4))
    # The slider was put to one sigma: that of the first frame, whichever is shown when the volumes are saved.
    level = float(script.split(" level ")[1].split()[0])
    assert level == pytest.approx(sigmas[0], rel=0.01)

    page.click("#save-movie")
    page.locator("#volume-said", has_text="movies").wait_for()
    (movie,) = (known_run.folder.path / "explorer" / "movies").iterdir()
    assert movie.stem == "opening" and movie.suffix == movie_suffix()
    assert num_frames(movie) == 6, "there and back"


def test_a_way_leads_past_particles_or_where_it_is_drawn(
    open_page: Any, server: ExplorerServer, known_run: KnownRun, screenshots: Path
) -> None:
    page = open_page(server)
    show_class(page, 0)
    choose(page, "x", "z_0")
    choose(page, "y", "z_1")
    page.click("button[data-tool=path]")
    # The choice of a way is offered once there is one.
    page.evaluate("document.getElementById('way').value = 'graph'")
    page.mouse.click(*at(page, 0.1, 0.35))
    page.wait_for_selector("#viewer[data-drawn='1']")
    page.mouse.click(*at(page, 0.1, 0.65))
    page.wait_for_selector("#viewer[data-drawn='2']")
    page.fill("#volume-name", "past particles")
    page.click("#save-volumes")
    page.locator("#volume-said", has_text="Saved in").wait_for()
    passed = np.loadtxt(known_run.folder.path / "explorer" / "volumes" / "past particles" / "z_values.txt")
    of_class = known_run.latents.conformation[known_run.latents.best_class == 0]
    away = np.linalg.norm(passed[:, None] - of_class, axis=-1).min(axis=1)
    assert len(passed) > 1 and away.max() < 1e-4, "a way through particles keeps to conformations that were seen"
    drag(page, (0.05, 0.5), (0.5, 0.4), (0.95, 0.5))
    page.wait_for_selector("#viewer[data-drawn='3']")
    page.locator("#volume-of", has_text="points on the way").wait_for()
    page.screenshot(path=screenshots / "explorer-path-1440x900.png")


def num_frames(movie: Path) -> int:
    if movie.suffix == ".gif":
        with Image.open(movie) as opened:
            return int(opened.n_frames)
    # One byte for each frame.
    command = ["ffmpeg", "-loglevel", "error", "-i", str(movie), "-vf", "scale=1:1", "-pix_fmt", "gray"]
    done = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True)
    return len(done.stdout)


def test_the_open_state_of_class_2_is_exported(open_page: Any, starred_run: KnownRun, screenshots: Path) -> None:
    """As someone would who was told nothing: the class, its open end, of that the sure ones, a name, Export."""
    latents = starred_run.latents
    with serving(ExplorerServer(build_explorer(starred_run.folder.path).routes())) as running:
        page = open_page(running)
        show_class(page, 2)
        choose(page, "x", "z_0")
        choose(page, "y", "z_1")
        drag(page, *RIGHT_HALF)
        is_open = (latents.best_class == 2) & (latents.conformation[:, 0] > 0)
        wait_for_selection(page, int(is_open.sum()))
        choose(page, "threshold", "p_2")
        page.fill("#low-value", "0.75")
        page.locator("#low-value").press("Tab")
        page.check("input[name=mode][value=and]", force=True)
        page.click("#apply-threshold")
        chosen = is_open & (latents.class_probability[:, 2].astype(np.float32) >= np.float32(0.75))
        assert 0 < chosen.sum() < is_open.sum()
        wait_for_selection(page, int(chosen.sum()))
        page.fill("#save-name", "open")
        page.click("#export-button")
        page.locator("#saved", has_text="particles.star").wait_for(timeout=60_000)
        page.screenshot(path=screenshots / "explorer-export-1440x900.png")
        page.close()
    folder = starred_run.folder.path / "explorer" / "exports" / "open"
    for name in ("particles.star", "class_2.star"):
        table = read_star(folder / name)["particles"]
        rows = np.array([int(image.split("@")[0]) - 1 for image in table.column("rlnImageName")])
        assert rows.tolist() == np.flatnonzero(chosen).tolist()
        assert set(table.column("rlnClassNumber")) == {"3"}, "RELION counts classes from 1"
        assert table.column("rlnGroupName").tolist() == [f"square {row % 7}" for row in rows]
        angles = [table.floats(f"rlnAngle{axis}") for axis in ("Rot", "Tilt", "Psi")]
        rotation = Rotation.from_euler("ZYZ", np.stack(angles, axis=1), degrees=True).as_matrix().transpose(0, 2, 1)
        assert np.allclose(rotation, latents.rotation[rows, 0], atol=1e-4)
        # Where the particle is, in pixels, against what brings it back, in angstrom.
        assert np.allclose(table.floats("rlnOriginXAngst"), -3.5 * latents.shift_px[rows, 0, 0], atol=1e-3)
    assert read_pickle(folder.parents[1] / "selections" / "open" / "ind.pkl").tolist() == rows.tolist()
    assert {path.name for path in folder.glob("*.star")} == {"particles.star", "class_2.star"}


def test_a_name_in_the_legend_selects_what_it_stands_for(
    open_page: Any, server: ExplorerServer, known_run: KnownRun
) -> None:
    page = open_page(server)
    show_class(page, 1)
    choose(page, "colour", "label")
    page.locator("#legend button", has_text="label 2").click()
    wait_for_selection(
        page, int(((known_run.latents.best_class == 1) & (known_run.latents.particle_index % 3 == 2)).sum())
    )


def test_runs_are_compared(open_page: Any, server: ExplorerServer, known_run: KnownRun, tmp_path: Path) -> None:
    """Another run, of some of the particles in another order, with another class for each."""
    ours = known_run.latents
    other = RunFolder(tmp_path / "again")
    picked = np.random.default_rng(5).permutation(NUM_USED)[: NUM_USED // 2]
    theirs = make_latents(ours.particle_index[picked])
    write_epoch(other, 9, theirs)
    other.train_configs_path.write_text(known_run.folder.train_configs_path.read_text())
    explorer = build_explorer(known_run.folder.path, compare=[other.path])
    with serving(ExplorerServer(explorer.routes())) as running:
        page = open_page(running)
        names = page.locator("#compare option").all_inner_texts()
        assert names == ["nothing", "epoch 5", "epoch 3", "again, epoch 9"]
        page.select_option("#compare", label="again, epoch 9")
        page.locator("#crosstab button").first.wait_for()
        counts = [
            [int(page.locator("#crosstab tr").nth(i + 1).locator("button").nth(j).inner_text()) for j in (0, 1)]
            for i in (0, 1)
        ]
        both = [[(ours.best_class[picked] == i) & (theirs.best_class == j) for j in (0, 1)] for i in (0, 1)]
        assert counts == [[int(one.sum()) for one in line] for line in both]
        page.locator("#crosstab tr").nth(2).locator("button").nth(0).click()
        wait_for_selection(page, int(both[1][0].sum()))
        # What the other run says of them is a quantity like any other.
        page.select_option("#x", label="again, epoch 9: z1")
        assert page.locator("#x").input_value() == "s2/z_0"
        page.fill("#save-name", "moved")
        page.click("#save-button")
        page.locator("#saved", has_text="ind.pkl").wait_for()
        page.close()
    saved = read_pickle(known_run.folder.path / "explorer" / "selections" / "moved" / "ind.pkl")
    assert saved.tolist() == sorted(ours.particle_index[picked[both[1][0]]])
    assert not (other.path / "explorer").exists()


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


def test_on_a_phone_in_the_dark(open_page: Any, server: ExplorerServer, screenshots: Path) -> None:
    page = open_page(server, PHONE, "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.screenshot(path=screenshots / "explorer-390x844.png")
    page.mouse.click(*at(page, 0.15, 0.5))
    page.wait_for_selector("#viewer[data-drawn]")
    assert page.locator("#viewer").is_visible()
    page.screenshot(path=screenshots / "explorer-volume-390x844.png")
    for panel in ("select", "particles", "plot"):
        page.click(f"nav button[data-panel={panel}]")
        assert page.locator(f"#{panel}").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.screenshot(path=screenshots / f"explorer-{panel}-390x844.png")


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
