"""Pictures: readable at every size, in both themes, by every reader."""

import io
import itertools
from collections.abc import Callable

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from cryohydra.analysis.class_plots import (
    LearningCurve,
    plot_learning,
    plot_likeness,
    plot_orientations,
    plot_probabilities,
    plot_shares,
    sphere_density,
)
from cryohydra.analysis.drawing import dot_opacity, dot_size, figure_to_png, set_limits, short_number
from cryohydra.analysis.latent_plots import (
    PlaneNames,
    plot_cloud,
    plot_clusters,
    plot_conformation_by_particle,
    plot_conformation_histogram,
    plot_hexagons,
    plot_marginals,
    plot_traversal,
    plot_values,
)
from cryohydra.analysis.palette import DARK, LIGHT, Theme, class_colours, colour_distance

NAMES = PlaneNames("PC1", "PC2")


def pixels(figure: Figure) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(figure_to_png(figure)))[..., :3]


def points(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2))


def inked(figure: Figure, theme: Theme) -> float:
    """Share of the picture that is not paper."""
    paper = np.array([int(theme.paper[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return float((np.abs(pixels(figure) - paper).max(axis=-1) > 0.05).mean())


@pytest.mark.parametrize("count", [1, 10, 3000, 300_000])
def test_a_cloud_is_seen_and_leaves_paper(count: int) -> None:
    assert 0.005 < inked(plot_cloud(points(count), NAMES), LIGHT) < 0.6


@pytest.mark.parametrize("draw", [plot_hexagons, plot_marginals])
def test_densities_are_seen_in_the_dark(draw: Callable[..., Figure]) -> None:
    assert 0.01 < inked(draw(points(2000), NAMES, DARK), DARK) < 0.7


@pytest.mark.parametrize("count", [12, 60_000])
def test_clusters_show_in_their_own_colours(count: int) -> None:
    xy = points(count)
    labels = (xy[:, 0] > 0).astype(np.int64)
    centres = np.array([[-1.0, 0], [1, 0]])
    image = pixels(plot_clusters(xy, labels, centres, NAMES))
    for colour in class_colours(2):
        wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
        assert (np.abs(image - wanted).max(axis=-1) < 0.15).any()


def test_identical_points_do_not_break_a_plot() -> None:
    same = np.zeros((50, 2))
    for figure in (
        plot_cloud(same, NAMES),
        plot_hexagons(same, NAMES),
        plot_marginals(same, NAMES),
        plot_values(same, same[:, 0], "PC1", NAMES),
        plot_traversal(same, same[:3], NAMES),
        plot_conformation_by_particle(same[:, 0], np.arange(50)),
        plot_conformation_histogram(same[:, 0], same[:3, 0]),
    ):
        assert figure_to_png(figure)


def test_dots_shrink_and_fade_as_they_become_many() -> None:
    for ruler in (dot_size, dot_opacity):
        sizes = [ruler(count) for count in (1, 10, 1000, 100_000, 1_000_000)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] > 0


def test_an_outlier_does_not_squeeze_the_others_and_is_counted() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    set_limits(axes, np.concatenate([points(2000), [[1e6, 0]]]), LIGHT)
    assert axes.get_xlim()[1] < 20
    assert [text.get_text() for text in axes.texts] == ["1 beyond the edge"]
    set_limits(axes, np.array([[0.0, 0], [1e6, 1]]), LIGHT)
    assert axes.get_xlim()[1] > 1e6


@pytest.mark.parametrize(("count", "apart"), [(4, 30.0), (6, 20.0), (10, 17.0), (20, 14.0), (45, 7.0)])
def test_class_colours_are_told_apart_by_every_kind_of_vision(count: int, apart: float) -> None:
    colours = class_colours(count)
    assert len(set(colours)) == count
    assert min(colour_distance(*pair) for pair in itertools.combinations(colours, 2)) > apart


def test_more_classes_keep_the_colours_of_fewer() -> None:
    assert class_colours(30)[:12] == class_colours(12)


@pytest.mark.parametrize("num_classes", [2, 12, 45])
def test_shares_and_probabilities_are_drawn_for_any_number_of_classes(num_classes: int) -> None:
    probability = np.random.default_rng(0).dirichlet(np.ones(num_classes), 200)
    best = probability.argmax(axis=1)
    hard = np.bincount(best, minlength=num_classes) / 200
    assert inked(plot_shares(probability.mean(axis=0), hard), LIGHT) > 0.02
    assert inked(plot_probabilities(probability.max(axis=1), best, num_classes), LIGHT) > 0.02
    assert figure_to_png(plot_likeness(np.full((num_classes, num_classes), np.nan)))


@pytest.mark.parametrize("count", [1, 50, 20_000])
def test_orientations_are_drawn_from_few_to_many(count: int) -> None:
    assert inked(plot_orientations(Rotation.random(count, rng=0).as_matrix()), LIGHT) > 0.2


def test_a_preferred_view_is_the_brightest_spot() -> None:
    """All views along +z: the top of the picture is bright, the bottom dark."""
    image = pixels(plot_orientations(Rotation.from_euler("z", np.arange(1000.0)[:, None], degrees=True).as_matrix()))
    yellow = (image[..., 0] > 0.9) & (image[..., 1] > 0.8) & (image[..., 2] < 0.3)
    rows, columns = np.nonzero(yellow[:, : int(0.75 * yellow.shape[1])])
    assert rows.mean() < 0.4 * len(image)


def test_an_even_spread_of_views_has_density_one_everywhere() -> None:
    direction = Rotation.random(400_000, rng=0).as_matrix()[:, 2]
    density = sphere_density(np.arctan2(direction[:, 1], direction[:, 0]), np.arcsin(direction[:, 2]), num_rows=12)
    np.testing.assert_allclose(density, 1, atol=0.15)


@pytest.mark.parametrize("num_stages", [1, 3, 5])
def test_learning_is_drawn_for_any_number_of_stages(num_stages: int) -> None:
    curves = [LearningCurve(f"stage {i}", np.arange(1.0, 2 + 50 * i), np.ones(1 + 50 * i)) for i in range(num_stages)]
    image = pixels(plot_learning(curves))
    accent = np.array([int(LIGHT.accent[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    assert (np.abs(image - accent).max(axis=-1) < 0.1).sum() > 5


def test_large_counts_become_short_words() -> None:
    assert [short_number(value) for value in (0, 950, 12_000, 3.5e6)] == ["0", "950", "12k", "3.5M"]
