"""The space of conformations: components, clusters, lines through it, and its plane."""

import importlib.util
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_MOST_FOR_EXACT_KMEANS = 50_000
_MOST_FOR_UMAP_FIT = 50_000


@dataclass(frozen=True)
class PrincipalComponents:
    """Directions of conformation space in falling order of variance."""

    mean: Float[np.ndarray, "z"]
    axes: Float[np.ndarray, "z z"]
    """Orthonormal rows; the largest entry of each is positive."""
    variance_share: Float[np.ndarray, "z"]
    """Of the whole variance; zeros if there is none."""

    def project(self, conformation: Float[np.ndarray, "n z"]) -> Float[np.ndarray, "n z"]:
        """Coordinates along the components."""
        return (conformation - self.mean) @ self.axes.T

    def axis_name(self, component: int) -> str:
        """What to write along the axis of a component, counted from zero."""
        return f"PC{component + 1} ({100 * self.variance_share[component]:.0f} % of variance)"


def fit_principal_components(conformation: Float[np.ndarray, "n z"]) -> PrincipalComponents:
    """Principal components of at least one particle; there may be fewer particles than dimensions."""
    conformation = conformation.astype(np.float64)
    mean = conformation.mean(axis=0)
    centred = conformation - mean
    variance, columns = np.linalg.eigh(centred.T @ centred / len(conformation))
    variance, axes = np.clip(variance[::-1], 0, None), columns[:, ::-1].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    total = variance.sum()
    return PrincipalComponents(
        mean=mean, axes=axes * np.where(largest < 0, -1, 1), variance_share=variance / total if total > 0 else variance
    )


def traverse_component(
    components: PrincipalComponents, conformation: Float[np.ndarray, "n z"], component: int, num_points: int
) -> Float[np.ndarray, "v z"]:
    """Evenly spaced points along one component through the mean, from the 5th to the 95th percentile."""
    along = components.project(conformation)[:, component]
    start, stop = np.percentile(along, [5, 95])
    return components.mean + np.linspace(start, stop, num_points)[:, None] * components.axes[component]


def percentile_points(conformation: Float[np.ndarray, "n 1"], num_points: int) -> Float[np.ndarray, "v 1"]:
    """Evenly spaced percentiles, 5th to 95th, of a one-dimensional conformation."""
    return np.percentile(conformation[:, 0], np.linspace(5, 95, num_points))[:, None]


def straight_line(
    start: Float[np.ndarray, "z"], stop: Float[np.ndarray, "z"], num_points: int
) -> Float[np.ndarray, "v z"]:
    """Evenly spaced points from one conformation to another, both included."""
    return np.linspace(start, stop, num_points)


def central_particle(conformation: Float[np.ndarray, "n z"]) -> int:
    """Row of the particle nearest to the mean: a conformation that was seen, unlike the mean itself."""
    return int(np.square(conformation - conformation.mean(axis=0)).sum(axis=1).argmin())


@dataclass(frozen=True)
class Clusters:
    """Groups of particles of like conformation; neighbouring numbers are alike."""

    labels: Int[np.ndarray, "n"]
    """Cluster of each particle."""
    centres: Float[np.ndarray, "c z"]
    """Conformation of the particle nearest to each cluster's mean."""
    centre_rows: Int[np.ndarray, "c"]
    """Which particle that is."""


def cluster_conformations(conformation: Float[np.ndarray, "n z"], num_clusters: int, seed: int) -> Clusters:
    """K-means clusters; fewer than asked if there are fewer different conformations."""
    from sklearn.cluster import KMeans, MiniBatchKMeans  # slow to import, and rigid classes have no clusters

    num_different = len(np.unique(conformation, axis=0))
    num_clusters = min(num_clusters, num_different)
    kmeans = (
        KMeans(num_clusters, n_init=4, random_state=seed)
        if len(conformation) <= _MOST_FOR_EXACT_KMEANS
        else MiniBatchKMeans(num_clusters, n_init=3, batch_size=8192, random_state=seed)
    )
    labels = kmeans.fit_predict(conformation)
    distance = np.square(conformation - kmeans.cluster_centers_[labels]).sum(axis=1)
    filled = np.unique(labels)
    rows = np.array([np.flatnonzero(labels == label)[distance[labels == label].argmin()] for label in filled])
    order = _path_order(conformation[rows])
    new_label = np.empty(labels.max() + 1, dtype=np.int64)
    new_label[filled[order]] = np.arange(len(filled))
    return Clusters(labels=new_label[labels], centres=conformation[rows[order]], centre_rows=rows[order])


def has_umap() -> bool:
    """Whether umap-learn, an extra, is installed."""
    return importlib.util.find_spec("umap") is not None


def embed_umap(conformation: Float[np.ndarray, "n z"], seed: int) -> Float[np.ndarray, "n 2"]:
    """The plane in which UMAP lays neighbours side by side.

    Fitted to 50,000 particles at most, picked at random; the others are placed among them.
    """
    import umap  # an extra, and slow to import

    num_particles = len(conformation)
    # Few particles have too few eigenvectors for UMAP's usual start.
    start = "spectral" if num_particles > 50 else "random"
    reducer = umap.UMAP(n_neighbors=min(15, num_particles - 1), random_state=seed, n_jobs=1, init=start)
    if num_particles <= _MOST_FOR_UMAP_FIT:
        return np.asarray(reducer.fit_transform(conformation))
    chosen = np.random.default_rng(seed).permutation(num_particles)[:_MOST_FOR_UMAP_FIT]
    reducer.fit(conformation[chosen])
    return np.asarray(reducer.transform(conformation))


def _path_order(points: Float[np.ndarray, "c z"]) -> Int[np.ndarray, "c"]:
    """An order in which neighbours are close to each other."""
    if len(points) < 3:
        return np.arange(len(points))
    from scipy.cluster.hierarchy import leaves_list, linkage  # slow to import

    return leaves_list(linkage(points, method="average", optimal_ordering=True)).astype(np.int64)
