"""Parse the input sizes that a user gives, and derive the shapes of a model's inputs from them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from graphscale.core.arguments import whole_numbers
from graphscale.core.errors import GraphScaleError
from graphscale.passes.graph.graph_inputs import graph_inputs
from graphscale.passes.spatial.image_positions import spatial_positions


@dataclass(frozen=True)
class InputSize:
    """Heights and widths of the input in the target and in the pre-train network.

    None stands for sizes that are not given; one number stands for all axes.
    """

    target: tuple[int, ...] | None = None
    pretrain: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, given: str | int | tuple[int, ...] | InputSize | None, fixed: bool) -> InputSize:
        """'160', '160x128', or 'target:pretrain' as in '224:160'.

        One size is the pre-train network's where the model's own size is fixed, else the target's.

        Raises:
            GraphScaleError: `given` has another form.
        """
        if given is None or isinstance(given, InputSize):
            return given or cls()
        if not isinstance(given, str):
            wanted = "160, (160, 128), '160x128' or '224:160'"
            sizes = [whole_numbers("input_size", given, wanted)]
        else:
            if not re.fullmatch(r"\d{1,9}(x\d{1,9})*(:\d{1,9}(x\d{1,9})*)?", given):
                raise GraphScaleError(
                    f"input size {given!r} is not HEIGHTxWIDTH or TARGET:PRETRAIN, "
                    "as in 160, 160x128 or 224:160"
                )
            sizes = [tuple(map(int, part.split("x"))) for part in given.split(":")]
            if any(size < 1 for part in sizes for size in part):
                raise GraphScaleError(f"input size {given!r}: give sizes of at least one pixel")
        if len(sizes) == 2:
            return cls(*sizes)
        return cls(pretrain=sizes[0]) if fixed else cls(target=sizes[0])


# What users give: '160', '160x128', '224:160', a number, numbers, or an InputSize.
Size = str | int | tuple[int, ...] | InputSize | None


def axis_size(sizes: tuple[int, ...], axis: int) -> int:
    """The size for one axis; a single number stands for all."""
    return sizes[axis] if axis < len(sizes) else sizes[-1]


def has_fixed_size(model: ir.Model) -> bool:
    """Whether every height and width of the inputs is a number."""
    return all(
        isinstance(value.shape[position], int)
        for value in graph_inputs(model)
        if value.shape is not None
        for position in spatial_positions(value, len(value.shape))
    )


def input_shapes(model: ir.Model, size: InputSize, batch: int = 1) -> dict[str, list[int]]:
    """Concrete target shapes of all graph inputs; a symbolic batch becomes `batch`.

    `size` is the size of the images, which are the inputs with the most spatial dimensions. Other
    inputs, such as the first state of a recurrent layer, have the sizes that the model declares.

    Raises:
        GraphScaleError: a height or width is symbolic and `size` does not give it.
    """
    inputs = graph_inputs(model)
    for value in inputs:
        if value.shape is None:
            raise GraphScaleError(f"input {value.name!r} has no shape; export the model with one")
    positions = {value: list(spatial_positions(value, len(value.shape))) for value in inputs}
    most = max(map(len, positions.values()), default=0)
    # The name of the batch, which stands second in the state of a recurrent layer.
    first = [value.shape[0] for value in inputs if len(value.shape)]
    batches = {dim.value for dim in first if isinstance(dim, ir.SymbolicDim)} - {None}
    shapes = {}
    for value, spatial in positions.items():
        image = len(spatial) == most
        for sizes in (size.target, size.pretrain):
            if image and spatial and sizes is not None and len(sizes) not in (1, len(spatial)):
                raise GraphScaleError(
                    f"input size {'x'.join(map(str, sizes))} has {len(sizes)} numbers, but input "
                    f"{value.name!r} has {len(spatial)} spatial dimensions; "
                    "give one number for each"
                )
        shape = []
        for position, given in enumerate(value.shape):
            sized = image or not isinstance(given, int)
            if position in spatial and size.target is not None and sized:
                wanted = axis_size(size.target, spatial.index(position))
                if isinstance(given, int) and given != wanted:
                    raise GraphScaleError(
                        f"input {value.name!r} has the fixed size {given} and cannot be {wanted}; "
                        "leave --input-size out, or, to shrink, give the pre-train size alone"
                    )
                given = wanted
            if isinstance(given, int) and given > 0:
                shape.append(given)
            elif position in spatial:
                raise GraphScaleError(
                    f"input {value.name!r} has the symbolic height or width {str(given)!r}; "
                    "give it with --input-size, as in --input-size 224"
                )
            elif position == 0 or (isinstance(given, ir.SymbolicDim) and given.value in batches):
                shape.append(batch)
            else:
                raise GraphScaleError(
                    f"input {value.name!r} has the symbolic dimension {str(given)!r} at place "
                    f"{position}, which is neither batch, height nor width; export it as a number"
                )
        shapes[value.name] = shape
    return shapes
