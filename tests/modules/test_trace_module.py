"""A module's graph: names of the state dict, paths of submodules, no weight folded."""

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphscale import GraphScaleError
from graphscale.modules.example import Example
from graphscale.modules.module_path import module_path
from graphscale.modules.trace_module import trace_module


class Parts(nn.Module):
    """Layers in a submodule, a call in the forward itself, one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU())
        self.again = nn.Conv2d(4, 4, 1)
        self.tied = nn.Conv2d(4, 4, 1, bias=False)
        self.tied.weight = self.again.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.tied(self.again(self.body(x))).chunk(2, 1)
        return F.max_pool2d(first + second, 2)


def run(model: ir.Model, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, ir.Model]:
    torch.manual_seed(0)
    module = Parts().eval()
    return module, trace_module(module, Example(torch.zeros(1, 3, 8, 8)))


def test_initializers_are_the_state_dicts_entries(traced: tuple) -> None:
    module, model = traced
    names = {name for name, _ in module.named_parameters()}
    assert set(model.graph.initializers) & set(module.state_dict()) == names
    assert "tied.weight" not in model.graph.initializers  # the first of its two names


def test_nodes_know_the_submodule_that_made_them(traced: tuple) -> None:
    _, model = traced
    paths = [(node.op_type, module_path(node)) for node in model.graph if node.op_type != "Split"]
    assert paths == [
        *(("Conv", "body.0"), ("Relu", "body.1"), ("Conv", "again"), ("Conv", "tied")),
        *(("Add", ""), ("MaxPool", "")),
    ]
    assert module_path(ir.node("Relu", [])) is None


def test_nodes_are_named_after_their_layers(traced: tuple) -> None:
    _, model = traced
    names = {node.op_type: node.name for node in model.graph if node.op_type != "Conv"}
    assert names["Relu"] == "body.1.relu"
    assert names["MaxPool"] == "node_max_pool2d"
    assert [node.name for node in model.graph if node.op_type == "Conv"] == [
        *("body.0", "again", "tied"),
    ]


def test_a_layer_without_a_bias_has_none(traced: tuple) -> None:
    _, model = traced
    first, second, third = (node for node in model.graph if node.op_type == "Conv")
    assert [len(node.inputs) for node in (first, second, third)] == [2, 3, 2]


def test_chunks_are_a_split_and_any_batch_runs(traced: tuple) -> None:
    module, model = traced
    assert sum(node.op_type == "Split" for node in model.graph) == 1
    assert not any("Sequence" in node.op_type for node in model.graph)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(run(model, x), module(x).detach(), rtol=1e-4, atol=1e-5)


def test_both_ways_of_tracing_give_one_graph(traced: tuple) -> None:
    module, model = traced
    slow = trace_module(module, Example(torch.zeros(1, 3, 8, 8)), quick=False)
    assert [node.op_type for node in slow.graph] == [node.op_type for node in model.graph]
    assert set(slow.graph.initializers) >= {"again.weight", "body.0.weight"}
    assert model.meta["source"] == slow.meta["source"] == "Parts"


def test_a_module_that_fixes_its_batch() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 12).relu()

    model = trace_module(Fixed(), Example(torch.zeros(2, 3, 4)))
    assert list(model.graph.inputs[0].shape) == [2, 3, 4]


def test_what_torch_cannot_export_is_an_error() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(GraphScaleError, match="Odd"):
        trace_module(Odd(), Example(torch.zeros(1, 3)))
