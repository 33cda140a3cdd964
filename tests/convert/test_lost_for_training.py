"""lost_for_training finds the signs of an export in evaluation mode, and no others."""

import torch
from torch import nn

from graphscale.convert import lost_for_training

from .test_training import exported


def test_an_export_for_training_shows_no_sign():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    assert lost_for_training(exported(network, 2, 3, 8, 8)) == []


def test_folded_normalisation_and_missing_dropout_are_told():
    layers = [layer for _ in range(5) for layer in (nn.Conv2d(4, 4, 1), nn.ReLU())]
    head = [nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 5)]
    torch.manual_seed(0)
    folded, dropped = lost_for_training(exported(nn.Sequential(*layers, *head).eval(), 2, 4, 8, 8))
    assert "5 convolutions have a bias" in folded
    assert "2 fully-connected layers and no Dropout" in dropped
    assert all("TrainingMode.PRESERVE" in each for each in (folded, dropped))
    alive = nn.Sequential(*layers, *head[:2], nn.Dropout(0.5), head[3]).train()
    assert not any("Dropout" in each for each in lost_for_training(exported(alive, 2, 4, 8, 8)))
