"""A torch module is shrunk and grown as its ONNX graph is, and keeps its class and keys."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale
from graphscale.modules.example import Example
from graphscale.modules.why_outputs_differ import why_outputs_differ
from tests.zoo import NETWORKS, build, export, export_module

from .rescaled import assert_close, assert_weights, images, run_onnxruntime, shrink

QUICK = [
    "resnet18",
    "vgg11",
    "googlenet",
    "mobilenet_v2",
    "convnext_tiny",
    "unet_transpose",
]
# As traced, these hold sequences, which only the exporter's optimiser removes.
UNLIKE_FILE = ["shufflenet_v2", "res2net50", "mixnet"]


def train(module: nn.Module, steps: int = 2) -> None:
    """A few steps of gradient descent, in which every trained weight takes part."""
    x = images(module)
    weights = [each for each in module.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = module(x)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        sum(output.square().mean() for output in outputs).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()


def check_grown(grown: nn.Module, target: nn.Module, example: torch.Tensor) -> None:
    """The grown module equals the target in everything but the values of its weights."""
    assert type(grown) is type(target)
    assert repr(grown) == repr(target)
    state = target.state_dict()
    assert {k: v.shape for k, v in grown.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    again = copy.deepcopy(grown).eval()
    again.load_state_dict(state)
    torch.testing.assert_close(again(example), copy.deepcopy(target).eval()(example))


def check_kernels(shrunk: nn.Module, grown: nn.Module) -> None:
    """Kernels equal torch's interpolation times Eq. 5's factor; other weights are copied."""
    resized = {weight.name: weight.kind for weight in shrunk.graphscale_plan.weights}
    large = grown.state_dict()
    for name, small in shrunk.state_dict().items():
        if name not in resized:
            assert torch.equal(small, large[name])
        elif resized[name] == "kernel":
            size = large[name].shape[2:]
            expected = F.interpolate(small.double(), size, mode="bilinear")
            expected *= np.prod(small.shape[2:]) / np.prod(size)
            assert_close(large[name].double(), expected, 1e-5)


def check_network(name: str) -> None:
    target = build(name, 0.25, 10)
    example = torch.randn(1, 3, NETWORKS[name].input_size, NETWORKS[name].input_size)
    shrunk = shrink(target, example)
    assert type(shrunk) is type(target)
    assert list(shrunk.state_dict()) == list(target.state_dict())
    if name not in UNLIKE_FILE:
        file = export(name, width=0.25, num_classes=10, fold=False)
        pretrain = graphscale.shrink(file)
        assert_weights(shrunk, pretrain)
        x = images(shrunk, 3)
        # Both are off by up to 2e-4 from what float64 gives on the deepest.
        outputs = shrunk(x)
        first = outputs[0] if isinstance(outputs, list) else outputs
        assert_close(first, run_onnxruntime(pretrain, x), 1e-3)
        assert_weights(graphscale.grow(shrunk), graphscale.grow(pretrain))
    shrunk.train()
    train(shrunk)
    grown = graphscale.grow(shrunk)
    assert grown.training
    check_grown(grown, target, example)
    check_kernels(shrunk, grown)


@pytest.mark.parametrize("name", QUICK)
def test_like_the_exported_file(name: str) -> None:
    check_network(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in QUICK])
def test_like_the_exported_file_on_the_rest(name: str) -> None:
    check_network(name)


class Network(nn.Module):
    """Frozen, shared and unused weights, a layer in another mode; adapts to any size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, 1, 1)
        self.alias = nn.Conv2d(8, 8, 3, 1, 1)
        self.alias.weight = self.second.weight
        self.drop = nn.Dropout(0.2)
        self.linear = nn.Linear(8 * 8 * 8, 5)
        self.unused = nn.Linear(4, 4)
        self.first.requires_grad_(False)
        self.train()
        self.norm.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.norm(self.first(x)).relu(), 2)
        return self.linear(self.drop(self.alias(self.second(x).relu())).flatten(1))


