"""Chooses, by trials of the whole model, which convolutions change their algorithm.

The fastest algorithm of each convolution, measured alone, goes in; the part of these changes with
which the whole model is the fastest (core/trials.py) comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphscale.acceleration.whole_model import Original, open_model
from graphscale.core.fft_conv_definition import FFT_CONV
from graphscale.core.operator_definition import add_bodies
from graphscale.core.trials import Change, Seconds, Sets, try_all
from graphscale.core.tuning import measure as measure_seconds
from graphscale.passes.accelerate.find_convolutions import find_convolutions
from graphscale.passes.accelerate.rewrite_convolutions import RewriteConvolutions

if TYPE_CHECKING:
    import onnxruntime

# The algorithm of each changed convolution, by its number in the model; None is onnxruntime's Conv.
Algorithms = dict[int, str | None]

_MAX_SECONDS = 1.5  # of measuring some sets of changes
_MAX_DIFFERENCE = 1e-4  # relative, of the outputs


def choose_layers(
    model: ir.Model,
    algorithms: Mapping[str, Algorithms],
    changes: Mapping[str, Change],
    original: Original,
    progress: Callable[[], None],
) -> tuple[Algorithms, float, float, float]:
    """The part of `changes` with which the whole model is the fastest.

    Args:
        model: The model before; it is not changed.
        algorithms: By the name of a change, the algorithms that it gives to equal convolutions.
        changes: What each of these changes does alone; at least one.
        original: The opened model with inputs for the trials.
        progress: Called after each trial.

    Returns:
        The chosen algorithms, seconds per run before and after, and the largest relative
        difference of an output. No algorithms, where the model would not be 5 % faster.

    Raises:
        GraphScaleError: the outputs would change.
    """
    sessions: dict[frozenset[str], onnxruntime.InferenceSession] = {frozenset(): original.opened}

    def algorithms_of(chosen: frozenset[str]) -> Algorithms:
        return {index: each for key in chosen for index, each in algorithms[key].items()}

    def measure(sets: Sets) -> Seconds:
        # Of the sets before only the model itself and those that are tried again stay open.
        for chosen in [each for each in sessions if each and each not in sets.values()]:
            del sessions[chosen]
        for chosen in sets.values():
            if chosen not in sessions:
                rewritten = rewrite_model(model.clone(), algorithms_of(chosen))
                sessions[chosen] = open_model(rewritten)
        runs = {name: _run_of(sessions[chosen], original) for name, chosen in sets.items()}
        seconds = measure_seconds(runs, max_seconds=_MAX_SECONDS)
        progress()
        return seconds

    outcome = try_all(changes, measure)
    if not outcome.chosen:
        return {}, outcome.before, outcome.after, 0.0
    difference = original.difference(sessions[outcome.chosen], _MAX_DIFFERENCE)
    return algorithms_of(outcome.chosen), outcome.before, outcome.after, difference


def _run_of(session: onnxruntime.InferenceSession, original: Original) -> Callable[[], object]:
    return lambda: session.run(None, original.feeds)


def rewrite_model(model: ir.Model, algorithms: Algorithms) -> ir.Model:
    """Give convolutions of `model` these algorithms, in place, and add FFTConv's function body."""
    nodes = find_convolutions(model)
    chosen = {nodes[index]: algorithm for index, algorithm in algorithms.items()}
    RewriteConvolutions(chosen)(model)
    add_bodies(model, lambda node: FFT_CONV if node.op_type == FFT_CONV.name else None)
    return model
