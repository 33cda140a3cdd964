"""Trials of the whole, with seconds from a formula: the chosen set against the best of all sets."""

import itertools
import math

import numpy as np
import pytest

from graphscale.core.trials import Change, Outcome, trials, try_all

LAYERS = range(4)


def choose(cost, changes):
    """The outcome where ``cost`` tells the seconds of a set; and the sets that were tried."""
    tried = []

    def measure(sets):
        tried.append(sets)
        return {name: cost(chosen) for name, chosen in sets.items()}

    return try_all(changes, measure), tried


@pytest.mark.parametrize("seed", range(8))
def test_finds_the_best_of_all_sets_where_changes_do_not_affect_each_other(seed):
    random = np.random.default_rng(seed)
    saved = random.uniform(-2, 2, len(LAYERS))  # in the whole; alone, all of them gain
    changes = {key: Change(seconds=5.0, gain=random.uniform(1.1, 5)) for key in LAYERS}

    def cost(chosen):
        return 20 - sum(saved[key] for key in chosen)

    sets = itertools.chain.from_iterable(
        itertools.combinations(LAYERS, count) for count in range(len(LAYERS) + 1)
    )
    best = min(sets, key=cost)
    outcome, _ = choose(cost, changes)
    assert outcome.before == 20
    if cost(best) < 0.95 * 20:
        # A change joins or leaves only where that saves a hundredth.
        assert cost(outcome.chosen) == outcome.after
        assert outcome.after <= cost(best) + 0.01 * 20 * len(LAYERS)
    else:
        assert outcome == Outcome(frozenset(), 20, 20)


def test_a_change_that_gains_alone_leaves_where_the_whole_loses():
    changes = {"a": Change(2.0, 2.0), "b": Change(4.0, 2.0), "c": Change(0.1, 2.0)}
    outcome, tried = choose(lambda chosen: 10 + (-4 if "a" in chosen else 0) + len(chosen), changes)
    assert outcome == Outcome(frozenset({"a", "c"}), 10, 8)
    # What saves the most alone is tried first; what takes no time of the whole is not tried, and
    # stays with the others.
    changed = [sets["changed"] for sets in tried if "changed" in sets]
    assert changed[0] == {"a", "c"}
    assert len(changed) == 2


def test_less_than_five_percent_is_no_gain():
    outcome, tried = choose(lambda chosen: 100 - 4 * len(chosen), {0: Change(50.0, 9.0)})
    assert outcome == Outcome(frozenset(), 100, 100)
    assert len(tried) == 1


def test_what_must_be_tried_is_in_the_first_sets():
    _, tried = choose(lambda chosen: 1.0, {0: Change(1.0, math.inf), 1: Change(1.0, 1.2)})
    assert tried[0] == {
        "before": frozenset(),
        "gains of 1.0 and more": {0, 1},
        "gains of 1.5 and more": {0},
    }


def test_what_gains_more_than_a_sure_gain_is_in_every_set():
    search = trials({"sure": Change(9.0, 50.0), "a": Change(1.0, 2.0), "b": Change(1.0, 1.2)}, 10)
    sets, seen, outcome = next(search), [], None
    while outcome is None:
        seen.extend(sets.values())
        try:
            sets = search.send({name: 10.0 + len(chosen) for name, chosen in sets.items()})
        except StopIteration as finished:
            outcome = finished.value
    assert all("sure" in chosen for chosen in seen)
    assert outcome == Outcome(frozenset({"sure"}), 11, 11)