class Fixed(Network):
    """Has a size of the target written into its forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.norm(self.first(x)).relu(), 2)
        return self.linear(self.drop(self.second(x).relu()).view(-1, 8 * 8 * 8))


EXAMPLE = torch.randn(2, 3, 32, 32)


def shrink_to_import(module: nn.Module) -> nn.Module:
    with pytest.warns(UserWarning, match="graphscale.load"):
        return graphscale.shrink(module, EXAMPLE)


def test_state_of_the_module_is_kept() -> None:
    target = Network()
    before = copy.deepcopy(target.state_dict())
    shrunk = shrink(target, EXAMPLE)
    train(shrunk)
    grown = graphscale.grow(shrunk)
    assert not hasattr(target, "graphscale_plan")
    assert not hasattr(grown, "graphscale_plan")
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[name])
    for module in (shrunk, grown):
        assert module.alias.weight is module.second.weight
        assert [each.training for each in module.modules()] == [
            each.training for each in target.modules()
        ]
        assert [each.requires_grad for each in module.parameters()] == [
            each.requires_grad for each in target.parameters()
        ]
        assert torch.equal(module.unused.weight, target.unused.weight)
    check_grown(grown, target, EXAMPLE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    shrunk = shrink(Network().to(dtype), EXAMPLE.to(dtype))
    grown = graphscale.grow(shrunk)
    for module in (shrunk, grown):
        assert {each.dtype for each in module.parameters()} == {dtype}


@pytest.mark.parametrize("make", [lambda: shrink(Network(), EXAMPLE), lambda: fallback()])
def test_copies_and_files(make) -> None:
    shrunk = make()
    file = io.BytesIO()
    torch.save(shrunk, file)
    file.seek(0)
    for twin in (copy.deepcopy(shrunk), torch.load(file, weights_only=False)):
        torch.testing.assert_close(twin.eval()(images(twin)), shrunk.eval()(images(shrunk)))
        assert twin.graphscale_plan == shrunk.graphscale_plan
        train(twin.train())
        grown = graphscale.grow(twin)
        assert isinstance(grown, Network)
        assert not torch.equal(grown.second.weight, graphscale.grow(shrunk).second.weight)


def fallback() -> nn.Module:
    return shrink_to_import(Fixed())


def test_fallback_is_the_imported_graph() -> None:
    target = Fixed()
    shrunk = shrink_to_import(target)
    weights = {name for name in target.state_dict() if name in shrunk.state_dict()}
    assert weights == set(shrunk.state_dict())
    assert not shrunk.first.weight.requires_grad
    assert shrunk.training
    before = copy.deepcopy(shrunk.second.weight)
    train(shrunk)
    assert not torch.equal(before, shrunk.second.weight)
    shrunk.eval()
    grown = graphscale.grow(shrunk)
    assert not grown.training
    assert not grown.first.weight.requires_grad
    assert torch.equal(grown.unused.weight, target.unused.weight)
    check_grown(grown, target, EXAMPLE)
    check_kernels(shrunk, grown)


def test_wrappers() -> None:
    shrunk = shrink(torch.compile(Network()), EXAMPLE)
    assert type(shrunk) is Network
    grown = graphscale.grow(torch.compile(shrunk)).state_dict()
    averaged = graphscale.grow(torch.optim.swa_utils.AveragedModel(shrunk)).state_dict()
    parallel = graphscale.grow(nn.DataParallel(shrunk)).state_dict()
    for name, tensor in graphscale.grow(shrunk).state_dict().items():
        assert torch.equal(tensor, grown[name])
        assert torch.equal(tensor, averaged[name])
        assert torch.equal(tensor, parallel[name])


def test_plan_or_target_for_a_module_without(tmp_path) -> None:
    target = Network()
    shrunk = shrink(target, EXAMPLE)
    path = tmp_path / "plan.json"
    path.write_text(shrunk.graphscale_plan.to_json())
    wanted = graphscale.grow(shrunk)
    plain = copy.deepcopy(shrunk)
    del plain.graphscale_plan
    for given in ({"plan": path}, {"target": target}, {"plan": path, "target": target}):
        grown = graphscale.grow(plain, **given)
        check_grown(grown, target, EXAMPLE)
        for name, tensor in wanted.state_dict().items():
            assert torch.equal(tensor, grown.state_dict()[name])


def test_options_reach_the_plan() -> None:
    target = Network()
    shrunk = shrink(target, EXAMPLE, input_size=24, kernels={5: 3}, keep=["second.*"])
    assert shrunk.first.kernel_size == (3, 3)
    assert shrunk.second.kernel_size == (3, 3)
    assert images(shrunk).shape[2:] == (24, 24)
    fresh = [shrink(target, EXAMPLE, init="fresh", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(fresh[0].first.weight, fresh[1].first.weight)
    assert not torch.equal(fresh[0].first.weight, fresh[2].first.weight)
    assert not fresh[0].linear.bias.any()


def test_a_name_to_keep_that_no_layer_has() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU())
    wanted = r"Sequential: no layer or weight has the name '1' of keep; names are those of"
    for function in (graphscale.shrink, graphscale.plan):
        with pytest.raises(graphscale.GraphScaleError, match=wanted):
            function(network, EXAMPLE, keep=["0", "1"])


class Row(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 3]


def test_a_refusal_names_the_part_of_the_module() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.Sequential(nn.ReLU(), Row()))
    for function in (graphscale.shrink, graphscale.plan):
        with pytest.raises(graphscale.GraphScaleError, match=r"replace it by another; or") as error:
            function(network, EXAMPLE)
        assert "'1.1.select'" in str(error.value)
    with pytest.raises(graphscale.GraphScaleError, match=r"give a smaller input_size$"):
        graphscale.shrink(network[0], EXAMPLE, input_size=64)


def test_keyword_arguments_and_several_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 2, 1)

        def forward(self, image: torch.Tensor, gain: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.conv(image) * gain
            return {"map": y, "mean": y.mean((2, 3))}

    shrunk = shrink(Two(), {"image": EXAMPLE, "gain": torch.ones(2, 1, 1, 1)})
    assert shrunk(image=images(shrunk), gain=torch.ones(2, 1, 1, 1))["mean"].shape == (2, 8)


def test_a_module_for_one_image(capfd: pytest.CaptureFixture) -> None:
    """The batch cannot be symbolic; torch's exporter must print nothing about that."""

    class One(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).view(1, 5)

    shrunk = shrink(One(), EXAMPLE[:1])
    assert shrunk.graphscale_plan.inputs[0].target == [1, 3, 32, 32]
    assert capfd.readouterr() == ("", "")


