"""`OneBitSGD`: SGD whose gradients go to a home rank, and whose steps come back, in one bit each.

In: on each rank the gradients of its own images, not yet averaged. Out: the same parameters on
every rank. This is the optimizer of fbcunn's OneBitDataParallel: AdaGrad and momentum run at home,
on the averaged gradient, and what is sent to all ranks is the step itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.one_bit_exchange import OneBitExchange, quantize
from graphscale.distributed.require_process_group import require_process_group


class OneBitSGD(Optimizer):
    """AdaGrad and momentum at each parameter's home, with one bit per element both ways.

    A gradient with at least two dimensions and more than ``min_elements`` elements is quantised on
    every rank, with this rank's residual, and sent; the home of a row averages it, divides it by
    the root of the sum of all its squares so far (AdaGrad), adds momentum (h <- momentum h + g),
    quantises the step with a residual of its own and sends it to all ranks. Other gradients are
    averaged densely, and every rank computes their step.

    A row that holds NaN or an infinity on a rank is left out of the step on every rank and changes
    no state; a warning names its parameter. A small gradient counts as one row.

    Args:
        params: As for every torch optimizer; the gradients are not averaged by anything else.
        lr: Learning rate.
        momentum: 0 for none.
        min_elements: Smaller gradients stay dense (20 in fbcunn).
        process_group: The ranks that train together; by default all.

    A GradScaler calls this optimizer on every rank, whatever it finds in the rank's own gradients.

    The state of a parameter, which `state_dict` holds, is this rank's: each rank saves its own.

    Raises:
        GraphScaleError: there is no process group, or a number is out of range.

    Example:
        >>> optimizer = OneBitSGD(network.parameters(), lr=0.1, momentum=0.9)  # doctest: +SKIP
    """

    # GradScaler would leave out the step on a rank with an infinity, and the others would wait.
    # Instead it sets `grad_scale` for the time of a step, and the row is left out everywhere.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        momentum: float = 0.0,
        min_elements: int = 20,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        require_process_group("OneBitSGD")
        if lr < 0 or not 0 <= momentum < 1 or min_elements < 0:
            raise GraphScaleError(
                f"OneBitSGD: lr is {lr}, momentum {momentum} and min_elements {min_elements}; give "
                "0 or more, and less than 1 for momentum"
            )
        self.process_group = process_group
        self._faults: list[tuple[Tensor, Tensor]] = []
        super().__init__(params, {"lr": lr, "momentum": momentum, "min_elements": min_elements})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Exchange the gradients and change the parameters; call it on every rank.

        A parameter without a gradient on this rank counts as one with zeros, because the others
        may have one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learned = [each for each in group["params"] if each.requires_grad]
            large = [p for p in learned if p.ndim > 1 and p.numel() > group["min_elements"]]
            small = [p for p in learned if p.ndim < 2 or p.numel() <= group["min_elements"]]
            for dtype in sorted({p.dtype for p in large}, key=str):
                self._step_quantized([p for p in large if p.dtype == dtype], group)
            for parameter in small:
                self._step_dense(parameter, group)
        self._report()
        return loss

    def _step_quantized(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        matrices = [self._gradient(parameter).flatten(1) for parameter in parameters]
        shapes = [tuple(each.shape) for each in matrices]
        exchange = OneBitExchange(shapes, matrices[0].dtype, self.process_group)
        states = [self.state[parameter] for parameter in parameters]
        for i, (state, gradient) in enumerate(zip(states, matrices)):
            rows = gradient[exchange.packets.own(i, exchange.rank)]
            if "residual" not in state or state["residual"].shape != gradient.shape:
                state["residual"] = torch.zeros_like(gradient)
                for key in ("home_residual", "sum", "momentum_buffer"):
                    state[key] = torch.zeros_like(rows)
        parts = [quantize(g, state["residual"]) for g, state in zip(matrices, states)]
        exchange.send(parts)
        homes = [state["home_residual"] for state in states]
        results = exchange.finish(homes, lambda i, mean: _adagrad(states[i], mean, group))
        for i, (parameter, state) in enumerate(zip(parameters, states)):
            step, finite = results[i]
            state["residual"] = parts[i].residual(state["residual"], finite)
            state["home_residual"] = homes[i]
            step = torch.where(finite[:, None], step, torch.zeros_like(step))
            parameter.sub_(step.view(parameter.shape))
            self._faults.append((parameter, finite.all()))

    def _step_dense(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        mean = self._gradient(parameter).reshape(1, -1)
        mean = mean / dist.get_world_size(self.process_group)
        dist.all_reduce(mean, group=self.process_group)
        if "sum" not in state or state["sum"].shape != mean.shape:
            state["sum"] = torch.zeros_like(mean)
            state["momentum_buffer"] = torch.zeros_like(mean)
        step = _adagrad(state, mean, group)
        finite = torch.isfinite(step).all()
        parameter.sub_(torch.where(finite, step, torch.zeros_like(step)).view(parameter.shape))
        self._faults.append((parameter, finite))

    def _gradient(self, parameter: Tensor) -> Tensor:
        """This rank's gradient, dense and without a GradScaler's scale."""
        gradient = parameter.grad
        if gradient is None:
            return torch.zeros_like(parameter)
        if gradient.is_sparse:
            gradient = gradient.to_dense()
        scale = getattr(self, "grad_scale", None)
        return gradient if scale is None else gradient / scale.to(gradient.device)

    def _report(self) -> None:
        """Warn of the parameters whose gradients were not finite on some rank."""
        faults, self._faults = self._faults, []
        if not faults:
            return
        finite = torch.stack([each for _, each in faults]).tolist()  # waits for a GPU once
        faulty = [parameter for (parameter, _), fine in zip(faults, finite) if not fine]
        if faulty:
            names = [self._name(parameter) for parameter in faulty[:3]]
            more = f" and {len(faulty) - 3} more" if len(faulty) > 3 else ""
            warnings.warn(
                f"OneBitSGD: the gradient of {', '.join(names)}{more} holds NaN or an infinity on "
                "a rank; the step leaves out these rows",
                stacklevel=3,
            )

    def _name(self, parameter: Tensor) -> str:
        for number, group in enumerate(self.param_groups):
            for place, each in enumerate(group["params"]):
                if each is parameter:
                    if "param_names" in group:
                        return repr(group["param_names"][place])
                    shape = list(parameter.shape)
                    return f"parameter {place} of group {number}, of shape {shape},"
        raise AssertionError("a parameter of this optimizer")


def _adagrad(state: dict[str, Tensor], mean: Tensor, group: dict[str, Any]) -> Tensor:
    """The step for a mean gradient [rows, C]; changes AdaGrad's sum and the momentum in `state`.

    A row that is not finite, or whose squares are not, changes neither; its step is not finite.
    """
    total = state["sum"] + mean.square()
    finite = torch.isfinite(total).all(1, keepdim=True)  # the square of a finite number may not be
    # Where all gradients so far were zero, so is this one: 0 / 0 stands for no step.
    scaled = torch.where(total > 0, mean * (group["lr"] / total.sqrt()), torch.zeros_like(mean))
    step = group["momentum"] * state["momentum_buffer"] + scaled
    state["sum"] = torch.where(finite, total, state["sum"])
    state["momentum_buffer"] = torch.where(finite, step, state["momentum_buffer"])
    return torch.where(finite, step, torch.full_like(step, float("nan")))
