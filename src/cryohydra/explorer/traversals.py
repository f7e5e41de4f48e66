"""Ways through the space of conformations, from particle to particle."""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from cryohydra._typing import Float, Int
from cryohydra.errors import UserError

_MOST_IN_GRAPH = 20_000
_FIRST_NEIGHBOURS = 10


def straight_path(anchors: Float[np.ndarray, "a z"], count: int) -> Float[np.ndarray, "v z"]:
    """Points at even distances along straight lines from anchor to anchor, both ends included."""
    steps = np.linalg.norm(np.diff(anchors, axis=0), axis=1)
    length = np.concatenate([[0], np.cumsum(steps)])
    if length[-1] == 0:
        return anchors[:1].copy()
    wanted = np.linspace(0, length[-1], count)
    return np.stack([np.interp(wanted, length, column) for column in anchors.T], axis=1)


def graph_path(
    conformation: Float[np.ndarray, "n z"], anchors: Int[np.ndarray, "a"], generator: np.random.Generator
) -> Int[np.ndarray, "v"]:
    """Particles from anchor to anchor, each a near neighbour of the one before: a way that keeps to the data.

    Distances are squared, so many short steps are preferred to a few long ones. Of more than 20,000 particles
    some are picked at random, besides the anchors.

    Args:
        anchors: Rows of `conformation`.

    Raises:
        UserError: If the anchors lie in islands that no neighbourhood connects.
    """
    from sklearn.neighbors import NearestNeighbors  # slow to import

    rows = np.arange(len(conformation))
    if len(rows) > _MOST_IN_GRAPH:
        picked = generator.choice(len(rows), _MOST_IN_GRAPH, replace=False)
        rows = np.unique(np.concatenate([picked, anchors]))
    points = conformation[rows]
    place = np.searchsorted(rows, anchors)
    neighbours = min(_FIRST_NEIGHBOURS, len(rows) - 1)
    distance, index = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors()
    # Particles of one conformation are neighbours too, at a distance that a sparse matrix does not take for none.
    weight = np.maximum(distance**2, 1e-12).ravel()
    graph = csr_matrix((weight, (np.repeat(np.arange(len(rows)), neighbours), index.ravel())), shape=[len(rows)] * 2)
    way = [int(place[0])]
    for start, stop in zip(place[:-1], place[1:], strict=True):
        _, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
        leg = [int(stop)]
        while leg[-1] != start:
            leg.append(int(before[leg[-1]]))
            if leg[-1] < 0:
                raise UserError(
                    "No chain of neighbours leads from one of the points to the next: they are in separate islands. "
                    "Choose points of one island, or go straight."
                )
        way += leg[-2::-1]
    return rows[way]


def thin(way: Int[np.ndarray, "v"], count: int) -> Int[np.ndarray, "w"]:
    """At most `count` of the particles on a way, evenly, both ends included."""
    if len(way) <= count:
        return way
    return way[np.linspace(0, len(way) - 1, count).round().astype(int)]
