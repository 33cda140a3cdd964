"""Attach a plan to a pre-train module, such that its state dict holds the plan, too.

The module has the plan as the attribute `graphscale_plan`. A state-dict hook puts it into the state
dict's `_metadata`, where torch keeps version numbers: that adds no key, `torch.save` writes it, and
`torch.load(weights_only=True)` reads it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from graphscale.core.plan import Plan
from graphscale.core.state_dicts import METADATA_KEY

ATTRIBUTE = "graphscale_plan"


def attach_plan(module: nn.Module, plan: Plan) -> None:
    """Give `module` the plan `plan`; one that it has already is replaced."""
    detach_plan(module)
    module.__dict__[ATTRIBUTE] = plan
    module.register_state_dict_post_hook(_write_plan)


def detach_plan(module: nn.Module) -> None:
    """Remove the plan from a module that is no longer a pre-train network."""
    module.__dict__.pop(ATTRIBUTE, None)
    hooks = module._state_dict_hooks
    for key in [key for key, hook in hooks.items() if hook is _write_plan]:
        del hooks[key]


def _write_plan(module: nn.Module, state_dict: dict, prefix: str, metadata: dict[str, Any]) -> None:
    """State-dict hook; a function of the file, no closure, so that pickle can store it."""
    plan = getattr(module, ATTRIBUTE, None)
    if plan is not None:
        metadata[METADATA_KEY] = plan.to_json()
