"""FFTConv by ONNX's own operators: Conv, and Clip where its outputs have bounds."""

from __future__ import annotations

from graphscale.core.operator_definition import Definition

# ONNX Clip's defaults: no bounds.
MINIMUM, MAXIMUM = -3.4028234663852886e38, 3.4028234663852886e38

FIRST_OPSET_WITH_BOUNDS = 15  # that has CastLike
_CLIP = """
    minimum = Constant <value_float: float = @minimum> ()
    maximum = Constant <value_float: float = @maximum> ()
    low = CastLike (minimum, sums)
    high = CastLike (maximum, sums)
    Y = Clip (sums, low, high)
"""


def _body(opset: int) -> str:
    """The function body; it clips from opset 15 on, and no pass sets bounds in older models."""
    bounded = opset >= FIRST_OPSET_WITH_BOUNDS
    return f"""
    <dilations, kernel_shape, pads, strides, group: int = 1, auto_pad: string = "NOTSET",
     algorithm: string = "auto", minimum: float = {MINIMUM}, maximum: float = {MAXIMUM}>
    (X, W, B) => (Y) {{
        {"sums" if bounded else "Y"} = Conv <
            auto_pad: string = @auto_pad, dilations: ints = @dilations, group: int = @group,
            kernel_shape: ints = @kernel_shape, pads: ints = @pads, strides: ints = @strides
        > (X, W, B)
        {_CLIP if bounded else ""}
    }}
    """


FFT_CONV = Definition(
    "FFTConv",
    _body,
    {
        "group": 1,
        "auto_pad": "NOTSET",
        "algorithm": "auto",
        "minimum": MINIMUM,
        "maximum": MAXIMUM,
    },
)
