"""A module grown in place equals `graphscale.grow`'s; optimizers and wrappers still work."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphscale
from graphscale.core.resampling import growth_matrix
from graphscale.training import GrowthStages, grow_

from .small_networks import EXAMPLE, Fixed, Small, batch, shrunk, target, train


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def assert_same(module: nn.Module, other: nn.Module) -> None:
    """Same keys and the same bits."""
    state, expected = module.state_dict(), other.state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def assert_untouched(module: nn.Module, before: nn.Module, optimizer=None, state=None) -> None:
    assert_same(module, before)
    assert repr(module) == repr(before)
    x = batch(module)
    assert torch.equal(module.eval()(x), before.eval()(x))
    if optimizer is not None:
        for one, other in zip(optimizer.state.values(), state.values()):
            for key, value in one.items():
                assert value is other[key]


def test_equals_grow() -> None:
    module = shrunk()
    optimizer = sgd(module)
    loss = train(module, optimizer, batch(module))
    expected = graphscale.grow(module)
    parameters = list(module.parameters())
    assert grow_(module, optimizers=optimizer) is module
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))
    assert all(each.grad is None for each in module.parameters())
    assert not hasattr(module, "graphscale_plan")
    assert module.alias.weight is module.second.weight
    assert_same(module, expected)
    assert type(module) is Small
    assert repr(module) == repr(target())
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    x = batch()
    assert torch.equal(module.eval()(x), expected.eval()(x))
    # `loss` still holds the nodes that accumulated gradients of the old shapes.
    assert loss.grad_fn is not None
    train(module.train(), optimizer, x)


def by_matrices(tensor: torch.Tensor, shape: torch.Size, squared: bool = False) -> np.ndarray:
    """Eq. 5 by one matrix per axis, written out in float64."""
    power = 2 if squared else 1
    array = tensor.detach().double().numpy()
    if tensor.ndim == 2:  # the interface: 8 channels of a square map
        old, new = (int((n / 8) ** 0.5) for n in (tensor.shape[1], shape[1]))
        array = array.reshape(len(array), 8, old, old)
    else:
        old, new = tensor.shape[2], shape[2]
    matrix = growth_matrix(old, new) ** power
    return np.einsum("ocij,yi,xj->ocyx", array, matrix, matrix).reshape(shape)


OPTIMIZERS = {
    "sgd": (sgd, {"momentum_buffer": False}),
    "adamw": (
        lambda m: torch.optim.AdamW(m.parameters(), amsgrad=True),
        {"exp_avg": False, "exp_avg_sq": True, "max_exp_avg_sq": True},
    ),
    "rmsprop": (
        lambda m: torch.optim.RMSprop(m.parameters(), 1e-3, momentum=0.9),
        {"momentum_buffer": False, "square_avg": True},
    ),
    "adagrad": (lambda m: torch.optim.Adagrad(m.parameters()), {"sum": True}),
    "adadelta": (
        lambda m: torch.optim.Adadelta(m.parameters()),
        {"square_avg": True, "acc_delta": True},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_grows(name: str) -> None:
    make, kinds = OPTIMIZERS[name]
    module = shrunk()
    optimizer = make(module)
    train(module, optimizer, batch(module))
    names = ("first.weight", "depthwise.weight", "second.weight", "linear.weight")
    weights = {name: module.get_parameter(name) for name in names}
    before = {n: dict(optimizer.state[w]) for n, w in weights.items()}
    kept = dict(optimizer.state[module.linear.bias])
    grow_(module, optimizers=optimizer)
    for weight_name, weight in weights.items():
        state = optimizer.state[weight]
        assert state.keys() == before[weight_name].keys()
        for key, old in before[weight_name].items():
            if key not in kinds:  # the step count
                assert state[key] is old
                continue
            expected = by_matrices(old, weight.shape, squared=kinds[key])
            np.testing.assert_allclose(
                state[key], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max()
            )
            assert not kinds[key] or bool((state[key] >= 0).all())
    for key, value in optimizer.state[module.linear.bias].items():
        assert value is kept[key]
    train(module, optimizer, batch())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_resets(name: str) -> None:
    """A parameter whose state was reset is updated as by a new optimizer."""
    make, _ = OPTIMIZERS[name]
    module = shrunk()
    optimizer = make(module)
    train(module, optimizer, batch(module))
    grow_(module, optimizers=optimizer, optimizer_state="reset")
    twin = copy.deepcopy(module)
    train(module, optimizer, batch(), 1)
    train(twin, make(twin), batch(), 1)
    assert torch.equal(module.first.weight, twin.first.weight)
    assert torch.equal(module.linear.weight, twin.linear.weight)


def test_adamax_grows_by_the_root_of_the_squared_map() -> None:
    module = shrunk()
    optimizer = torch.optim.Adamax(module.parameters())
    train(module, optimizer, batch(module))
    before = optimizer.state[module.first.weight]["exp_inf"]
    grow_(module, optimizers=optimizer)
    after = optimizer.state[module.first.weight]["exp_inf"]
    expected = by_matrices(before.double().square(), after.shape, squared=True) ** 0.5
    np.testing.assert_allclose(after, expected, rtol=1e-4)


def test_centered_rmsprop_stays_finite() -> None:
    """Equal gradients of neighbouring taps have no variance, which must not become negative."""
    module = shrunk()
    optimizer = torch.optim.RMSprop(module.parameters(), 1e-4, centered=True)
    train(module, optimizer, batch(module))
    state = optimizer.state[module.first.weight]
    state["grad_avg"].fill_(0.1)
    state["square_avg"].fill_(0.01)
    grow_(module, optimizers=optimizer)
    assert (state["square_avg"] - state["grad_avg"].square() > -1e-9).all()
    np.testing.assert_allclose(
        state["grad_avg"], by_matrices(torch.full((8, 3, 5, 5), 0.1), (8, 3, 7, 7)), rtol=1e-5
    )
    assert train(module, optimizer, batch()).isfinite()


def test_unknown_state_is_reset_by_name() -> None:
    module = shrunk()
    optimizer = torch.optim.Rprop(module.parameters(), lr=1e-3)
    train(module, optimizer, batch(module))
    with pytest.warns(UserWarning, match=r"Rprop: its state 'prev' .* first\.weight, .* is reset"):
        grow_(module, optimizers=optimizer)
    assert module.first.weight not in optimizer.state
    train(module, optimizer, batch())


def test_sparse_state_is_reset_by_name() -> None:
    module = shrunk()
    optimizer = sgd(module)
    momentum = torch.ones_like(module.first.weight).to_sparse()
    optimizer.state[module.first.weight]["momentum_buffer"] = momentum
    with pytest.warns(UserWarning, match=r"'momentum_buffer' .* first\.weight is reset"):
        grow_(module, optimizers=optimizer)
    assert module.first.weight not in optimizer.state


def test_without_a_step_before() -> None:
    module = shrunk()
    optimizer = sgd(module)
    grow_(module, optimizers=[optimizer])
    train(module, optimizer, batch())


def test_autocast_with_grad_scaler() -> None:
    module = shrunk()
    optimizer = sgd(module)
    scaler = torch.amp.GradScaler("cpu")
    for x in (batch(module), batch(module), None, batch(), batch()):
        if x is None:
            grow_(module, optimizers=optimizer)
            continue
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(module(x), torch.arange(4))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        before = module.first.weight.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        assert not torch.equal(before, module.first.weight)


def test_channels_last_is_kept() -> None:
    module = shrunk().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(module.parameters())
    train(module, optimizer, batch(module).to(memory_format=torch.channels_last))
    expected = graphscale.grow(module)
    grow_(module, optimizers=optimizer)
    assert_same(module, expected)
    for weight in (module.first.weight, module.second.weight, module.depthwise.weight):
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()
    assert (
        module.first.weight.stride()
        == target().to(memory_format=torch.channels_last).first.weight.stride()
    )


def test_gradient_accumulation_starts_anew() -> None:
    module = shrunk()
    F.cross_entropy(module(batch(module)), torch.arange(4)).backward()
    grow_(module)
    twin = graphscale.grow(shrunk())
    twin.load_state_dict(module.state_dict())
    for each in (module, twin):
        for seed in (1, 2):
            (F.cross_entropy(each(batch(seed=seed)), torch.arange(4)) / 2).backward()
    for one, other in zip(module.parameters(), twin.parameters()):
        assert torch.equal(one.grad, other.grad)


def test_hooks_on_weights_stay() -> None:
    module = shrunk()
    shapes = []
    module.first.weight.register_hook(lambda grad: shapes.append(tuple(grad.shape)))
    module.second.weight.register_post_accumulate_grad_hook(
        lambda weight: shapes.append(tuple(weight.grad.shape))
    )
    train(module, sgd(module), batch(module), 1)
    grow_(module)
    train(module, sgd(module), batch(), 1)
    assert set(shapes) == {(8, 3, 5, 5), (8, 8, 2, 2), (8, 3, 7, 7), (8, 8, 3, 3)}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_once_more(backend: str) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    module = shrunk()
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    optimizer = sgd(module)
    train(compiled, optimizer, batch(module))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    grow_(compiled, optimizers=optimizer)
    loss = train(compiled, optimizer, batch(), 3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert loss.isfinite()
    torch.testing.assert_close(compiled(batch()), module(batch()))


def test_averages_grow_along() -> None:
    module = shrunk()
    optimizer = sgd(module)
    averages = [
        torch.optim.swa_utils.AveragedModel(module, use_buffers=True),
        torch.optim.swa_utils.AveragedModel(module, avg_fn=lambda a, b, n: 0.9 * a + 0.1 * b),
        copy.deepcopy(module),
    ]
    for _ in range(3):
        train(module, optimizer, batch(module), 1)
        for average in averages[:2]:
            average.update_parameters(module)
    expected = [graphscale.grow(average) for average in averages]
    grow_(module, optimizers=optimizer, averages=averages)
    for average, wanted in zip(averages, expected):
        assert_same(getattr(average, "module", average), wanted)
    train(module, optimizer, batch(), 1)
    for average in averages[:2]:
        average.update_parameters(module)
        assert average(batch()).shape == (4, 5)


def test_a_part_of_a_larger_module() -> None:
    whole = nn.ModuleDict({"network": shrunk(), "head": nn.Linear(5, 2)})
    average = torch.optim.swa_utils.AveragedModel(whole)
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9)
    grow_(whole, optimizers=optimizer, averages=average)
    for each in (whole, average.module):
        assert repr(each["network"]) == repr(target())
    several = nn.ModuleList([shrunk(), shrunk()])
    with pytest.raises(graphscale.GraphScaleError, match="holds 2 networks"):
        grow_(several)
    module = shrunk()
    with pytest.raises(graphscale.GraphScaleError, match="holds several Small"):
        grow_(module, averages=several)


def test_frozen_layers_and_modes_stay() -> None:
    module = shrunk()
    module.first.requires_grad_(False)
    module.norm.eval()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    train(module, optimizer, batch(module))
    grow_(module, optimizers=optimizer)
    assert not module.first.weight.requires_grad
    assert not module.norm.training
    before = module.first.weight.detach().clone()
    train(module, optimizer, batch())
    assert torch.equal(module.first.weight, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_stay(dtype: torch.dtype) -> None:
    module = shrunk().to(dtype)
    optimizer = torch.optim.Adam(module.parameters())
    train(module, optimizer, batch(module).to(dtype))
    expected = graphscale.grow(module)
    grow_(module, optimizers=optimizer)
    assert_same(module, expected)
    assert optimizer.state[module.first.weight]["exp_avg_sq"].dtype is dtype


def test_a_module_on_the_meta_device_grows_in_place() -> None:
    module = shrunk().to("meta")
    module.alias.weight = module.second.weight  # torch does not keep it shared
    grow_(module)
    assert all(each.is_meta for each in module.parameters())
    shapes = {name: each.shape for name, each in module.state_dict().items()}
    assert shapes == {name: each.shape for name, each in target().state_dict().items()}


def test_imported_graph_grows_in_place() -> None:
    module = shrunk(Fixed)
    optimizer = sgd(module)
    average = torch.optim.swa_utils.AveragedModel(module)
    train(module, optimizer, batch(module))
    average.update_parameters(module)
    parameters = dict(module.named_parameters())
    expected = graphscale.grow(module)
    grow_(module, optimizers=optimizer, averages=average)
    assert all(each is parameters[name] for name, each in module.named_parameters())
    for name, tensor in expected.state_dict().items():
        if name in module.state_dict():
            assert torch.equal(tensor, module.state_dict()[name])
    x = batch()
    torch.testing.assert_close(module.eval()(x), expected.eval()(x))
    train(module.train(), optimizer, x)
    average.update_parameters(module)
    torch.testing.assert_close(copy.deepcopy(module).eval()(x), module.eval()(x))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x), module(x))


def test_norms_are_kept_before_batch_norm() -> None:
    module = shrunk()
    optimizer = sgd(module)
    train(module, optimizer, batch(module))
    before = copy.deepcopy(module)
    plain = graphscale.grow(module).eval()
    grow_(module, optimizers=optimizer, amplitude="norm")
    norms = [each.first.weight.flatten(1).norm(dim=1) for each in (module, before)]
    torch.testing.assert_close(*norms)
    assert not torch.allclose(plain.first.weight, module.first.weight)
    assert torch.equal(plain.second.weight, module.second.weight)  # no BatchNorm behind it
    torch.testing.assert_close(module.eval()(batch()), plain(batch()), rtol=1e-3, atol=1e-4)
    train(module.train(), optimizer, batch())


def test_stages() -> None:
    options = [{"input_size": 20}, {"input_size": 26, "kernels": {7: 7, 5: 5}}]
    stages = GrowthStages(target(), EXAMPLE, options)
    module = stages.module.train()
    optimizer = sgd(module)
    train(module, optimizer, batch(module))
    first = module.first.weight.detach().clone()
    momentum = optimizer.state[module.first.weight]["momentum_buffer"].clone()
    stage = stages.later[0]
    assert {each.device.type for each in stage.template.parameters()} == {"meta"}
    grow_(module, to=stage, optimizers=optimizer)
    assert module.first.weight.shape[2:] == (7, 7)
    assert module.second.weight.shape[2:] == (2, 2)
    np.testing.assert_allclose(
        module.first.weight.detach(), by_matrices(first, module.first.weight.shape), atol=1e-6
    )
    np.testing.assert_allclose(
        optimizer.state[module.first.weight]["momentum_buffer"],
        by_matrices(momentum, module.first.weight.shape),
        atol=1e-6,
    )
    # The module is the stage that shrinking by its options alone gives.
    alone = graphscale.shrink(target(), EXAMPLE, **options[1])
    alone.load_state_dict(module.state_dict())
    x = batch(module)
    assert x.shape[2:] == (26, 26)
    assert torch.equal(module.eval()(x), alone.eval()(x))
    train(module.train(), optimizer, x)
    expected = graphscale.grow(module)
    grow_(module, optimizers=optimizer)
    assert_same(module, expected)
    assert repr(module) == repr(target())
    train(module, optimizer, batch())


def test_stages_only_grow() -> None:
    options = [{"input_size": 26, "kernels": {7: 7}}, {"input_size": 20}]
    stages = GrowthStages(target(), EXAMPLE, options)
    before = copy.deepcopy(stages.module)
    with pytest.raises(graphscale.GraphScaleError, match="would become smaller"):
        grow_(stages.module, to=stages.later[0])
    assert_untouched(stages.module, before)


class Breaks(nn.Conv2d):
    """A convolution that refuses a new kernel size once it is armed."""

    armed = False

    def __setattr__(self, name: str, value: object) -> None:
        if name == "kernel_size" and self.armed:
            raise RuntimeError("no")
        super().__setattr__(name, value)


def test_all_or_nothing() -> None:
    module = shrunk()
    optimizer = sgd(module)
    train(module, optimizer, batch(module))
    module.alias.__class__ = Breaks  # the last convolution, when the first ones are done
    before = copy.deepcopy(module)
    module.alias.armed = True
    state = {p: dict(s) for p, s in optimizer.state.items()}
    with pytest.raises(RuntimeError, match="no"):
        grow_(module, optimizers=optimizer)
    module.alias.armed = before.alias.armed = False
    module.alias.__class__ = before.alias.__class__ = nn.Conv2d
    del vars(module.alias)["armed"], vars(before.alias)["armed"]
    assert_untouched(module, before, optimizer, state)
    grow_(module, optimizers=optimizer)
    train(module, optimizer, batch())


def test_errors_name_what_to_do() -> None:
    module = shrunk()
    before = copy.deepcopy(module)
    stranger = torch.optim.SGD(target().parameters(), lr=0.1)
    for options, text in (
        ({"optimizers": stranger}, "holds none of the module's parameters"),
        ({"optimizers": torch.optim.LBFGS(module.parameters())}, "make a new one after growth"),
        ({"optimizers": [module]}, "is no torch optimizer"),
        ({"averages": nn.Linear(1, 1)}, "holds no Small"),
        ({"averages": target()}, r"'first.weight' of shape \[8, 3, 5, 5\]"),
        ({"optimizer_state": "keep"}, "optimizer_state is 'keep'; give resize or reset"),
        ({"amplitude": "sum"}, "amplitude is 'sum'; give response or norm"),
        ({"resize": "best"}, "resize method"),
    ):
        with pytest.raises(graphscale.GraphScaleError, match=text):
            grow_(module, **options)
        assert_untouched(module, before)
    with pytest.raises(graphscale.GraphScaleError, match="carries no plan"):
        grow_(target())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    state = optimizer.state[module.first.weight]
    state["momentum_buffer"] = torch.full_like(module.first.weight, torch.inf)
    with pytest.raises(graphscale.GraphScaleError, match=r"state: weight 'first.weight' holds inf"):
        grow_(module, optimizers=optimizer)
    assert_untouched(module, before)
    module.first.weight.data[0] = torch.nan
    with pytest.raises(graphscale.GraphScaleError, match=r"'first.weight' holds NaN"):
        grow_(module)
    module.first.weight = nn.Parameter(module.first.weight.detach().to(torch.complex64))
    with pytest.raises(graphscale.GraphScaleError, match=r"'first.weight' is complex"):
        grow_(module)
