"""Find plans in torch checkpoints: state dicts, and the dicts that trainers put them into.

A pre-train module's state dict carries its plan in `_metadata`, where torch keeps the versions of
modules: `torch.save` writes it, and it takes no key of the state dict. In goes what `torch.load`
returned; out come the state dicts in it, with their plans. This file does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

METADATA_KEY = "graphscale.plan"
_MAX_DEPTH = 20  # of mappings in mappings; trainers nest two or three


@dataclass(frozen=True)
class StateDict:
    """A state dict inside a checkpoint.

    Attributes:
        path: The keys that lead to it.
        prefix: The prefix of the names of the pre-train module's weights, such as 'module.'.
        plan: The plan as JSON, or None where there is none.
        values: The state dict itself.
    """

    path: tuple[str, ...]
    prefix: str
    plan: str | None
    values: Mapping


def state_dicts(checkpoint: Mapping) -> Iterator[StateDict]:
    """All state dicts in a checkpoint: the mappings of names to tensors.

    Mappings that hold each other are entered once, and none deeper than `_MAX_DEPTH`.
    """
    yield from _walk(checkpoint, (), set())


def plans(checkpoint: Mapping) -> list[StateDict]:
    """The state dicts in a checkpoint that carry a plan."""
    return [each for each in state_dicts(checkpoint) if each.plan is not None]


def _walk(values: Mapping, path: tuple[str, ...], entered: set[int]) -> Iterator[StateDict]:
    if id(values) in entered or len(path) > _MAX_DEPTH:
        return
    entered.add(id(values))
    found = False
    metadata = getattr(values, "_metadata", None)
    if isinstance(metadata, Mapping):
        for name, local in metadata.items():
            text = local.get(METADATA_KEY) if isinstance(local, Mapping) else None
            if isinstance(text, str):
                found = True
                yield StateDict(path, f"{name}." if name else "", text, values)
    if found:
        return
    if values and all(
        isinstance(key, str) and hasattr(each, "shape") for key, each in _items(values)
    ):
        yield StateDict(path, "", None, values)
        return
    for key, each in _items(values):
        if isinstance(each, Mapping):
            yield from _walk(each, (*path, str(key)), entered)


def _items(values: Mapping) -> list[tuple]:
    return list(values.items())
