"""Training on a GPU: growth in place, `train_folder`, accelerate and 1-bit gradients by NCCL."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

import graphscale
from graphscale.distributed import DataParallel
from graphscale.layers import FFTConv2d, accelerate
from graphscale.training import grow_
from graphscale.training.rate_schedule import RateSchedule
from graphscale.training.started import FolderOptions
from graphscale.training.train_folder import Notices, train_folder
from graphscale.training.trainer import Events, Interrupted, TrainingOptions
from tests.distributed.ranks import on_ranks
from tests.training.colour_images import write_red_and_blue
from tests.training.small_networks import batch, shrunk

GPU = "cuda"


def steps(network: nn.Module, module: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """Steps on images of the size of `module`, which may lie inside `network`; the last loss."""
    size = batch(module if hasattr(module, "graphscale_plan") else None)
    x, labels = size.to(GPU), torch.arange(len(size), device=GPU) % 5
    for _ in range(2):
        loss = nn.functional.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_grows_in_place_where_it_is(kind: type, compiled: bool) -> None:
    module = shrunk().to(GPU, memory_format=torch.channels_last)
    momentum = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(module.parameters(), lr=0.01, fused=True, **momentum)
    network = torch.compile(module, dynamic=False) if compiled else module
    steps(network, module, optimizer)
    wanted = graphscale.grow(copy.deepcopy(module).cpu())
    grow_(network, optimizers=optimizer)
    for got, want in zip(module.parameters(), wanted.parameters(), strict=True):
        assert got.device.type == GPU
        assert torch.equal(got.cpu(), want)
        for state in optimizer.state[got].values():
            assert state.device.type == GPU
            assert state.shape in (got.shape, ())
    assert steps(network, module, optimizer).isfinite()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for part, count in (("train", 40), ("val", 10)):
        random = np.random.default_rng(0)
        write_red_and_blue(folder / part, count, random, noise=120, colour=100)
    return folder


def make_network(num_classes: int) -> nn.Module:
    """For train_folder; its kernels shrink."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, num_classes)),
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_trains_on_a_folder_and_resumes(images: Path, tmp_path: Path, precision: str) -> None:
    trainers, done = [], []

    def stop_once(epoch: int, batch: int, batches: int) -> None:
        done.append(batch)
        trainers[-1].stop = len(done) == 12

    def run(resume: bool):
        return train_folder(
            f"{__name__}:make_network",
            images,
            tmp_path / "run",
            options=TrainingOptions(
                epochs=6, rate=0.02, schedule=RateSchedule(warm_up=0.5), precision=precision
            ),
            folder_options=FolderOptions(16, "crop", (16, 16), workers=0, device=GPU),
            resume=resume,
            notices=Notices(events=Events(batch_done=stop_once), trainer=trainers.append),
        )

    with pytest.raises(Interrupted):
        run(resume=False)
    (result,) = run(resume=True)
    assert next(result.network.parameters()).device.type == GPU
    assert len({record.image_size for record in result.records}) > 1  # the images grew
    assert result.accuracy == 1  # red and blue are easily told apart
    opened = graphscale.session(tmp_path / "run" / "model.onnx", providers=["CPUExecutionProvider"])
    assert opened.get_inputs()[0].shape[1:] == [3, 16, 16]


def errors(network: nn.Module, x: torch.Tensor) -> list[float]:
    """Errors of the output and of all gradients, to the network in float64 on the CPU."""
    exact = nn.Sequential(
        *(
            nn.Conv2d(
                each.in_channels,
                each.out_channels,
                each.kernel_size,
                padding=each.padding,
                groups=each.groups,
            )
            for each in network
        )
    ).double()
    exact.load_state_dict(network.state_dict())
    wanted, given = x.double().cpu().requires_grad_(), x.detach().requires_grad_()
    y, exact_y = network(given), exact(wanted)
    y.float().square().mean().backward()
    exact_y.square().mean().backward()
    pairs = [(y.detach(), exact_y.detach()), (given.grad, wanted.grad)]
    for one, other in zip(network.parameters(), exact.parameters(), strict=True):
        pairs.append((one.grad, other.grad))
    return [float((got.cpu() - want).norm() / want.norm()) for got, want in pairs]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_accelerated_convolutions_compute_the_same(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # without earlier measurements
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setenv("GRAPHSCALE_TF32", "0")
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 13, padding=6), nn.Conv2d(16, 16, 31, padding=15, groups=16)]
    network = accelerate(nn.Sequential(*layers).to(GPU, memory_format=memory_format))
    x = torch.randn(4, 3, 40, 40, device=GPU).contiguous(memory_format=memory_format)
    assert max(errors(network, x)) < 1e-5


@pytest.mark.parametrize(("half", "limit"), [(False, 1e-5), (True, 2e-2)])
def test_fft_layers_train(half: bool, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHSCALE_TF32", "0")
    torch.manual_seed(0)
    layers = [FFTConv2d(3, 16, 13, padding=6), FFTConv2d(16, 16, 31, padding=15, groups=16)]
    network = nn.Sequential(*layers).to(GPU)
    with torch.autocast(GPU, torch.bfloat16, enabled=half):
        assert max(errors(network, torch.randn(4, 3, 40, 40, device=GPU))) < limit


def one_bit_weights(rank: int, device: str) -> list[np.ndarray]:
    """The weights after steps with 1-bit gradients, by NCCL on a GPU and by gloo on a CPU."""
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(100, 64), nn.Tanh(), nn.Linear(64, 10)).to(device)
    parallel = DataParallel(network, gradient="onebit", warm_up_steps=1, min_elements=64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        x = torch.randn(16, 100, generator=generator).to(device)
        loss = parallel(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert parallel.one_bit.step == 4
    weights = [each.detach().cpu().numpy() for each in network.parameters()]
    distributed.destroy_process_group()
    return weights


def test_one_bit_gradients_are_those_of_the_cpu() -> None:
    (found,), (wanted,) = (
        on_ranks(1, one_bit_weights, device, torchrun=True) for device in (GPU, "cpu")
    )
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
