"""Growth inside a training loop: in place, by a schedule, and in other libraries' trainers."""

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
