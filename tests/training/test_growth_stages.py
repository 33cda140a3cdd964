"""Stages share one target: templates without memory, and layers that take a template's sizes."""

import copy
import functools

import pytest
import torch
from torch import nn

import graphscale
from graphscale import GraphScaleError
from graphscale.modules.edit_layers import CropOutput, PadInput
from graphscale.training import GrowthLR, GrowthSchedule, growth_stages
from graphscale.training.growth_stages import GrowthStage, GrowthStages, copy_layer_sizes

from .small_networks import EXAMPLE, Fixed, shrunk


def test_a_template_takes_no_memory_and_keeps_what_is_shared() -> None:
    module = shrunk()
    module.first.weight.requires_grad_(False)
    stage = GrowthStage.of(module)
    assert stage.plan is module.graphscale_plan
    tensors = [*stage.template.parameters(), *stage.template.buffers()]
    assert all(each.is_meta for each in tensors)
    assert stage.template.alias.weight is stage.template.second.weight
    assert not stage.template.first.weight.requires_grad
    assert not module.second.weight.is_meta
    assert repr(stage.template) == repr(module)


def test_no_stage_is_an_error() -> None:
    with pytest.raises(GraphScaleError, match="no stage is given"):
        GrowthStages(nn.Conv2d(3, 4, 3), EXAMPLE, [])


def test_a_network_that_cannot_take_a_stages_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An imported graph, which stands in for a module whose forward has a size in it."""
    monkeypatch.setattr(growth_stages, "shrink_module", lambda *_, **options: shrunk(Fixed))
    with pytest.raises(GraphScaleError, match="Fixed cannot take the sizes of a stage"):
        GrowthStages(Fixed(), EXAMPLE, [{"input_size": 20}, {"input_size": 26}])


def layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2, padding_mode="reflect"), nn.MaxPool2d(3, 2), nn.ReLU()
    )


def test_sizes_and_hooks_are_copied_and_nothing_else() -> None:
    module, template = layers(), layers()
    template[0] = nn.Conv2d(3, 4, 3, padding=1, stride=2, padding_mode="reflect")
    template[1].kernel_size = 2
    template[0].register_forward_pre_hook(PadInput([1, 0, 0, 0], "constant"))
    module[0].register_forward_hook(CropOutput([0, 1, 0, 1]))
    seen = []
    module[0].register_forward_hook(lambda *given: seen.append(given))
    module.eval()
    weight = module[0].weight
    copy_layer_sizes(module, template)
    assert repr(module) == repr(template)
    assert module[0].weight is weight
    assert not module[0].training
    assert tuple(module[0]._reversed_padding_repeated_twice) == (1, 1, 1, 1)
    (pad,) = module[0]._forward_pre_hooks.values()
    assert isinstance(pad, PadInput)
    assert pad is not next(iter(template[0]._forward_pre_hooks.values()))
    (own,) = module[0]._forward_hooks.values()
    assert not isinstance(own, CropOutput)  # the template has none; the user's hook stays


def test_a_template_of_another_target() -> None:
    with pytest.raises(GraphScaleError, match=r"layer '1' of the stage is a AvgPool2d.* MaxPool2d"):
        copy_layer_sizes(layers(), nn.Sequential(layers()[0], nn.AvgPool2d(2)))
    with pytest.raises(GraphScaleError, match=r"layer '3' .* NoneType"):
        copy_layer_sizes(layers(), nn.Sequential(*layers(), nn.Linear(2, 2)))


def test_a_whole_template_makes_the_module_the_stage() -> None:
    """The target's copy with a stage's sizes and weights computes what the stage computes."""
    stage = shrunk().eval()
    module = copy.deepcopy(stage)
    graphscale.grow_(module)
    copy_layer_sizes(module, GrowthStage.of(stage).template)
    for one, other in zip(module.parameters(), stage.parameters(), strict=True):
        one.data = other.data
    x = torch.randn(2, *stage.graphscale_plan.inputs[0].pretrain[1:])
    assert torch.equal(module.eval()(x), stage(x))


def test_the_late_recipe_in_a_loop() -> None:
    """Five of six epochs, images of 1/2, 5/8, 3/4 and the whole size, kernels as they are."""
    torch.manual_seed(0)
    target = nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    stages = GrowthStages.of_recipe("late", target, torch.zeros(1, 3, 32, 16), units=12)
    module = stages.module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    growth = GrowthSchedule(
        module,
        total=stages.total,
        grow_at=stages.grow_at,
        later=stages.later,
        optimizers=optimizer,
    )
    rates = GrowthLR(growth, optimizer, after="restart")
    seen = []
    for _ in growth:
        assert module[0].kernel_size == (5, 5)
        seen.append((*growth.image_size, round(rates.get_last_lr()[0], 3)))
        module(torch.randn(2, 3, *growth.image_size)).sum().backward()
        optimizer.step()
        growth.step()
        rates.step()
    assert seen == [
        *[(16, 8, 0.1)] * 3,
        *[(20, 10, 0.1)] * 3,
        *[(24, 12, 0.1)] * 2,
        (32, 16, 0.1),
        (32, 16, 0.05),
    ]
    assert repr(module) == repr(target)


def test_recipes_that_a_loop_cannot_have() -> None:
    make = functools.partial(GrowthStages.of_recipe, target=layers(), units=12)
    example = torch.zeros(1, 3, 32, 32)
    with pytest.raises(GraphScaleError, match="'target' trains the target alone"):
        make("target", example_input=example)
    with pytest.raises(GraphScaleError, match="unknown recipe 'never'"):
        make("never", example_input=example)
    with pytest.raises(GraphScaleError, match="before the first drop of the learning rate"):
        make("paper", example_input=example)
    assert make("paper", example_input=example, milestones=6).grow_at == [5]
    with pytest.raises(GraphScaleError, match=r"example_input has the shape 3×32×32; give \(N"):
        make("late", example_input=example[0])
    stages = make("paper", example_input=example, milestones=[6, 9])
    assert (stages.total, stages.grow_at, stages.later) == (12, [5], [])
