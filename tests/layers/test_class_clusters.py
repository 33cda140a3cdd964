"""Clusters of classes against numpy: their sizes, their order and which classes are together."""

import numpy as np
import pytest
import torch

from graphscale import GraphScaleError
from graphscale.layers.class_clusters import balanced_clusters, frequency_clusters, tree_clusters


def sizes(clusters: torch.Tensor) -> list[int]:
    return np.bincount(clusters.numpy()).tolist()


@pytest.mark.parametrize(("classes", "count"), [(1, 1), (5, 2), (7, 7), (100, 9), (12, 4)])
def test_balanced_clusters_are_neighbours_of_equal_sizes(classes, count):
    clusters = balanced_clusters(classes, count)
    assert clusters.dtype == torch.int64
    assert (np.diff(clusters.numpy()) >= 0).all()
    assert sorted(sizes(clusters)) == sorted(map(len, np.array_split(np.arange(classes), count)))


@pytest.mark.parametrize("equal_mass", [False, True])
def test_more_frequent_classes_are_in_earlier_clusters(equal_mass):
    frequencies = torch.from_numpy(np.random.default_rng(0).integers(1, 100, 300))
    clusters = frequency_clusters(frequencies, 7, equal_mass).numpy()
    for earlier in range(6):
        in_earlier, in_next = (
            frequencies.numpy()[clusters == each] for each in (earlier, earlier + 1)
        )
        assert in_earlier.min() >= in_next.max()


def test_frequency_clusters_have_equal_sizes():
    clusters = frequency_clusters(torch.rand(50), 8)
    assert sorted(sizes(clusters)) == sorted(map(len, np.array_split(np.arange(50), 8)))


def test_clusters_of_equal_mass_have_about_equal_sums_of_frequencies():
    frequencies = np.random.default_rng(0).integers(1, 100, 300)
    clusters = frequency_clusters(torch.from_numpy(frequencies), 7, equal_mass=True)
    sums = np.bincount(clusters.numpy(), frequencies)
    # A class lies in the cluster that holds its middle: half a class at most juts out at each end.
    assert np.abs(sums - frequencies.sum() / 7).max() <= frequencies.max()


def test_a_tree_of_two_clusters_is_cut_at_the_median_of_the_first_principal_component():
    vectors = np.random.default_rng(0).normal(size=(20, 4)) * [1, 5, 1, 1]
    clusters = tree_clusters(torch.from_numpy(vectors), 2).numpy()
    centred = vectors - vectors.mean(0)
    component = centred @ np.linalg.svd(centred)[2][0]
    upper = component > np.median(component)
    assert (clusters == upper).all() or (clusters == ~upper).all()


def test_a_tree_finds_groups_of_similar_vectors():
    group = np.arange(40) % 4
    noise = np.random.default_rng(0).normal(size=(40, 2))
    vectors = np.array([[0, 0], [0, 90], [200, 0], [200, 90]])[group] + noise
    assert tree_clusters(torch.from_numpy(vectors), 4).tolist() == group.tolist()


@pytest.mark.parametrize("count", [1, 3, 8, 50, 100])
def test_clusters_of_a_tree_are_numbered_by_their_first_class_and_of_similar_sizes(count):
    clusters = tree_clusters(torch.randn(100, 5, generator=torch.Generator().manual_seed(0)), count)
    assert list(dict.fromkeys(clusters.tolist())) == list(range(count))
    assert max(sizes(clusters)) <= 2 * min(sizes(clusters)) + 1


@pytest.mark.parametrize("count", [0, -1, 6])
def test_wrong_numbers_of_clusters(count):
    for divide in (
        lambda: balanced_clusters(5, count),
        lambda: frequency_clusters(torch.rand(5), count),
        lambda: tree_clusters(torch.rand(5, 2), count),
    ):
        with pytest.raises(GraphScaleError, match=f"{count} clusters of 5 classes; give between"):
            divide()
