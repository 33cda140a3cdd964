"""A communication hook of DistributedDataParallel that sends gradients in one bit per element.

In: buckets of this rank's gradients. Out: the same buckets with the mean over all ranks, after
1-bit quantisation with error feedback (Seide, Fu, Droppo, Li and Yu, '1-bit stochastic gradient
descent', Interspeech 2014). `OneBitState` holds the settings and the residuals; `one_bit_hook` is
the hook.

This file has no `from __future__ import annotations`: torch compares the hook's annotations.
"""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.one_bit_exchange import OneBitExchange, Quantized, quantize
from graphscale.modules.module_state import unwrapped

_MIN_GAIN = 4  # a tensor that would not become this many times smaller is sent as it is


class OneBitState:
    """Settings and residuals of `one_bit_hook`.

    A gradient is taken as a matrix whose rows are the first dimension, the output features of
    torch's layers (the columns of Seide et al.). Of each row the sign bits and two means are sent;
    what they leave out is added to the next gradient. Each rank averages a share of the rows, and
    sends the result in one bit per element as well, with a residual of its own.

    If a row holds NaN or an infinity on any rank, the mean of this row holds some on every rank, so
    that a GradScaler leaves the step out everywhere, and the row's residuals stay. A warning on the
    rank with the faulty gradient names the parameter. A row that is zero sends nothing.

    Args:
        module: The DistributedDataParallel, or the module inside.
        warm_up_steps: Steps with dense gradients at first. One bit needs gradients whose size has
            settled; Seide et al. start with a day of data.
        min_elements: Smaller tensors, vectors and tensors with short rows stay dense.
        process_group: That of the DistributedDataParallel; by default found there.
        grad_scaler: The GradScaler of the training, if it has one: residuals are gradients times
            its scale, and follow it when it changes.

    Attributes:
        step: Number of steps so far in which gradients were exchanged.
        bytes_sent: By this rank to other ranks in the last step.
        not_finite: Names of the parameters whose mean gradient held NaN or an infinity in the last
            step; the same on every rank.

    Example:
        >>> state = OneBitState(ddp, warm_up_steps=500)  # doctest: +SKIP
        >>> ddp.register_comm_hook(state, one_bit_hook)  # doctest: +SKIP
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        warm_up_steps: int = 1000,
        min_elements: int = 4096,
        process_group: dist.ProcessGroup | None = None,
        grad_scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        if warm_up_steps < 0 or min_elements < 0:
            raise GraphScaleError(
                f"OneBitState: warm_up_steps is {warm_up_steps} and min_elements {min_elements}; "
                "give 0 or more"
            )
        if process_group is None and isinstance(module, DistributedDataParallel):
            process_group = module.process_group
        self.module = unwrapped(module)
        self.warm_up_steps = warm_up_steps
        self.min_elements = min_elements
        self.process_group = process_group
        self.grad_scaler = grad_scaler
        self.step = 0
        self.bytes_sent = 0
        self._names: dict[Tensor, str] = {}
        self._residuals: dict[str, Tensor] = {}  # [R, C]: of this rank's gradients
        self._home_residuals: dict[str, Tensor] = {}  # [rows of this home, C]: of the means
        self._scale = 1.0  # of the GradScaler, in the residuals
        self._open: _BucketExchange | None = None
        self._stream: Any = None
        self._flags: list[tuple[str, Tensor, Tensor]] = []
        self._not_finite: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """For copies of the module around; a process group cannot be copied."""
        return {**vars(self), "process_group": None, "_stream": None, "_open": None, "_names": {}}

    @property
    def not_finite(self) -> list[str]:
        """Parameters whose mean gradient held NaN or an infinity in the last step."""
        self._report()
        return self._not_finite

    def is_quantized(self, parameter: Tensor) -> bool:
        """Whether the gradient of `parameter` goes in one bit per element after the warm-up."""
        if parameter.ndim < 2 or parameter.numel() < max(self.min_elements, 1):
            return False
        columns = parameter.numel() // len(parameter)
        # DistributedDataParallel hands out gradients as they lie in memory: in a transposed weight
        # a row's elements are not beside each other. A complex number has no sign.
        if parameter.is_complex() or (len(parameter) > 1 and _strides(parameter)[0] != columns):
            return False
        packed = 4 * -(-columns // 32) + 2 * parameter.element_size()
        return packed * _MIN_GAIN <= columns * parameter.element_size()

    # --- checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """This rank's part of a checkpoint: residuals in their parameters' shapes, and the step.

        Every rank saves its own; a training that goes on with as many ranks is the same bit for
        bit. `gathered_state_dict` makes one checkpoint for all.
        """
        named = dict(self.module.named_parameters())
        return {
            "step": self.step,
            "rank": dist.get_rank(self.process_group),
            "ranks": dist.get_world_size(self.process_group),
            "scale": self._scale,
            "residuals": {n: _logical(r, named[n]) for n, r in self._residuals.items()},
            "home_residuals": {n: _logical(r, named[n]) for n, r in self._home_residuals.items()},
        }

    def gathered_state_dict(self) -> dict[str, Any] | None:
        """The state of all ranks, on rank 0; None on the others. Call it on every rank."""
        rank, ranks = dist.get_rank(self.process_group), dist.get_world_size(self.process_group)
        states: list | None = [None] * ranks if rank == 0 else None
        mine = self.state_dict()
        for key in ("residuals", "home_residuals"):
            mine[key] = {name: tensor.cpu() for name, tensor in mine[key].items()}
        first = dist.get_global_rank(self.process_group or dist.group.WORLD, 0)
        dist.gather_object(mine, states, dst=first, group=self.process_group)
        return None if states is None else {"all_ranks": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` or `gathered_state_dict` returned.

        With another number of ranks, which needs the gathered one, every rank starts with the mean
        of the residuals: what is still to be sent stays the same.

        Raises:
            GraphScaleError: the state is of another network, or of one rank among another number.
        """
        rank, ranks = dist.get_rank(self.process_group), dist.get_world_size(self.process_group)
        if not isinstance(state, Mapping) or not ("residuals" in state or state.get("all_ranks")):
            raise GraphScaleError(
                "OneBitState: this is no state of one-bit gradients; load what state_dict() or "
                "gathered_state_dict() returned, the latter on every rank"
            )
        if "all_ranks" in state:
            every = state["all_ranks"]
            state = every[rank] if len(every) == ranks else _for_ranks(every, rank, ranks)
        if (state["rank"], state["ranks"]) != (rank, ranks):
            raise GraphScaleError(
                f"OneBitState: the state is of rank {state['rank']} of {state['ranks']}, this is "
                f"rank {rank} of {ranks}; save and load gathered_state_dict()"
            )
        named = dict(self.module.named_parameters())
        for name, tensor in state["residuals"].items():
            if name not in named or named[name].shape != tensor.shape:
                raise GraphScaleError(
                    f"OneBitState: the state holds a residual of {list(tensor.shape)} for {name!r},"
                    " which the module does not have; load the checkpoint of this network"
                )
        self.step, self._scale = state["step"], state["scale"]
        self._residuals, self._home_residuals = (
            {name: _raw(tensor, named[name]) for name, tensor in state[key].items()}
            for key in ("residuals", "home_residuals")
        )

    # --- one step ---------------------------------------------------------------------------------

    def exchange(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """Exchange one bucket; what `one_bit_hook` does.

        On a CPU the second half of a bucket's exchange waits for the next bucket, so that the first
        half runs beside the backward pass; collectives stay in one order on all ranks. On a GPU
        both halves are queued on a stream of their own.
        """
        if bucket.index() == 0:
            self._begin()
        buffer = bucket.buffer()
        if buffer.is_cuda:
            if self._stream is None:
                self._stream = torch.cuda.Stream(buffer.device)
            self._stream.wait_stream(torch.cuda.current_stream(buffer.device))
            buffer.record_stream(self._stream)
        with torch.cuda.stream(self._stream) if buffer.is_cuda else contextlib.nullcontext():
            begun = _BucketExchange(self, bucket)
            if self._open is not None:
                self._open.finish()
            self._open = begun
            if buffer.is_cuda or bucket.is_last():
                begun.finish()
                self._open = None
        if bucket.is_last():
            self.step += 1
            if buffer.is_cpu:
                self._report()
        return begun.future

    def _begin(self) -> None:
        """Before a step's first bucket."""
        self._report()
        self._not_finite = []
        self._open = None  # a backward pass that failed may have left one
        self.bytes_sent = 0
        if self.grad_scaler is not None and self.grad_scaler.is_enabled():
            scale = self.grad_scaler.get_scale()
            for residuals in (self._residuals, self._home_residuals):
                for residual in residuals.values():
                    residual.mul_(scale / self._scale)
            self._scale = scale

    def _report(self) -> None:
        """Find out, which waits for a GPU, and say whose gradients were not finite."""
        if not self._flags:
            return
        names = [name for name, _, _ in self._flags]
        own = torch.stack([each for _, each, _ in self._flags]).tolist()
        mean = torch.stack([each for _, _, each in self._flags]).tolist()
        self._flags = []
        self._not_finite = [name for name, finite in zip(names, mean) if not finite]
        faulty = [name for name, finite in zip(names, own) if not finite]
        if faulty:
            more = f" and {len(faulty) - 3} more" if len(faulty) > 3 else ""
            warnings.warn(
                f"step {self.step}: on rank {dist.get_rank(self.process_group)} the gradient of "
                f"{', '.join(map(repr, faulty[:3]))}{more} holds NaN or an infinity; its residual "
                "stays as it was",
                stacklevel=2,
            )

    def _name(self, parameter: Tensor) -> str:
        if parameter not in self._names:
            self._names = {each: name for name, each in self.module.named_parameters()}
        if parameter not in self._names:
            raise GraphScaleError(
                f"OneBitState: a parameter of {list(parameter.shape)} is not one of "
                f"{type(self.module).__name__}; make the state from the module that "
                "DistributedDataParallel wraps"
            )
        return self._names[parameter]


class _BucketExchange:
    """The exchange of one bucket: starts in the constructor, ends in `finish`."""

    def __init__(self, state: OneBitState, bucket: dist.GradBucket) -> None:
        self.state = state
        self.buffer = bucket.buffer()
        device = self.buffer.device
        self.future: torch.futures.Future = torch.futures.Future(
            devices=[device] if device.type == "cuda" else None
        )
        self.ranks = dist.get_world_size(state.process_group)
        names = [state._name(parameter) for parameter in bucket.parameters()]
        gradients = [self.buffer] if self.buffer.is_sparse else bucket.gradients()
        self.dense: list[tuple[str, Tensor]] = []
        self.quantized: list[tuple[str, Tensor]] = []  # with gradients as matrices
        for name, parameter, gradient in zip(names, bucket.parameters(), gradients):
            late = state.step >= state.warm_up_steps and not gradient.is_sparse
            if late and state.is_quantized(parameter):
                self.quantized.append((name, gradient.view(len(parameter), -1)))
            else:
                self.dense.append((name, gradient))
        self._start_dense()
        self._start_quantized()

    def _start_dense(self) -> None:
        self.own = [_is_finite(gradient) for _, gradient in self.dense]
        self.work = None
        if not self.dense:
            return
        if self.quantized:
            self.flat = torch.cat([gradient.reshape(-1) for _, gradient in self.dense])
        else:
            self.flat = self.buffer
        self.flat.div_(self.ranks)
        self.work = dist.all_reduce(self.flat, group=self.state.process_group, async_op=True)
        size = self.flat.numel() * self.flat.element_size()
        self.state.bytes_sent += 2 * (self.ranks - 1) * size // self.ranks

    def _start_quantized(self) -> None:
        if not self.quantized:
            return
        shapes = [tuple(gradient.shape) for _, gradient in self.quantized]
        self.exchange = OneBitExchange(shapes, self.buffer.dtype, self.state.process_group)
        packets, rank = self.exchange.packets, self.exchange.rank
        self.parts: list[Quantized] = []
        self.home_residuals: list[Tensor] = []
        for i, (name, gradient) in enumerate(self.quantized):
            residual = _fitting(self.state._residuals.get(name), gradient)
            self.parts.append(quantize(gradient, residual))
            self.state._residuals[name] = residual
            rows = gradient[packets.own(i, rank)]
            self.home_residuals.append(_fitting(self.state._home_residuals.get(name), rows))
        self.exchange.send(self.parts)
        self.state.bytes_sent += self.exchange.bytes_sent

    def finish(self) -> None:
        """Write the means into the bucket, and complete its future."""
        if self.quantized:
            gradients = [gradient for _, gradient in self.quantized]
            results = self.exchange.finish(self.home_residuals, results=gradients)
            for i, (name, _) in enumerate(self.quantized):
                _, finite = results[i]
                residuals = self.state._residuals
                residuals[name] = self.parts[i].residual(residuals[name], finite)
                self.state._home_residuals[name] = self.home_residuals[i]
                own = torch.isfinite(self.parts[i].scales).all()
                self.state._flags.append((name, own, finite.all()))
        if self.work is not None:
            self.work.wait()
            if self.quantized:
                sizes = [gradient.numel() for _, gradient in self.dense]
                for (_, gradient), mean in zip(self.dense, self.flat.split(sizes)):
                    gradient.copy_(mean.view_as(gradient))
            for (name, gradient), own in zip(self.dense, self.own):
                self.state._flags.append((name, own, _is_finite(gradient)))
        self.future.set_result(self.buffer)


def one_bit_hook(state: OneBitState, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket of gradients with one bit per element on the wire, both ways.

    For DistributedDataParallel.register_comm_hook, as torch's powerSGD_hook. With N ranks a rank
    sends 2 (N - 1) / N times 1/32 of the bytes of the large tensors, and their rows' means. Works
    with no_sync, join, unused parameters, gradient_as_bucket_view and torch.autocast. Gradients of
    float32, float64, float16 and bfloat16; sparse ones are sent as they are.

    Example:
        >>> ddp.register_comm_hook(OneBitState(ddp), one_bit_hook)  # doctest: +SKIP
    """
    return state.exchange(bucket)


def _is_finite(gradient: Tensor) -> Tensor:
    values = gradient._values() if gradient.is_sparse else gradient
    if not values.numel():
        return torch.ones((), dtype=torch.bool, device=values.device)
    if values.is_complex():
        values = torch.view_as_real(values)
    low, high = values.aminmax()  # both are NaN if an element is; faster than to ask each element
    return torch.isfinite(low) & torch.isfinite(high)


def _fitting(residual: Tensor | None, gradient: Tensor) -> Tensor:
    """The residual for a gradient; zeros at first, and after the parameter has grown."""
    if residual is None or residual.shape != gradient.shape:
        return torch.zeros_like(gradient)
    return residual.to(gradient.device, gradient.dtype)


def _strides(parameter: Tensor) -> tuple[int, ...]:
    """Those of the parameter's gradient in a bucket, which keeps any order of the dimensions."""
    dense = torch.empty_like(parameter, device="meta")
    if dense.stride() == parameter.stride():
        return dense.stride()
    return torch.empty(parameter.shape, device="meta").stride()


def _logical(rows: Tensor, parameter: Tensor) -> Tensor:
    """Rows [R, C], which lie as the parameter does in memory, in the parameter's dimensions."""
    shape = (len(rows), *parameter.shape[1:])
    return rows.as_strided(shape, _strides(parameter)).clone(memory_format=torch.contiguous_format)


def _raw(saved: Tensor, parameter: Tensor) -> Tensor:
    """The inverse of `_logical`, on the parameter's device."""
    columns = parameter.numel() // len(parameter)
    rows = torch.empty(len(saved), columns, dtype=saved.dtype, device=parameter.device)
    rows.as_strided(saved.shape, _strides(parameter)).copy_(saved)
    return rows


def _for_ranks(every: list[dict[str, Any]], rank: int, ranks: int) -> dict[str, Any]:
    """The state of `rank` among another number of ranks."""
    residuals, homes = {}, {}
    for name in every[0]["residuals"]:
        residuals[name] = torch.stack([each["residuals"][name] for each in every]).mean(0)
        rows = torch.cat([each["home_residuals"][name] for each in every])
        count = -(-len(rows) // ranks)
        homes[name] = rows[rank * count : (rank + 1) * count]
    return {
        **every[0],
        "rank": rank,
        "ranks": ranks,
        "residuals": residuals,
        "home_residuals": homes,
    }
