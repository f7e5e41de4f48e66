"""Volumes of a class become points and states; shares count particles by probability."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.analysis import AnalyzeOptions, Run, analyze, class_analysis, drawing, structures
from cryohydra.analysis.landscape import Landscape, find_landscape
from cryohydra.analysis.latent import Clusters
from cryohydra.io.mrc import read_map
from cryohydra.io.pickles import read_pickle
from cryohydra.io.run_folder import RunFolder

from .conftest import MakeRun, particles_of, write_run

SIZE = 24
LABELS = np.repeat([0, 1, 2, 3], [100, 60, 100, 10])


def blob(x: float) -> torch.Tensor:
    """A ball in the middle and a smaller one that goes along x."""
    axis = torch.arange(SIZE) - SIZE // 2
    z, y, across = torch.meshgrid(axis, axis, axis, indexing="ij")
    fixed = torch.exp(-(z**2 + y**2 + across**2) / 18.0)
    return fixed + torch.exp(-((z - 5) ** 2 + y**2 + (across - x) ** 2) / 4.0)


def landscape_of(places: list[float], tells_apart, labels: np.ndarray = LABELS, probability=None) -> Landscape:
    z = np.array(places, dtype=float)[:, None]
    clusters = Clusters(labels, z, np.array([np.flatnonzero(labels == volume)[0] for volume in range(len(places))]))
    probability = np.ones(len(labels)) if probability is None else probability
    return find_landscape([blob(place) for place in places], clusters, probability, tells_apart)


def always(first: np.ndarray, second: np.ndarray) -> bool:
    return True


def never(first: np.ndarray, second: np.ndarray) -> bool:
    return False


def test_volumes_that_images_do_not_tell_apart_are_one_state() -> None:
    found = landscape_of([-4, -3.5, 3.5, 4], never)
    assert found.num_states == 1 and found.share == pytest.approx([1])


def test_like_volumes_make_a_state_and_few_particles_none_of_their_own() -> None:
    """Two volumes on either side; those at 4 are too few to be judged and go with their neighbour at 3.5."""
    asked: list[tuple[int, int]] = []

    def far_apart(first: np.ndarray, second: np.ndarray) -> bool:
        asked.append((len(first), len(second)))
        return abs(LABELS[first].mean() - LABELS[second].mean()) > 1.4

    found = landscape_of([-4, -3.5, 3.5, 4], far_apart)
    assert found.num_states == 2
    state = found.state_of_volume
    assert state[0] == state[1] != state[2] == state[3]
    assert sorted(found.share) == pytest.approx([110 / 270, 160 / 270])
    assert np.array_equal(found.state_of_particle, state[LABELS])
    assert asked[0] == (110, 160)


def test_shares_count_by_probability_and_sum_to_one() -> None:
    probability = np.where(LABELS == 0, 0.5, 1.0)
    found = landscape_of([-4, -3.5, 3.5, 4], never, probability=probability)
    assert found.volume_share == pytest.approx(np.array([50, 60, 100, 10]) / 220)


def test_the_first_component_follows_a_motion_and_orders_the_states() -> None:
    places = list(np.linspace(-2, 2, 8))
    labels = np.repeat(np.arange(8), 60)
    found = landscape_of(places, always, labels)
    assert found.variance_share[0] > 0.8 and (np.diff(found.variance_share) <= 1e-9).all()
    assert abs(np.corrcoef(found.plane[:, 0], places)[0, 1]) > 0.95
    assert found.num_states == 8 and (np.diff(found.plane[np.argsort(found.state_of_volume), 0]) > 0).all()
    assert found.plane.shape == (8, 5)


def test_volumes_that_do_not_differ_lie_in_one_point() -> None:
    found = landscape_of([1, 1, 1, 1], never)
    assert np.isfinite(found.plane).all() and np.abs(found.plane).max() < 1e-3


@pytest.fixture(scope="module")
def two_states(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A class whose first blob is at either of two places, and a class in which it is told nowhere; analysed."""
    folder = write_run(tmp_path_factory.mktemp("states") / "run", [200, 200], 1, two_states_of=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_DOTS_PER_INCH", 60)
        patch.setattr(structures, "_FILM_SIZE", 32)
        for module in (drawing, class_analysis):
            patch.setattr(module, "figure_to_png", lambda figure: b"")
        options = AnalyzeOptions(ksample=6, n_per_pc=2, skip_umap=True)
        heard: list[str] = []
        analyze(folder.path, options, heard.append, particles_of(folder, noise=2.0))
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_states_are_found_written_and_told(two_states: RunFolder) -> None:
    of_class = two_states.class_analysis_path(3, 0)
    states = rows_of(of_class / "states.csv")
    assert len(states) == 2
    assert sum(float(state["share"]) for state in states) == pytest.approx(1, abs=1e-3)
    run = Run.open(two_states.path)
    members = run.members(0)
    label = read_pickle(of_class / "states" / "labels.pkl")
    assert (label[run.members(1)] == -1).all()
    is_far = run.latents.conformation[members, 0] > 0
    assert len(set(label[members][is_far])) == 1 and len(set(label[members])) == 2
    for number, state in enumerate(states):
        assert int(state["particles"]) == (label == number).sum()
        density, _ = read_map(of_class / "states" / f"vol_{number:03d}.mrc")
        expected = run.draw(0, np.array([float(state["z1"])]))
        np.testing.assert_allclose(density, expected.numpy(), atol=1e-4)
    volumes = rows_of(of_class / "landscape.csv")
    assert len(volumes) == 6 and {row["state"] for row in volumes} == {"0", "1"}
    page = (two_states.analysis_path(3) / "report.html").read_text()
    assert "Class 0: 2 states, " in page and "Class 1: one state" in page
    assert page.count("<figcaption>Projections of neighbouring states") == 1
    drawn = [(two_states.class_analysis_path(3, k) / "state_differences.png").exists() for k in (0, 1)]
    assert drawn == [True, False]
    assert page.count("Resolution not measured") == 2 and "drgnai prove" in page, (
        "a missing figure is said to be missing"
    )


@pytest.mark.usefixtures("_quick")
def test_without_images_one_state_is_assumed_and_said(make_run: MakeRun) -> None:
    folder = make_run([120], 1)
    page = analyze(folder.path, AnalyzeOptions(ksample=3, n_per_pc=2, skip_umap=True)).read_text()
    assert "Class 0: one state; there are too few images, or none" in page
    assert len(rows_of(folder.class_analysis_path(3, 0) / "states.csv")) == 1


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (drawing, class_analysis):
        monkeypatch.setattr(module, "figure_to_png", lambda figure: b"")
    monkeypatch.setattr(structures, "_FILM_SIZE", 32)
