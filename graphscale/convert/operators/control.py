"""Translation of If, where its condition is known before the network runs."""

from __future__ import annotations

from graphscale.convert.operators.registry import translates


@translates("If", numbers=(0,))
def _if(node, condition):
    condition = condition[0] if isinstance(condition, list) else condition
    return node.branch("then_branch" if condition else "else_branch")
