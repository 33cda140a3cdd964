"""Training with growth.

For your own loop: `grow_` grows a module in place, `GrowthSchedule` says when, `GrowthLR` sets the
learning rate around it, `GrowthStages` makes several pre-train networks of one target, and
`resize_batch`, `ResizeInputs` and `SharedImageSize` keep images at the current size. For other
libraries: `training.lightning`, `training.hugging_face_accelerate`. The other files are the loop of
`graphscale train`, and `training_step` exports one step as an ONNX graph.
"""

from graphscale.training.grow_in_place import grow_
from graphscale.training.growth_lr import GrowthLR
from graphscale.training.growth_schedule import BeforeDrop, GrowthSchedule, Plateau
from graphscale.training.growth_stages import GrowthStage, GrowthStages
from graphscale.training.image_size import ResizeInputs, SharedImageSize, resize_batch

__all__ = [
    "BeforeDrop",
    "GrowthLR",
    "GrowthSchedule",
    "GrowthStage",
    "GrowthStages",
    "Plateau",
    "ResizeInputs",
    "SharedImageSize",
    "grow_",
    "resize_batch",
]
