"""Translations of element-wise arithmetic, comparisons and logic, with ONNX's broadcasting."""

from __future__ import annotations

import functools

import torch

from graphscale.convert.operators.registry import translates


def _operands(node, a, b):
    """The operands for torch: one-element constants as Python numbers, shapes that broadcast.

    Before opset 7, attribute `axis` is the axis of a with which the first axis of b is aligned.
    """
    if node.opset < 7 and node.attribute("broadcast", 0) and b.ndim < a.ndim:
        axis = node.attribute("axis", a.ndim - b.ndim)
        b = b.reshape((*b.shape, *[1] * (a.ndim - axis - b.ndim)))
    return _scalar(a, b), _scalar(b, a)


def _scalar(x, other):
    """A constant of one element as a Python number, unless the result would lose axes by that."""
    constant = isinstance(x, torch.Tensor) and not isinstance(other, torch.Tensor)
    return x.item() if constant and x.numel() == 1 and x.ndim <= other.ndim else x


def _binary(name, function, **slots):
    translates(name, **slots)(lambda node, a, b: function(*_operands(node, a, b)))


_binary("Add", lambda a, b: a + b, terms=(0, 1))
_binary("Mul", lambda a, b: a * b, terms=(0, 1))
_binary("Sub", lambda a, b: a - b)
_binary("Equal", lambda a, b: a == b)
_binary("Greater", lambda a, b: a > b)
_binary("Less", lambda a, b: a < b)
_binary("GreaterOrEqual", lambda a, b: a >= b)
_binary("LessOrEqual", lambda a, b: a <= b)
translates("And")(lambda node, a, b: torch.logical_and(a, b))
translates("Or")(lambda node, a, b: torch.logical_or(a, b))
translates("Xor")(lambda node, a, b: torch.logical_xor(a, b))
translates("Not")(lambda node, x: torch.logical_not(x))
translates("Where")(lambda node, condition, a, b: torch.where(condition, a, b))


@translates("Div")
def _div(node, a, b):
    whole = not (a.is_floating_point() or b.is_floating_point())
    a, b = _operands(node, a, b)
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


@translates("Mod")
def _mod(node, a, b):
    return torch.fmod(a, b) if node.attribute("fmod", 0) else torch.remainder(a, b)


@translates("Pow")
def _pow(node, base, exponent):
    whole = not base.is_floating_point() and exponent.is_floating_point()
    a, b = _operands(node, base, exponent)
    if isinstance(b, float) and b.is_integer():
        b = int(b)
    result = torch.pow(a, b)
    return result.to(base.dtype) if whole else result


def _variadic(name, combine):
    """Register an operator that combines any number of inputs, two at a time."""

    def function(node, *inputs):
        return functools.reduce(lambda a, b: combine(*_operands(node, a, b)), inputs)

    translates(name)(function)


def _extreme(function, clamp):
    """`function` of two tensors; torch.clamp where one of them is a Python number."""

    def combine(a, b):
        if not hasattr(a, "ndim"):
            a, b = b, a
        return function(a, b) if hasattr(b, "ndim") else torch.clamp(a, **{clamp: b})

    return combine


_variadic("Sum", lambda a, b: a + b)
_variadic("Max", _extreme(torch.maximum, "min"))
_variadic("Min", _extreme(torch.minimum, "max"))
translates("Mean")(lambda node, *xs: functools.reduce(lambda a, b: a + b, xs) / len(xs))

translates("Neg")(lambda node, x: -x)
translates("Abs")(lambda node, x: torch.abs(x))
translates("Sign")(lambda node, x: torch.sign(x))
translates("Floor")(lambda node, x: torch.floor(x))
translates("Ceil")(lambda node, x: torch.ceil(x))
translates("Round")(lambda node, x: torch.round(x))
translates("Exp")(lambda node, x: torch.exp(x))
translates("Log")(lambda node, x: torch.log(x))
translates("Sqrt")(lambda node, x: torch.sqrt(x))
translates("Reciprocal")(lambda node, x: torch.reciprocal(x))
translates("Erf")(lambda node, x: torch.erf(x))
translates("Sin")(lambda node, x: torch.sin(x))
translates("Cos")(lambda node, x: torch.cos(x))
translates("Tan")(lambda node, x: torch.tan(x))
translates("Asin")(lambda node, x: torch.asin(x))
translates("Acos")(lambda node, x: torch.acos(x))
translates("Atan")(lambda node, x: torch.atan(x))
translates("Sinh")(lambda node, x: torch.sinh(x))
translates("Cosh")(lambda node, x: torch.cosh(x))
translates("Asinh")(lambda node, x: torch.asinh(x))
translates("Acosh")(lambda node, x: torch.acosh(x))
translates("Atanh")(lambda node, x: torch.atanh(x))
translates("IsNaN")(lambda node, x: torch.isnan(x))


@translates("IsInf")
def _is_inf(node, x):
    found = torch.isinf(x)
    if not node.attribute("detect_negative", 1):
        found = found & (x > 0)
    return found if node.attribute("detect_positive", 1) else found & (x < 0)


@translates("CumSum", numbers=(1,))
def _cum_sum(node, x, axis):
    axis = axis[0] if isinstance(axis, list) else axis
    backwards, exclusive = node.attribute("reverse", 0), node.attribute("exclusive", 0)
    y = torch.flip(x, (axis,)) if backwards else x
    y = torch.cumsum(y, axis) - y if exclusive else torch.cumsum(y, axis)
    return torch.flip(y, (axis,)) if backwards else y
