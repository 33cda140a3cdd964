"""Chooses, by trials of the whole model, which convolutions change their algorithm.

The fastest algorithm of each convolution, measured alone, goes in; the part of these changes with
which the whole model is the fastest comes out. Trials are needed because a layer measured alone
shows neither what its neighbours lose when it leaves the runtime's memory layout, nor that the
weights of a whole network do not stay in the caches from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphscale.acceleration.whole_model import Original, open_model
from graphscale.core.tuning import fastest
from graphscale.core.tuning import measure as measure_seconds
from graphscale.passes.accelerate.find_convolutions import find_convolutions
from graphscale.passes.accelerate.rewrite_convolutions import RewriteConvolutions

if TYPE_CHECKING:
    import onnxruntime

# The algorithm of each changed convolution, by its number in the model; None is onnxruntime's Conv.
Algorithms = dict[int, str | None]

# First the sets of all layers that gain at least this much alone are tried ...
_MIN_GAINS = (1.0, 1.5, 3.0)
_MAX_SECONDS = 15.0  # of measuring them
# ... then single groups of equal layers join or leave the best set, where the model gets faster.
_MAX_GROUPS = 8
_MAX_TIME_RATIO = 0.99  # a group's change must take less than this share of the seconds before
_MAX_GROUP_SECONDS = 1.5  # of measuring a group
_MAX_DIFFERENCE = 1e-4  # relative, of the outputs
_BEFORE = "before"


def choose_layers(
    model: ir.Model,
    changes: Mapping[int, str | None],
    gains: Mapping[int, float],
    groups: Sequence[Sequence[int]],
    original: Original,
    rest: float,
    progress: Callable[[], None],
) -> tuple[Algorithms, float, float, float]:
    """The part of `changes` with which the whole model is the fastest.

    Args:
        model: The model before; it is not changed.
        changes: The fastest algorithm of each convolution alone, where it has another now; at
            least one.
        gains: How many times faster each change makes its convolution alone.
        groups: The numbers of equal layers, group by group; the group whose change saves the most
            time comes first.
        original: The opened model with inputs for the trials.
        rest: Seconds between the turns of two sessions.
        progress: Called after each trial.

    Returns:
        The chosen changes, seconds per run before and after, and the largest relative difference
        of an output. No changes, where the model would not be 5 % faster.

    Raises:
        GraphScaleError: the outputs would change.
    """

    def run_of(session: onnxruntime.InferenceSession) -> Callable[[], object]:
        return lambda: session.run(None, original.feeds)

    def opened(algorithms: Algorithms) -> onnxruntime.InferenceSession:
        return (
            open_model(rewrite_model(model.clone(), algorithms)) if algorithms else original.opened
        )

    # The sets, and the model as it is, take turns.
    sets: dict[str, tuple[Algorithms, onnxruntime.InferenceSession]]
    sets = {_BEFORE: ({}, original.opened)}
    for min_gain in _MIN_GAINS:
        algorithms = {
            index: algorithm for index, algorithm in changes.items() if gains[index] >= min_gain
        }
        if all(algorithms != each for each, _ in sets.values()):
            sets[f"gains of {min_gain} and more"] = algorithms, opened(algorithms)
    seconds = measure_seconds(
        {name: run_of(each) for name, (_, each) in sets.items()}, rest, _MAX_SECONDS
    )
    first = min(seconds, key=seconds.__getitem__)
    seconds = {_BEFORE: seconds[_BEFORE], "after": seconds[first]}
    best, session = sets[first]
    changed = False
    del sets
    progress()
    # A group joins the set, or leaves it where it is part of it, against the best so far.
    for group in groups[:_MAX_GROUPS] if len(groups) > 1 else []:
        taken = all(index in best for index in group)
        algorithms = {index: algorithm for index, algorithm in best.items() if index not in group}
        if not taken:
            algorithms |= {index: changes[index] for index in group}
        other = opened(algorithms)
        step = measure_seconds(
            {"best": run_of(session), "changed": run_of(other)}, rest, _MAX_GROUP_SECONDS
        )
        if step["changed"] < _MAX_TIME_RATIO * step["best"]:
            best, session, changed = algorithms, other, True
        progress()
    if changed:  # the model as it is has had no turn beside this set
        both = {_BEFORE: run_of(original.opened), "after": run_of(session)}
        seconds = measure_seconds(both, rest, _MAX_SECONDS)
    if fastest(seconds, _BEFORE) == _BEFORE:
        return {}, seconds[_BEFORE], seconds[_BEFORE], 0.0
    difference = original.difference(session, _MAX_DIFFERENCE)
    return best, seconds[_BEFORE], seconds["after"], difference


def rewrite_model(model: ir.Model, algorithms: Algorithms) -> ir.Model:
    """Give convolutions of `model` these algorithms, in place, and add FFTConv's function body."""
    from graphscale.layers.export import add_function_bodies

    nodes = find_convolutions(model)
    chosen = {nodes[index]: algorithm for index, algorithm in algorithms.items()}
    RewriteConvolutions(chosen)(model)
    add_function_bodies(model)
    return model
