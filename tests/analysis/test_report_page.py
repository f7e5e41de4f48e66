"""The report, opened as a reader opens it: from a file, in a real browser, in windows large and small."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryohydra.analysis import AnalyzeOptions, analyze, classes, drawing, structures

from .conftest import particles_of, write_proof, write_run

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
DESKTOP, PHONE = (1440, 900), (390, 844)
COUNTS = [150, 90, 0]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of two classes that move and one that is empty."""
    folder = write_run(tmp_path_factory.mktemp("report") / "ribosomes", COUNTS, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "_MOST_ALIGNED_CLASSES", 1)
        patch.setattr(drawing, "_DOTS_PER_INCH", 60)
        patch.setattr(structures, "_FILM_SIZE", 32)
        write_proof(folder, [12.5, 17.0])
        return analyze(
            folder.path, AnalyzeOptions(ksample=2, n_per_pc=4, pc=2, skip_umap=True), particles=particles_of(folder)
        )


@dataclass
class Opened:
    """A page and all that went wrong or out in it."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def picture_of(self, class_index: int) -> bytes:
        """What is drawn of a class."""
        script = "k => document.querySelector(`.structure[data-class='${k}'] canvas`).toDataURL()"
        return self.page.evaluate(script, class_index).encode()

    def triangles(self, class_index: int) -> int:
        return int(self.page.get_attribute(f".structure[data-class='{class_index}']", "data-triangles"))

    def set_slider(self, name: str, value: float) -> None:
        script = "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }"
        self.page.locator(f"#{name}").evaluate(script, value)
        self.settle()

    def settle(self) -> None:
        """Let everything be drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 150)))")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, drawing in software."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed; apt-get install chromium")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; pip install playwright"
    )
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def open_page(browser: Any, report: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Opened:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    opened = Opened(context.new_page())
    page = opened.page
    page.on("request", lambda request: opened.requests.append(request.url))
    page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.goto(report.as_uri())
    return opened


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    """The page at its surfaces, which are drawn."""
    opened = open_page(browser, report)
    opened.page.locator("#structures").scroll_into_view_if_needed()
    opened.page.wait_for_selector(".structure[data-class='1'][data-triangles]")
    yield opened
    assert opened.complaints == []
    opened.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_opens_alone_and_fits_the_window(
    browser: Any, report: Path, size: tuple[int, int], scheme: str, screenshots: Path
) -> None:
    opened = open_page(browser, report, size, scheme)
    page = opened.page
    page.wait_for_selector("#scatter[data-points]")
    assert report.stat().st_size < 25_000_000, "it can be sent"
    height = page.evaluate("document.documentElement.scrollHeight")
    for number, top in enumerate(range(0, height, size[1])):
        page.evaluate(f"scrollTo(0, {top})")
        opened.settle()
        page.screenshot(path=screenshots / f"report-{size[0]}x{size[1]}-{scheme}-{number}.png")
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    assert opened.complaints == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness > 600) == (scheme == "light")
    assert page.locator(".structure canvas:visible").count() == len(COUNTS)
    page.context.close()


def test_a_higher_level_shows_less(opened: Opened) -> None:
    first, said = opened.triangles(0), opened.page.inner_text("#level-shown")
    opened.set_slider("level", 900)
    high = opened.triangles(0)
    opened.set_slider("level", 100)
    assert high < first < opened.triangles(0)
    assert float(opened.page.inner_text("#level-shown")) < float(said)


def test_dragging_turns_all_classes_and_reset_turns_them_back(opened: Opened) -> None:
    before = [opened.picture_of(k) for k in (0, 1)]
    box = opened.page.locator(".structure[data-class='0'] canvas").bounding_box()
    centre = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    opened.page.mouse.move(*centre)
    opened.page.mouse.down()
    opened.page.mouse.move(centre[0] + 90, centre[1] + 40, steps=4)
    opened.page.mouse.up()
    opened.settle()
    turned = [opened.picture_of(k) for k in (0, 1)]
    assert turned[0] != before[0] and turned[1] != before[1]
    opened.page.click("#reset")
    opened.settle()
    assert [opened.picture_of(k) for k in (0, 1)] == before


def test_playing_moves_the_classes_that_move(opened: Opened) -> None:
    opened.set_slider("state", 0)
    first = opened.picture_of(0)
    still = opened.picture_of(2)
    opened.page.click("#play")
    opened.page.wait_for_function("document.getElementById('state').value === '3'")
    opened.page.click("#play")
    assert opened.page.inner_text("#play") == "Play"
    opened.set_slider("state", 3)
    assert opened.picture_of(0) != first
    assert opened.picture_of(2) == still  # the empty class has no motion
    opened.page.select_option("#motion", "As it is")
    assert opened.page.is_hidden("#play")


def test_a_class_can_be_made_large(opened: Opened) -> None:
    canvas = opened.page.locator(".structure[data-class='1'] canvas")
    before = canvas.bounding_box()["width"]
    opened.page.click(".structure[data-class='1'] .enlarge")
    assert canvas.bounding_box()["width"] > 2 * before


