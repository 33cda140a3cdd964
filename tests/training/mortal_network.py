"""A network for trainings on several ranks, one of which kills itself.

The rank that the file `MORTAL` in the training's folder names does so in its eighth step. Without
BatchNorm, whose statistics are each rank's own, results differ by the order of sums only.
"""

from pathlib import Path

MORTAL = "mortal"
_NETWORK = """
import os
import signal
from pathlib import Path

from torch import nn

class Mortal(nn.Module):
    steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == 8 and Path("mortal").exists():
                if Path("mortal").read_text() == os.environ["RANK"]:
                    os.kill(os.getpid(), signal.SIGKILL)
        return x

def network(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), Mortal(), nn.Flatten(),
        nn.Linear(4 * 8 * 8, num_classes),
    )
"""


def write_mortal_network(folder: Path) -> None:
    """Write the module: its name for graphscale train is mortal_network:network."""
    (folder / "mortal_network.py").write_text(_NETWORK)
