"""A torch module is shrunk and grown as its ONNX graph is, and stays what it was."""

import copy
import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

import graphscale
from tests.zoo import NETWORKS, build, export, export_module

QUICK = [
    "resnet18",
    "vgg11",
    "googlenet",
    "densenet121",
    "mobilenet_v2",
    "convnext_tiny",
    "unet_transpose",
]
# As traced, these hold sequences, which only the exporter's optimiser removes.
UNLIKE_FILE = ["shufflenet_v2", "res2net50"]


def shrink(module: nn.Module, example: object, **options: object) -> nn.Module:
    """Shrunk without falling back on the imported graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return graphscale.shrink(module, example, **options)


def run_onnxruntime(model: onnx.ModelProto, x: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def assert_close(actual: torch.Tensor, expected: object, tolerance: float = 1e-4) -> None:
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= tolerance * expected.norm()


def assert_weights(module: nn.Module, model: onnx.ModelProto) -> None:
    """Every weight of the module equals the initializer of its name."""
    tensors = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(tensor.numpy(), tensors[name], rtol=1e-5, atol=1e-7)


def picture(module: nn.Module, batch: int = 2) -> torch.Tensor:
    """Random pictures at the pre-train size."""
    _, *shape = module.graphscale_plan.inputs[0].pretrain
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


def train(module: nn.Module, steps: int = 2) -> None:
    """A few steps of gradient descent, in which every trained weight takes part."""
    x = picture(module)
    weights = [each for each in module.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


def check_grown(grown: nn.Module, target: nn.Module, example: torch.Tensor) -> None:
    """The grown module is the target but for its numbers."""
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
    """Kernels by torch's interpolation and Eq. 5's amplitude, what is not resized untouched."""
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
        assert_close(shrunk(picture(shrunk, 3)), run_onnxruntime(pretrain, picture(shrunk, 3)))
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


class Table(nn.Module):
    """A position table, a LayerNorm over whole maps, an average over whole maps."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 7, 2, 3)
        self.places = nn.Parameter(torch.randn(1, 8, 16, 16))
        self.norm = nn.LayerNorm([8, 16, 16])
        self.pool = nn.AvgPool2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.norm(self.enter(x) + self.places)).flatten(1)


def head(features: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(features, 5)]


LAYERS = {
    "same": [nn.Conv2d(3, 8, 3, padding="same"), nn.ReLU(), nn.Conv2d(8, 8, 5, padding="same")],
    "unequal": [nn.Conv2d(3, 8, 3, padding=1), *head(8 * 32 * 32)],
    "reflect": [
        nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
    ],
    "dilated": [nn.Conv2d(3, 8, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)],
    "pads": [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2), nn.ReflectionPad2d(1), *head(2592)],
    "adaptive": [nn.Conv2d(3, 8, 7, 2, 3), nn.AdaptiveAvgPool2d(16), *head(8 * 16 * 16)],
    "pools": [
        nn.Conv2d(3, 8, 5, 1, 2),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, 1, 1),
        nn.AvgPool2d(3, 2, 1),
        nn.LPPool2d(2, 2),
    ],
    "upsample": [
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.UpsamplingNearest2d(size=(32, 32)),
    ],
    "transposed": [
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ConvTranspose2d(8, 8, 3, 2, 1, 1),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ConvTranspose2d(8, 4, 5, 2, 2, 1),
    ],
    "table": [Table()],
    "one axis": [nn.Conv1d(3, 8, 7, 2, 3), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, 1, 1), *head(64)],
    "three axes": [nn.Conv3d(3, 4, 3, 2, 1), nn.AvgPool3d(2), nn.Conv3d(4, 4, 5, 1, 2)],
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    torch.manual_seed(0)
    target = nn.Sequential(*LAYERS[name]).eval()
    axes = {"one axis": 1, "three axes": 3}.get(name, 2)
    example = torch.randn(2, 3, *[32] * axes)
    shrunk = shrink(target, example)
    pretrain = graphscale.shrink(export_module(target, example, "dynamo"))
    assert_weights(shrunk, pretrain)
    x = picture(shrunk, 3)
    assert_close(shrunk(x), run_onnxruntime(pretrain, x))
    torch.compiler.reset()
    compiled = torch.compile(shrunk, backend="eager", fullgraph=True)
    assert_close(compiled(x), shrunk(x))
    grown = graphscale.grow(shrunk)
    assert_weights(grown, graphscale.grow(pretrain))
    assert_close(shrink(grown, example)(x), shrunk(x))
    for layer in grown.modules():
        assert not layer._forward_pre_hooks
        assert not layer._forward_hooks
    grown.load_state_dict(target.state_dict())
    torch.testing.assert_close(grown(example), target(example))


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
    """Has a number of the target written into its forward."""

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
        torch.testing.assert_close(twin.eval()(picture(twin)), shrunk.eval()(picture(shrunk)))
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


def test_weights_computed_in_forward() -> None:
    """Growing gives an imported graph too: the class cannot hold the weights."""
    target = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1)), nn.Conv2d(8, 8, 3)
    )
    shrunk = shrink_to_import(target)
    train(shrunk)
    with torch.no_grad():
        assert graphscale.grow(shrunk)(EXAMPLE).shape == target(EXAMPLE).shape


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
    assert picture(shrunk).shape[2:] == (24, 24)
    fresh = [shrink(target, EXAMPLE, init="fresh", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(fresh[0].first.weight, fresh[1].first.weight)
    assert not torch.equal(fresh[0].first.weight, fresh[2].first.weight)
    assert not fresh[0].linear.bias.any()


def test_keyword_arguments_and_several_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 2, 1)

        def forward(self, image: torch.Tensor, gain: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.conv(image) * gain
            return {"map": y, "mean": y.mean((2, 3))}

    shrunk = shrink(Two(), {"image": EXAMPLE, "gain": torch.ones(2, 1, 1, 1)})
    assert shrunk(image=picture(shrunk), gain=torch.ones(2, 1, 1, 1))["mean"].shape == (2, 8)


def test_imported_network_shrinks_and_grows() -> None:
    target = graphscale.load(export_module(Network().eval(), EXAMPLE, "dynamo"))
    shrunk = graphscale.shrink(target)
    train(shrunk)
    grown = graphscale.grow(shrunk)
    assert {k: v.shape for k, v in grown.state_dict().items()} == {
        k: v.shape for k, v in target.state_dict().items()
    }
    assert grown(EXAMPLE).shape == target(EXAMPLE).shape


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
    with pytest.raises(graphscale.GraphScaleError, match="resize method"):
        graphscale.grow(shrink(Network(), EXAMPLE), resize="best")
