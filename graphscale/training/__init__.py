"""Training with growth.

For your own loop: `grow_` grows a module in place, `GrowthSchedule` says when, `GrowthLR` sets the
learning rate around it, `GrowthStages` makes several pre-train networks of one target, and
`resize_batch`, `ResizeInputs` and `SharedImageSize` keep images at the current size. On a CPU,
`FusedSGD` and `keep_freed_memory` make steps with large weights faster. For other libraries:
`training.lightning`, `training.hugging_face_accelerate`. The other files are the loop of
`graphscale train`, and `training_step` exports one step as an ONNX graph.
"""

from graphscale.training.fused_sgd import FusedSGD
from graphscale.training.grow_in_place import grow_
from graphscale.training.growth_lr import GrowthLR
from graphscale.training.growth_schedule import BeforeDrop, GrowthSchedule, Plateau
from graphscale.training.growth_stages import GrowthStage, GrowthStages
from graphscale.training.image_size import ResizeInputs, SharedImageSize, resize_batch
from graphscale.training.keep_memory import keep_freed_memory

__all__ = [
    "BeforeDrop",
    "FusedSGD",
    "GrowthLR",
    "GrowthSchedule",
    "GrowthStage",
    "GrowthStages",
    "Plateau",
    "ResizeInputs",
    "SharedImageSize",
    "grow_",
    "keep_freed_memory",
    "resize_batch",
]
