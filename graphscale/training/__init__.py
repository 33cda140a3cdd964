"""Growth inside a training loop: in place, by a schedule, and in other libraries' trainers."""

from graphscale.training.grow_in_place import grow_
from graphscale.training.stages import Stage, Stages

__all__ = ["Stage", "Stages", "grow_"]
