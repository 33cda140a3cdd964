"""Train a small network in onnxruntime: one ONNX graph holds forward, loss, gradients and SGD.

    python samples/training_step.py

The network reads noisy copies of 100 random sequences by a convolution over time, and a
hierarchical softmax learns which of the 100 each one is. The training step is exported once; then
onnxruntime trains without torch.
"""

import tempfile
from pathlib import Path

import torch

import graphscale
from graphscale.layers import FeatureLPPooling, HierarchicalSoftmax, TemporalConv
from graphscale.training.training_step import export_training_step


class Reader(torch.nn.Module):
    """The network: sequences [N, T, 8] to features [N, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = TemporalConv(8, 64, 5)
        self.pool = FeatureLPPooling(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, take the mean over time, pool over features."""
        return self.pool(self.conv(x).relu().mean(1))


def main() -> None:
    """Export the step, then run it and print the loss."""
    torch.manual_seed(0)
    patterns = torch.randn(100, 20, 8)
    reader, softmax = Reader(), HierarchicalSoftmax(32, 100)
    both = torch.nn.ModuleDict({"module": reader, "loss": softmax})
    target = torch.randint(0, 100, (64,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        names = export_training_step(reader, softmax, (patterns[target], target), path, 1.0)
        session = graphscale.session(path)
    values = [both.get_parameter(name).detach().numpy() for name in names]
    for step in range(301):
        target = torch.randint(0, 100, (64,))
        x = patterns[target] + 0.1 * torch.randn(64, 20, 8)
        feed = {"x": x.numpy(), "target": target.numpy(), **dict(zip(names, values))}
        loss, *values = session.run(None, feed)
        if step % 50 == 0:
            print(f"step {step:3d}  loss {loss:.3f}")


if __name__ == "__main__":
    main()
