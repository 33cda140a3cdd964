"""`PipelineParallel`: the layers of a Sequential split over ranks by stage.

In: a Sequential, the same on every rank, and a loss. Out: each rank with the layers of one stage.
torch.distributed.pipelining cuts a batch into microbatches, which go from stage to stage, so that
the stages compute at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.collectives import copy_from_first
from graphscale.distributed.require_process_group import require_process_group
from graphscale.modules.module_state import copy_module, device_of, tensors_of

_SCHEDULES = {"1f1b": Schedule1F1B, "gpipe": ScheduleGPipe}


class PipelineParallel(nn.Module):
    """A Sequential whose layers are split over ranks by stage (fbcunn ModelParallel by layers).

    Every rank calls it with the same batch. `step` computes the loss and the gradients of one
    process with the whole batch; the optimizer gets the parameters of this rank's stage.

    Args:
        module: Its children are the layers; the weights of the first rank count. With BatchNorm,
            each microbatch is normalised by itself.
        loss: Gives the mean loss of (outputs [N, ...], target [N, ...]); `step` needs it.
        microbatches: Parts of a batch, of which the batch size is a multiple; by default one for
            each rank. More of them keep the ranks busier.
        layers: Number of layers of each stage; by default each stage has about as many weights as
            the others.
        schedule: '1f1b' (one forward pass, one backward pass, which holds few outputs) or 'gpipe'.
        mesh: A one-dimensional DeviceMesh with a rank for each stage; by default all ranks.
        data_mesh: For a mesh of two dimensions, the ranks with the same stage and other images;
            gradients and losses are averaged over them.

    Attributes:
        module: The layers of this rank's stage, under their names in the whole module.

    Raises:
        GraphScaleError: there is no process group, the module is no Sequential, it has fewer layers
            than there are ranks, two stages would share a weight, or `layers` does not fit.

    Example:
        >>> module = PipelineParallel(layers, nn.CrossEntropyLoss(), microbatches=8)
        ... # doctest: +SKIP
        >>> loss = module.step(images, labels)  # doctest: +SKIP
    """

    def __init__(
        self,
        module: nn.Sequential,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        microbatches: int | None = None,
        layers: Sequence[int] | None = None,
        schedule: str = "1f1b",
        mesh: DeviceMesh | None = None,
        data_mesh: DeviceMesh | None = None,
    ) -> None:
        super().__init__()
        require_process_group("PipelineParallel")
        if not isinstance(module, nn.Sequential):
            raise GraphScaleError(
                f"PipelineParallel: {type(module).__name__} is no Sequential; give the layers in "
                "one, in their order"
            )
        if schedule not in _SCHEDULES:
            raise GraphScaleError(
                f"PipelineParallel: unknown schedule {schedule!r}; use {' or '.join(_SCHEDULES)}"
            )
        self.group = dist.group.WORLD if mesh is None else mesh.get_group()
        self._data_group = None if data_mesh is None else data_mesh.get_group()
        self.rank, self.stages = dist.get_rank(self.group), dist.get_world_size(self.group)
        self.microbatches = self.stages if microbatches is None else microbatches
        if self.microbatches < self.stages:
            raise GraphScaleError(
                f"PipelineParallel: {self.microbatches} microbatches leave some of {self.stages} "
                "ranks without work; give as many as ranks, or more"
            )
        groups = [self.group] + ([] if data_mesh is None else [self._data_group])
        copy_from_first(module, groups, "PipelineParallel")
        ends = _ends(module, self.stages, layers)
        self._device = device_of(module)
        # The whole network without memory, which tells the shapes between the stages.
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        memo = {id(each): self._fake.from_tensor(each) for each in tensors_of(module).values()}
        self._shapes_of = list(copy_module(module, memo).train()), ends
        names = list(module._modules)
        begin = ends[self.rank - 1] if self.rank else 0
        self.module = nn.Sequential()
        for name in names[begin : ends[self.rank]]:
            self.module.add_module(name, module._modules[name])
        self.loss = loss
        self._kind = _SCHEDULES[schedule]
        self._prepared: dict[tuple, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        """The whole module's outputs [N, ...] of x [N, ...], on every rank, without a gradient."""
        with torch.no_grad():
            schedule, shape, dtype = self._schedule(x, 1, backward=False)
            y = self._run(schedule, x)
            if y is None:
                y = torch.empty(shape, dtype=dtype, device=self._device)
            y = y.contiguous()
            dist.broadcast(y, dist.get_global_rank(self.group, self.stages - 1), group=self.group)
        return y

    def step(self, x: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch x [N, ...], target [N, ...], the same on every rank, and gradients.

        Adds the gradients to those that the parameters have, as Tensor.backward does.

        Raises:
            GraphScaleError: there is no loss, or N is no multiple of the number of microbatches.
        """
        if self.loss is None:
            raise GraphScaleError("PipelineParallel: step needs a loss; give one as `loss`")
        if not len(x) or len(x) % self.microbatches:
            raise GraphScaleError(
                f"PipelineParallel: a batch of {len(x)} cannot be cut into {self.microbatches} "
                "equal microbatches; give a multiple"
            )
        if len(target) != len(x):
            raise GraphScaleError(
                f"PipelineParallel: the target has length {len(target)} and the batch {len(x)}; "
                "give a target for each image"
            )
        schedule, _, _ = self._schedule(x, self.microbatches, backward=True)
        # The schedule divides what it finds in the gradients by the number of microbatches.
        before = [(each, each.grad) for each in self.module.parameters()]
        for parameter, _ in before:
            parameter.grad = None
        losses: list[Tensor] = []
        last = self.rank == self.stages - 1
        self._run(schedule, x, **({"target": target, "losses": losses} if last else {}))
        for parameter, gradient in before:
            if parameter.grad is not None and self._data_group is not None:
                parameter.grad.div_(dist.get_world_size(self._data_group))
                dist.all_reduce(parameter.grad, group=self._data_group)
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient + parameter.grad
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        if last:
            loss += torch.stack(losses).detach().mean()
        dist.broadcast(loss, dist.get_global_rank(self.group, self.stages - 1), group=self.group)
        if self._data_group is not None:
            loss /= dist.get_world_size(self._data_group)
            dist.all_reduce(loss, group=self._data_group)
        return loss

    def _run(self, schedule: Any, x: Tensor, **options: Any) -> Tensor | None:
        return schedule.step(*((x,) if self.rank == 0 else ()), **options)

    def _schedule(
        self, x: Tensor, microbatches: int, backward: bool
    ) -> tuple[Any, torch.Size, torch.dtype]:
        """The schedule for batches of this shape, and shape and dtype of the whole outputs."""
        kind = self._device.type
        narrow = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
        key = (x.shape, x.dtype, microbatches, backward, narrow)
        if key not in self._prepared:
            # With given shapes torch does not run the layers to find them, which would change
            # BatchNorm's statistics.
            part = (len(x) // microbatches, *x.shape[1:])
            between, changes = self._shapes(part, x.dtype, backward)
            layers = _Stage(self.module, copies=changes[self.rank])
            stage = PipelineStage(
                *(layers, self.rank, self.stages, self._device),
                input_args=between[self.rank],
                output_args=between[self.rank + 1],
                group=self.group,
            )
            order = self._kind if backward else ScheduleGPipe
            schedule = order(stage, microbatches, loss_fn=self.loss if backward else None)
            outputs = between[-1]
            shape = torch.Size((len(x), *outputs.shape[1:]))
            self._prepared[key] = schedule, shape, outputs.dtype
        return self._prepared[key]

    def _shapes(
        self, shape: tuple, dtype: torch.dtype, backward: bool
    ) -> tuple[list[Tensor], list[bool]]:
        """A tensor without memory before each stage, and one after the last.

        Also, for each stage, whether its layers change their input in place.
        """
        layers, ends = self._shapes_of
        found, changes = [torch.empty(shape, dtype=dtype, device="meta")], []
        with self._fake, torch.enable_grad():
            y = torch.empty(shape, dtype=dtype, device=self._device)
            entered, version = y, y._version
            for number, layer in enumerate(layers, 1):
                y = layer(y)
                if number in ends:
                    y = y.contiguous()
                    like = torch.empty(y.shape, dtype=y.dtype, device="meta")
                    found.append(like.requires_grad_(backward))
                    changes.append(entered._version != version)
                    entered, version = y, y._version
        return found, changes


class _Stage(nn.Module):
    """The layers of a stage, between tensors that can be sent: these are contiguous.

    Args:
        layers: The layers.
        copies: Whether they get a copy of what was received. They need one if they change their
            input in place, since autograd does not let them change where a gradient is wanted.
    """

    def __init__(self, layers: nn.Sequential, copies: bool) -> None:
        super().__init__()
        self.layers, self.copies = layers, copies

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.clone() if self.copies else x).contiguous()


def _ends(module: nn.Sequential, stages: int, layers: Sequence[int] | None) -> list[int]:
    """The number of layers before the end of each stage."""
    children = list(module)
    if len(children) < stages:
        raise GraphScaleError(
            f"PipelineParallel: {len(children)} layers cannot be split over {stages} ranks; give a "
            "Sequential with a layer per rank, or more"
        )
    if layers is None:
        ends = _even_ends([sum(p.numel() for p in each.parameters()) for each in children], stages)
    elif len(layers) != stages or min(layers) < 1 or sum(layers) != len(children):
        raise GraphScaleError(
            f"PipelineParallel: layers {list(layers)} do not share {len(children)} layers among "
            f"{stages} ranks; give one number of at least 1 for each rank"
        )
    else:
        ends = [sum(layers[: count + 1]) for count in range(stages)]
    owner: dict[Tensor, int] = {}
    for number, child in enumerate(children):
        stage = sum(number >= end for end in ends)
        for name, parameter in child.named_parameters():
            if owner.setdefault(parameter, stage) != stage:
                raise GraphScaleError(
                    f"PipelineParallel: {name} of layer {number} is also a weight of another "
                    "stage; put both layers into one stage by `layers`"
                )
    return ends


def _even_ends(weights: Sequence[int], stages: int) -> list[int]:
    """Ends of stages whose sums of weights are about equal; every stage has a layer.

    None is without weights, which an optimizer refuses, unless too few layers have any.
    """
    total, done, ends = sum(weights), 0, []
    for number, weight in enumerate(weights, 1):
        done += weight
        left = stages - len(ends) - 1  # stages after this one
        enough = done * stages >= total * (len(ends) + 1)
        needed = sum(each > 0 for each in weights[number:]) <= left  # a weight for each of them
        has_weights = any(weights[ends[-1] if ends else 0 : number])
        due = has_weights and (enough or needed)
        if left and (due or len(weights) - number == left):
            ends.append(number)
    return [*ends, len(weights)]
