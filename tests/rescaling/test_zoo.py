"""The zoo's networks are the published ones: as many weights, as many multiplications."""

import onnx
import pytest
import torch

from tests.zoo import HANDMADE, NETWORKS

# Millions of weights as their papers or the reference implementations report them.
PUBLISHED = {
    "alexnet": 61.10,
    "vgg11": 132.86,
    "vgg16": 138.36,
    "vgg19": 143.67,
    "vgg19_bn": 143.68,
    "resnet18": 11.69,
    "resnet34": 21.80,
    "resnet50": 25.56,
    "resnet101": 44.55,
    "resnet152": 60.19,
    "resnext50": 25.03,
    "seresnet50": 28.09,
    "res2net50": 25.70,
    "regnet_x": 5.50,
    "regnet_y": 4.34,
    "inception_v3": 23.83,
    "inception_v4": 42.68,
    "densenet121": 7.98,
    "densenet201": 20.01,
    "squeezenet1_0": 1.25,
    "squeezenet1_1": 1.24,
    "shufflenet_v2": 2.28,
    "xception": 22.86,
    "mobilenet_v1": 4.23,
    "mobilenet_v2": 3.50,
    "mobilenet_v3_small": 2.54,
    "mobilenet_v3_large": 5.48,
    "mobilenet_v4": 3.77,
    "mnasnet": 3.89,
    "efficientnet_b0": 5.29,
    "efficientnet_b1": 7.79,
    "ghostnet": 5.18,
    "convnext_tiny": 28.59,
    "repvgg_train": 9.11,
    "repvgg_fused": 8.31,
    "dla34": 15.74,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_the_published_number_of_weights(name: str) -> None:
    with torch.device("meta"):
        module = NETWORKS[name].build()
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[name], abs=0.006)


def test_overfeat_has_the_papers_sizes_and_multiplications() -> None:
    sizes, multiplications = [], 0
    with torch.device("meta"):
        module = NETWORKS["overfeat_fast"].build()
        x = torch.empty(1, 3, 231, 231)
    for layer in module:
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d):
            sizes.append(x.shape[-1])
        if isinstance(layer, torch.nn.Conv2d):
            multiplications += layer.weight[0].numel() * x.numel()
    assert sizes == [56, 28, 24, 12, 12, 12, 12, 6]
    assert multiplications == pytest.approx(2.671e9, rel=2e-4)


@pytest.mark.parametrize("name", HANDMADE)
def test_handmade_models_pass_the_checker(name: str) -> None:
    onnx.checker.check_model(HANDMADE[name](), full_check=True)