def test_a_forward_that_depends_on_the_data_is_one_error(capfd: pytest.CaptureFixture) -> None:
    """torch prints the whole program as far as it was traced."""

    class Chosen(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = x[x > 0]
            return super().forward(x) if found.numel() == 0 else found

    with pytest.raises(graphscale.GraphScaleError, match="torch cannot export Chosen"):
        shrink(Chosen(), EXAMPLE)
    assert capfd.readouterr() == ("", "")


def test_weights_of_zero_hide_no_difference() -> None:
    """Fresh residual networks scale their branches by zero; a wrong padding in one must show."""
    example = Example(EXAMPLE)

    def branch(*pads: int) -> nn.Module:
        return nn.Sequential(nn.ZeroPad2d(pads), nn.Conv2d(3, 8, 2), nn.BatchNorm2d(8))

    modules = [branch(0, 1, 0, 1), branch(1, 0, 1, 0)]
    for module in modules:
        nn.init.zeros_(module[2].weight)
    assert why_outputs_differ(modules[0], copy.deepcopy(modules[0]), example) is None
    assert why_outputs_differ(*modules, example) is not None
    assert why_outputs_differ(branch(1, 1, 0, 0), modules[0], example) is not None


def test_imported_network_shrinks_and_grows() -> None:
    target = graphscale.load(export_module(Network().eval(), EXAMPLE, "dynamo"))
    shrunk = graphscale.shrink(target)
    train(shrunk)
    grown = graphscale.grow(shrunk)
    assert {k: v.shape for k, v in grown.state_dict().items()} == {
        k: v.shape for k, v in target.state_dict().items()
    }
    assert grown(EXAMPLE).shape == target(EXAMPLE).shape


class Residual(nn.Module):
    """A ResNet of two blocks, the second one with a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 7, 2, 3, bias=False)
        self.first = nn.ModuleList(nn.Conv2d(6, 6, 3, 1, 1) for _ in range(2))
        self.second = nn.ModuleList((nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)))
        self.skip = nn.Conv2d(6, 8, 1, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        x = (x + self.first[1](self.first[0](x).relu())).relu()
        x = (self.skip(x) + self.second[1](self.second[0](x).relu())).relu()
        return self.head(x.mean((2, 3)))


def test_a_residual_network_shrinks_twice_and_grows_back() -> None:
    target = Residual()
    example = torch.randn(1, 3, 112, 112)
    first = shrink(target, example)
    sizes = [first.graphscale_plan.image_size]
    second = shrink(first, images(first))
    sizes.append(second.graphscale_plan.image_size)
    assert 112 > sizes[0][0] > sizes[1][0]
    assert [each.stem.weight.shape[2] for each in (target, first, second)] == [7, 5, 3]
    train(second)
    middle = graphscale.grow(second)
    assert middle.graphscale_plan.image_size == sizes[0]
    check_grown(middle, first, images(first))
    check_kernels(second, middle)
    train(middle)
    grown = graphscale.grow(middle)
    check_grown(grown, target, example)
    check_kernels(middle, grown)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if x.sum().item() > 0 else x


def test_bad_input() -> None:
    with pytest.raises(graphscale.GraphScaleError, match="example_input"):
        graphscale.shrink(Network())
    with pytest.raises(graphscale.GraphScaleError, match="Untraceable"):
        graphscale.shrink(Untraceable(), EXAMPLE)
    with pytest.raises(graphscale.GraphScaleError, match="graphscale_plan"):
        graphscale.grow(Network())
    with pytest.raises(graphscale.GraphScaleError, match=r"'first.weight' of shape \[8, 3, 3, 3\]"):
        graphscale.grow(Network(), plan=shrink(Network(), EXAMPLE).graphscale_plan)
    shrunk = shrink(Network(), EXAMPLE)
    with pytest.raises(graphscale.GraphScaleError, match="resize method"):
        graphscale.grow(shrunk, resize="best")
    shrunk.first.weight.data[0] = torch.nan
    with pytest.raises(graphscale.GraphScaleError, match=r"'first.weight' holds NaN"):
        graphscale.grow(shrunk)
