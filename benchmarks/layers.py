"""The layers against their best alternatives on a CPU: python benchmarks/layers.py [layer ...]

Layers can be named, such as TemporalConv Maxout; all of them by default, except FFTConv and
HierarchicalSoftmax, which have benchmarks of their own. The alternatives are, in torch, torch's own
layer or the best composition of torch's operators known; in onnxruntime, the same made of ONNX's
operators, and the function body of graphscale's operator. All candidates compute the same numbers,
which is checked.

Candidates take turns in one process, on as many threads as the machine has cores. Medians and
minima replace those of the same layers in results/layers.json; with another number of --threads
nothing is written. A ratio above 1 says how many times faster graphscale is than the fastest
alternative; where other processes disturb the machine, the ratio of the minima is the more reliable
one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from layer_alternatives import CASES
from layer_alternatives.case import Case
from rich.console import Console
from rich.table import Table
from turns import THREADS, record, take_turns

import graphscale

RESULTS = Path(__file__).parent / "results" / "layers.json"
BUDGET = 1.0  # seconds for the turns of a row's candidates
OURS = "graphscale"


@dataclass
class Row:
    """The seconds of all candidates for one layer, size, runtime and kind of pass."""

    layer: str
    sizes: str
    where: str  # torch or onnxruntime
    passes: str  # 'forward', or 'both': forward and backward
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)

    def best(self, of: str = "median") -> str:
        """The fastest alternative."""
        return min((n for n in self.seconds if n != OURS), key=lambda n: self.seconds[n][of])

    def ratio(self, of: str = "median") -> float:
        """How many times faster graphscale is than the fastest alternative."""
        return self.seconds[self.best(of)][of] / self.seconds[OURS][of]


def forward(module: torch.nn.Module, inputs: tuple) -> Callable:
    """A function that runs the forward pass without gradients."""

    def run():
        with torch.no_grad():
            return module(*inputs)

    return run


def both_passes(module: torch.nn.Module, inputs: tuple, grad: torch.Tensor) -> Callable:
    """A function that runs forward and all gradients, to parameters and floating-point inputs."""
    inputs = tuple(
        x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs
    )
    wanted = [*module.parameters(), *(x for x in inputs if x.requires_grad)]

    def run():
        return torch.autograd.grad(module(*inputs), wanted, grad)

    return run


def in_session(model: bytes, inputs: tuple, library: bool) -> Callable:
    """A function that runs the model in onnxruntime, with graphscale's library or without it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    if library:
        options.register_custom_ops_library(graphscale.get_library_path())
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = dict(zip(names, (x.detach().numpy() for x in inputs), strict=True))
    return lambda: session.run(None, feed)


def exported(module: torch.nn.Module, inputs: tuple) -> bytes:
    """The module as an ONNX model with function bodies."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        graphscale.export(module.eval(), inputs, path)
        model = onnx.load(path)
    return model.SerializeToString()


def first_array(result) -> np.ndarray:
    """The first output, of torch or of onnxruntime."""
    first = result[0] if isinstance(result, (tuple, list)) else result
    return first.detach().numpy() if isinstance(first, torch.Tensor) else first


def require_same(case: Case, candidates: dict[str, Callable]) -> None:
    """Fail where a candidate's first output is not graphscale's."""
    wanted = first_array(candidates[OURS]())
    for name, run in candidates.items():
        got = first_array(run()).reshape(wanted.shape)
        np.testing.assert_allclose(
            got, wanted, rtol=1e-3, atol=1e-4, err_msg=f"{case.layer}, {case.sizes}: {name}"
        )


def measure(case: Case) -> list[Row]:
    """The rows of a case: forward in torch, both passes in torch, forward in onnxruntime."""
    torch.manual_seed(0)
    ours, inputs, alternatives = case.make()
    rows = []

    def add(where: str, passes: str, candidates: dict[str, Callable]) -> None:
        times = take_turns(candidates, BUDGET)
        seconds = {name: asdict(each) for name, each in times.items()}
        rows.append(Row(case.layer, case.sizes, where, passes, seconds))

    def arranged(name: str) -> tuple:
        arrange = alternatives[name].arrange
        return inputs if arrange is None else arrange(*inputs)

    candidates = {OURS: forward(ours, inputs)}
    candidates |= {n: forward(o.module, arranged(n)) for n, o in alternatives.items() if o.module}
    if any(o.same for o in alternatives.values()):
        require_same(
            case, {n: run for n, run in candidates.items() if n == OURS or alternatives[n].same}
        )
    add("torch", "forward", candidates)
    if case.gradient:
        candidates = {}
        for name, module, given in [
            (OURS, ours, inputs),
            *(
                (n, o.module, arranged(n))
                for n, o in alternatives.items()
                if o.module and o.gradient
            ),
        ]:
            candidates[name] = both_passes(module, given, torch.ones_like(forward(module, given)()))
        add("torch", "both", candidates)
    if case.onnx:
        model = exported(ours, inputs)
        candidates = {
            OURS: in_session(model, inputs, True),
            "body": in_session(model, inputs, False),
        }
        candidates |= {
            n: in_session(o.onnx, arranged(n), False) for n, o in alternatives.items() if o.onnx
        }
        require_same(
            case,
            {
                n: run
                for n, run in candidates.items()
                if n in (OURS, "body") or alternatives[n].same
            },
        )
        add("onnxruntime", "forward", candidates)
    return rows


def as_point(row: Row) -> dict:
    """The row as it is written to the results."""
    point = {name: value for name, value in asdict(row).items() if name != "layer"}
    ratios = {"ratio": row.ratio(), "ratio of minima": row.ratio("minimum")}
    return {**point, "best": row.best(), **ratios}


def show(console: Console, rows: list[Row]) -> None:
    """Print the rows as a table."""
    table = Table(title="Medians in milliseconds")
    for column in ("layer", "sizes", "where", "passes"):
        table.add_column(column)
    for column in (OURS, "best other", "ratio", "of minima"):
        table.add_column(column, justify="right")
    table.add_column("which")
    for row in rows:
        best = row.best()
        ours, other = (row.seconds[name]["median"] * 1e3 for name in (OURS, best))
        colour = "green" if row.ratio() >= 1 else "yellow" if row.ratio() > 0.95 else "red"
        table.add_row(
            row.layer,
            row.sizes,
            row.where,
            row.passes,
            f"{ours:.3f}",
            f"{other:.3f}",
            f"[{colour}]{row.ratio():.2f}[/]",
            f"{row.ratio('minimum'):.2f}",
            best,
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted({case.layer for case in CASES})
    parser.add_argument("layers", nargs="*", choices=[[], *names], metavar="layer")
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    wanted = arguments.layers or names
    torch.set_num_threads(arguments.threads)
    console = Console(width=None if os.isatty(1) else 170)
    rows = []
    for case in CASES:
        if case.layer in wanted:
            rows += measure(case)
    show(console, rows)
    if arguments.threads != THREADS:
        return
    for layer in wanted:
        record(RESULTS, layer, [as_point(row) for row in rows if row.layer == layer])


if __name__ == "__main__":
    main()
