"""Every layer but FFTConv on a CPU beside its best alternatives: python benchmarks/layers.py

Layers can be named (python benchmarks/layers.py TemporalConv Maxout); all of them by default. The
alternatives are torch's own layer or the best compositions of torch operators that we know, and in
onnxruntime the same as ONNX's operators, and our operators' function bodies. All of them compute
the same numbers, which is checked. They take turns in one process, on as many threads as the
machine has cores; medians and minima are written to results/layers.json, in the place of the former
ones of the same layers. With another number of --threads nothing is written. A ratio above 1 says
that ours was that many times faster than the fastest alternative of that row. Where other work
disturbs the machine the ratio of the minima is the better one. HierarchicalSoftmax has a benchmark
of its own.
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
BUDGET = 1.0  # seconds per group of alternatives
OURS = "graphscale"


@dataclass
class Row:
    layer: str
    sizes: str
    where: str  # torch or onnxruntime
    passes: str  # forward, or forward and backward
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)

    def best(self, of: str = "median") -> str:
        return min((n for n in self.seconds if n != OURS), key=lambda n: self.seconds[n][of])

    def ratio(self, of: str = "median") -> float:
        return self.seconds[self.best(of)][of] / self.seconds[OURS][of]


def forward(module: torch.nn.Module, inputs: tuple) -> Callable:
    def run():
        with torch.no_grad():
            return module(*inputs)

    return run


def both_passes(module: torch.nn.Module, inputs: tuple, grad: torch.Tensor) -> Callable:
    """Forward, and the gradients of all parameters and of all floating-point inputs."""
    inputs = tuple(
        x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs
    )
    wanted = [*module.parameters(), *(x for x in inputs if x.requires_grad)]

    def run():
        return torch.autograd.grad(module(*inputs), wanted, grad)

    return run


def in_session(model: bytes, inputs: tuple, library: bool) -> Callable:
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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        graphscale.export(module.eval(), inputs, path)
        model = onnx.load(path)
    return model.SerializeToString()


def first_array(result) -> np.ndarray:
    first = result[0] if isinstance(result, (tuple, list)) else result
    return first.detach().numpy() if isinstance(first, torch.Tensor) else first


def require_same(case: Case, ways: dict[str, Callable]) -> None:
    wanted = first_array(ways[OURS]())
    for name, way in ways.items():
        got = first_array(way()).reshape(wanted.shape)
        np.testing.assert_allclose(
            got, wanted, rtol=1e-3, atol=1e-4, err_msg=f"{case.layer}, {case.sizes}: {name}"
        )


def measure(case: Case) -> list[Row]:
    torch.manual_seed(0)
    ours, inputs, others = case.make()
    rows = []

    def add(where: str, passes: str, ways: dict[str, Callable]) -> None:
        times = take_turns(ways, BUDGET)
        seconds = {name: asdict(each) for name, each in times.items()}
        rows.append(Row(case.layer, case.sizes, where, passes, seconds))

    def prepared(name: str) -> tuple:
        arrange = others[name].arrange
        return inputs if arrange is None else arrange(*inputs)

    ways = {OURS: forward(ours, inputs)}
    ways |= {n: forward(o.module, prepared(n)) for n, o in others.items() if o.module}
    if any(o.same for o in others.values()):
        require_same(case, {n: w for n, w in ways.items() if n == OURS or others[n].same})
    add("torch", "forward", ways)
    if case.gradient:
        ways = {}
        for name, module, given in [
            (OURS, ours, inputs),
            *((n, o.module, prepared(n)) for n, o in others.items() if o.module and o.gradient),
        ]:
            ways[name] = both_passes(module, given, torch.ones_like(forward(module, given)()))
        add("torch", "both", ways)
    if case.onnx:
        model = exported(ours, inputs)
        ways = {OURS: in_session(model, inputs, True), "body": in_session(model, inputs, False)}
        ways |= {n: in_session(o.onnx, prepared(n), False) for n, o in others.items() if o.onnx}
        require_same(case, {n: w for n, w in ways.items() if n in (OURS, "body") or others[n].same})
        add("onnxruntime", "forward", ways)
    return rows


def as_point(row: Row) -> dict:
    point = {name: value for name, value in asdict(row).items() if name != "layer"}
    ratios = {"ratio": row.ratio(), "ratio of minima": row.ratio("minimum")}
    return {**point, "best": row.best(), **ratios}


def show(console: Console, rows: list[Row]) -> None:
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
        return  # only tried out
    for layer in wanted:
        record(RESULTS, layer, [as_point(row) for row in rows if row.layer == layer])


if __name__ == "__main__":
    main()
