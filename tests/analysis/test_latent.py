"""Components, clusters and lines through the space of conformations."""

import numpy as np
import pytest

from cryohydra.analysis.latent import (
    central_particle,
    cluster_conformations,
    fit_principal_components,
    percentile_points,
    straight_line,
    traverse_component,
)


def test_components_find_the_direction_that_was_stretched() -> None:
    generator = np.random.default_rng(0)
    direction = np.array([3.0, 4.0, 0.0]) / 5
    z = generator.normal(size=(2000, 1)) * 4 * direction + 0.1 * generator.normal(size=(2000, 3)) + 7
    components = fit_principal_components(z)
    assert abs(components.axes[0] @ direction) > 0.999
    assert components.variance_share[0] > 0.99
    np.testing.assert_allclose(components.axes @ components.axes.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(components.project(z).mean(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("num_particles", [1, 2, 3])
def test_components_exist_for_fewer_particles_than_dimensions(num_particles: int) -> None:
    z = np.random.default_rng(0).normal(size=(num_particles, 5))
    components = fit_principal_components(z)
    assert np.isfinite(components.axes).all()
    assert (components.variance_share[num_particles:] < 1e-12).all()


def test_traversal_runs_from_the_5th_to_the_95th_percentile_of_its_component_only() -> None:
    z = np.random.default_rng(1).normal(size=(500, 4)) * [3, 2, 1, 0.5]
    components = fit_principal_components(z)
    along = components.project(traverse_component(components, z, 1, 7))
    np.testing.assert_allclose(along[[0, -1], 1], np.percentile(components.project(z)[:, 1], [5, 95]))
    np.testing.assert_allclose(np.delete(along, 1, axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(along[:, 1], n=2), 0, atol=1e-12)


def test_percentile_points_split_the_particles() -> None:
    z = np.random.default_rng(2).exponential(size=(1000, 1))
    points = percentile_points(z, 10)
    np.testing.assert_allclose((z < points[4]).mean(), 0.45, atol=0.01)


def test_a_line_ends_where_it_should() -> None:
    line = straight_line(np.array([0.0, 1.0]), np.array([2.0, 5.0]), 5)
    np.testing.assert_allclose(line, [[0, 1], [0.5, 2], [1, 3], [1.5, 4], [2, 5]])


def test_clusters_find_separate_groups_and_centres_are_particles() -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 50)
    z = np.array([[0, 0], [10, 0], [0, 10.0]])[truth] + 0.1 * generator.normal(size=(150, 2))
    clusters = cluster_conformations(z, 3, seed=0)
    assert all(len(np.unique(clusters.labels[truth == group])) == 1 for group in range(3))
    assert len(np.unique(clusters.labels)) == 3
    np.testing.assert_array_equal(z[clusters.centre_rows], clusters.centres)
    np.testing.assert_array_equal(clusters.labels[clusters.centre_rows], np.arange(3))


def test_clusters_repeat_under_one_seed() -> None:
    z = np.random.default_rng(0).normal(size=(300, 3))
    first, second = (cluster_conformations(z, 8, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("z", [np.zeros((1, 3)), np.zeros((40, 3)), np.arange(4.0).reshape(2, 2)])
def test_there_are_no_more_clusters_than_different_conformations(z: np.ndarray) -> None:
    clusters = cluster_conformations(z, 20, seed=0)
    assert len(clusters.centres) == len(np.unique(z, axis=0))


def test_neighbouring_clusters_have_neighbouring_numbers() -> None:
    z = np.random.default_rng(0).uniform(0, 10, size=(500, 1))
    centres = cluster_conformations(z, 10, seed=0).centres[:, 0]
    assert (np.diff(centres) > 0).all() or (np.diff(centres) < 0).all()


def test_the_central_particle_is_no_outlier() -> None:
    z = np.concatenate([np.full((9, 2), 1.0), [[100.0, 100.0]]])
    assert central_particle(z) != 9


def test_umap_lays_neighbours_side_by_side() -> None:
    pytest.importorskip("umap", reason="umap-learn is an extra")
    from cryohydra.analysis.latent import embed_umap

    truth = np.repeat([0, 1], 40)
    z = 20 * truth[:, None] + np.random.default_rng(0).normal(size=(80, 4))
    plane = embed_umap(z, seed=0)
    inner = np.linalg.norm(plane[truth == 0] - plane[truth == 0].mean(axis=0), axis=1).max()
    assert np.linalg.norm(plane[truth == 1].mean(axis=0) - plane[truth == 0].mean(axis=0)) > inner
