"""Growth inside a training loop: in place, by a schedule, and in other libraries' trainers."""

from graphscale.training.grow_in_place import grow_
from graphscale.training.image_size import ResizeInputs, SharedImageSize, resize_batch
from graphscale.training.learning_rate import GrowthLR
from graphscale.training.schedule import BeforeDrop, GrowthSchedule, Plateau
from graphscale.training.stages import Stage, Stages

__all__ = [
    "BeforeDrop",
    "GrowthLR",
    "GrowthSchedule",
    "Plateau",
    "ResizeInputs",
    "SharedImageSize",
    "Stage",
    "Stages",
    "grow_",
    "resize_batch",
]
