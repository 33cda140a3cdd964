"""Give new values or nodes names that nothing else in the model has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir


class FreeNames:
    """The names that are taken.

    Making this costs one walk through the model, each new name a constant time.
    """

    def __init__(self, taken: Iterable[str | None]) -> None:
        self._taken = {name for name in taken if name}
        self._last: dict[str, int] = {}  # the number that was appended last to a name

    @classmethod
    def for_values(cls, model: ir.Model) -> FreeNames:
        """The names of all values of `model`, those inside branches and loops included."""
        return cls(_value_names(model))

    def free(self, name: str) -> str:
        """Take and return `name`, or the next free one of 'name.2', 'name.3' …"""
        chosen, number = name, self._last.get(name, 1)
        while chosen in self._taken:
            number += 1
            chosen = f"{name}.{number}"
        self._last[name] = number
        self._taken.add(chosen)
        return chosen

    def hand_over(self, value: ir.Value, suffix: str) -> str:
        """Rename `value` by appending `suffix`; returns its old name for another value to bear."""
        name = value.name
        value.name = self.free(f"{name}{suffix}")
        return name


def _value_names(model: ir.Model) -> Iterator[str | None]:
    """The names of all values, graph by graph."""
    pending = [model.graph]  # rather than recursion, which deep nests would exhaust
    while pending:
        graph = pending.pop()
        yield from (value.name for value in graph.inputs)
        yield from graph.initializers
        for node in graph:
            yield from (value.name for value in node.outputs)
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                    pending.append(attribute.as_graph())
                elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
                    pending.extend(attribute.as_graphs())