def test_particles_are_chosen_and_coloured(opened: Opened) -> None:
    page = opened.page

    def num_points() -> int:
        return int(page.get_attribute("#scatter", "data-points"))

    assert num_points() == sum(COUNTS)
    for class_index in (0, 1):
        page.select_option("#plot-class", label=f"class {class_index}")
        assert num_points() == COUNTS[class_index]
    pictures = {page.evaluate("document.getElementById('scatter').toDataURL()")}
    for quantity in ("probability of its class", "defocus (µm)", "tilt (°)", "label"):
        page.select_option("#plot-colour", label=quantity)
        assert quantity.split()[0] in page.inner_text("#key")
        pictures.add(page.evaluate("document.getElementById('scatter').toDataURL()"))
    assert len(pictures) == 5
    page.select_option("#plot-x", label="defocus (µm)")
    assert page.evaluate("document.getElementById('scatter').toDataURL()") not in pictures


def test_pointing_at_a_particle_tells_its_numbers(opened: Opened) -> None:
    page = opened.page
    page.locator("#scatter").scroll_into_view_if_needed()
    box = page.locator("#scatter").bounding_box()
    for x in range(80, int(box["width"]), 12):
        page.mouse.move(box["x"] + x, box["y"] + box["height"] / 2)
        if page.is_visible("#tip"):
            break
    assert "number in the particle file" in page.inner_text("#tip") and "class" in page.inner_text("#tip")


def test_it_says_in_words_what_was_found(opened: Opened) -> None:
    text = opened.page.inner_text("main")
    assert "Class 2 is empty" in text
    assert "240 particles" in text
    assert "Resolution 12.5\u00a0Å (shared poses, not gold standard)" in text
    assert opened.page.locator("#resolution img").count() == 1
    assert opened.page.locator("#examples .examples").count() == 2
    assert opened.page.locator("#training img").count() >= 3


def test_without_webgl_the_pictures_stay(report: Path, browser: Any) -> None:
    blind = browser.browser_type.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-3d-apis"])
    opened = open_page(blind, report)
    opened.page.wait_for_selector("#scatter[data-points]")
    assert opened.page.locator(".structure canvas:visible").count() == 0
    assert opened.page.locator(".structure img:visible").count() == len(COUNTS)
    assert opened.page.is_hidden(".toolbar")
    assert not [said for said in opened.complaints if "rror" in said and "WebGL" not in said]
    blind.close()


def test_a_surface_lies_where_the_density_crosses_the_level(opened: Opened) -> None:
    """A ball that fades linearly: all vertices at one radius, all normals outward, the volume that of a ball."""
    script = """() => {
      const n = 48, volume = new Uint8Array(n ** 3);
      for (let z = 0; z < n; z++) for (let y = 0; y < n; y++) for (let x = 0; x < n; x++)
        volume[x + n * (y + n * z)] = Math.max(0, 250 - 10 * Math.hypot(x - 24, y - 24, z - 24));
      const { positions, normals, triangles } = surfaceOf(volume, n, 100);
      return [[...positions], [...normals], [...triangles]];
    }"""
    positions, normals, triangles = (np.array(part) for part in opened.page.evaluate(script))
    positions, normals, triangles = positions.reshape(-1, 3), normals.reshape(-1, 3), triangles.reshape(-1, 3)
    radius = np.linalg.norm(positions, axis=1)
    np.testing.assert_allclose(radius, 15, atol=0.2)  # bytes are steps of a tenth of a voxel, chords lie inside
    assert ((positions / radius[:, None] * normals).sum(axis=1) > 0.98).all()
    corners = positions[triangles]
    volume = np.linalg.det(corners).sum() / 6  # positive only if all triangles face outward
    assert volume == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.02)
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all(), "the surface is closed"


def test_what_is_seen_is_what_was_computed(report: Path, browser: Any) -> None:
    """The picture that the graphics card draws covers what the picture drawn by Python covers."""
    opened = open_page(browser, report)
    opened.page.locator("#structures").scroll_into_view_if_needed()
    opened.page.wait_for_selector(".structure[data-class='0'][data-triangles]")
    opened.page.select_option("#motion", "As it is")
    opened.settle()
    script = """async () => {
      const figure = document.querySelector(".structure[data-class='0']");
      const covered = async (source) => {
        const canvas = new OffscreenCanvas(128, 128);
        const pen = canvas.getContext("2d");
        pen.drawImage(source, 0, 0, 128, 128);
        return [...pen.getImageData(0, 0, 128, 128).data.filter((_, k) => k % 4 === 3)];
      };
      return [await covered(figure.querySelector("img")), await covered(figure.querySelector("canvas"))];
    }"""
    picture, drawn = (np.array(part) > 128 for part in opened.page.evaluate(script))
    assert 0.01 < picture.mean() < 0.9
    assert (picture & drawn).sum() / (picture | drawn).sum() > 0.93
    opened.page.context.close()
