"""Chooses, by trials of the whole model, which convolutions change their algorithm.

In goes the fastest algorithm of each convolution measured alone; out comes the part of these
changes with which the model is the fastest. A layer measured alone does not show what its
neighbours lose when it leaves the runtime's memory layout, nor that the weights of a whole network
do not stay in the caches from run to run.
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

# A convolution's number in the model, and its algorithm: None for onnxruntime's own Conv.
Algorithms = dict[int, str | None]

_MIN_GAINS = (1.0, 1.5, 3.0)  # of the layers alone: the sets of layers that are tried first
_MAX_GROUPS = 8  # of equal layers, then each on its own
_MAX_STEP_RATIO = 0.99  # of the seconds before: a group's change must take less
_MAX_SECONDS = 15.0  # seconds of trying sets
_MAX_STEP_SECONDS = 1.5  # seconds of trying a group
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
        changes: What is the fastest for each convolution alone, where that is not what it has; at
            least one.
        gains: How many times faster each is alone.
        groups: Numbers of equal layers, those first whose changes promise the most.
        rest: Seconds between the runs of two sessions.
        progress: Told after each trial.

    Returns:
        The part, seconds before and after, and the largest difference of an output; nothing where
        the model would not be 5 % faster.

    Raises:
        GraphScaleError: the outputs would change.
    """

    def run_of(session: onnxruntime.InferenceSession) -> Callable[[], object]:
        return lambda: session.run(None, original.feeds)

    def opened(algorithms: Algorithms) -> onnxruntime.InferenceSession:
        return (
            open_model(rewrite_model(model.clone(), algorithms)) if algorithms else original.opened
        )

    sets: dict[str, tuple[Algorithms, onnxruntime.InferenceSession]]
    sets = {_BEFORE: ({}, original.opened)}
    for least in _MIN_GAINS:
        algorithms = {
            index: algorithm for index, algorithm in changes.items() if gains[index] >= least
        }
        if all(algorithms != each for each, _ in sets.values()):
            sets[f"gains of {least} and more"] = algorithms, opened(algorithms)
    seconds = measure_seconds(
        {name: run_of(each) for name, (_, each) in sets.items()}, rest, _MAX_SECONDS
    )
    first = min(seconds, key=seconds.__getitem__)
    seconds = {_BEFORE: seconds[_BEFORE], "after": seconds[first]}
    best, session = sets[first]
    moved = False
    del sets
    progress()
    for group in groups[:_MAX_GROUPS] if len(groups) > 1 else []:
        taken = all(index in best for index in group)
        algorithms = {index: algorithm for index, algorithm in best.items() if index not in group}
        if not taken:
            algorithms |= {index: changes[index] for index in group}
        other = opened(algorithms)
        step = measure_seconds(
            {"kept": run_of(session), "changed": run_of(other)}, rest, _MAX_STEP_SECONDS
        )
        if step["changed"] < _MAX_STEP_RATIO * step["kept"]:
            best, session, moved = algorithms, other, True
        progress()
    if moved:
        both = {_BEFORE: run_of(original.opened), "after": run_of(session)}
        seconds = measure_seconds(both, rest, _MAX_SECONDS)
    if fastest(seconds, _BEFORE) == _BEFORE:
        return {}, seconds[_BEFORE], seconds[_BEFORE], 0.0
    difference = original.difference(session, _MAX_DIFFERENCE)
    return best, seconds[_BEFORE], seconds["after"], difference


def rewrite_model(model: ir.Model, algorithms: Algorithms) -> ir.Model:
    """The model, in place, with algorithms for its convolutions, and the bodies that they need."""
    from graphscale.layers.export import add_function_bodies

    nodes = find_convolutions(model)
    chosen = {nodes[index]: algorithm for index, algorithm in algorithms.items()}
    RewriteConvolutions(chosen)(model)
    add_function_bodies(model)
    return model
