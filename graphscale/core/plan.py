"""The plan: everything that shrink decided about a network.

`shrink` makes it, the pre-train model carries it in its metadata as JSON, and `grow` follows it
back to the target network. Here are its parts, as dataclasses, and their way to JSON and back;
reading checks every field, because a plan may come from anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir

from graphscale.core.arguments import file_path, instance
from graphscale.core.errors import GraphScaleError
from graphscale.core.files import check_regular, replacing
from graphscale.core.json_fields import JsonError, JsonObject, entries, integer, size
from graphscale.core.log_offsets import KINDS as LOG_KINDS
from graphscale.core.lookups import KINDS as LOOKUP_KINDS
from graphscale.core.shifted_windows import KIND as SHIFTED_WINDOWS
from graphscale.core.state_dicts import METADATA_KEY, plans

FORMAT = 3  # of the JSON; a plan of any other format is refused
# Tables of coordinates, whose numbers lie on a line along each axis; see WeightPlan.
COORDINATE_KINDS = ("pixels", "centres")
# Tables whose numbers follow from the sizes alone; nothing trains them.
DERIVED_KINDS = (*LOOKUP_KINDS, *LOG_KINDS, SHIFTED_WINDOWS)
WEIGHT_KINDS = ("kernel", "interface", "table", *COORDINATE_KINDS, *DERIVED_KINDS)
INITIALIZATIONS = ("resize", "fresh", "")  # see Plan.init


@dataclass
class InputPlan:
    """The shapes of a graph input in both networks; symbolic dimensions are names.

    Attributes:
        shape: The target's, in numbers only, as the plan was made for it: one image, and the
            heights and widths that --input-size gave.
        spatial: Positions of the heights and widths in these shapes; empty for an input that is no
            image.
    """

    name: str
    target: list[int | str]
    pretrain: list[int | str]
    shape: list[int]
    spatial: list[int]


@dataclass
class LayerPlan:
    """One layer with weights, in both networks.

    Attributes:
        name, op: The node and its operator; `weight` is the initializer's name.
        target_kernel, pretrain_kernel: Taps per spatial axis; empty for a fully-connected layer.
        target_size, pretrain_size: Height and width of the output.
        target_multiplications, pretrain_multiplications: For one image (Eq. 3, with stride,
            padding and groups).
        left_unscaled: Why the kernel stays as it is, or None.
    """

    name: str
    weight: str
    op: str
    target_kernel: list[int]
    pretrain_kernel: list[int]
    target_size: list[int]
    pretrain_size: list[int]
    target_multiplications: int
    pretrain_multiplications: int
    left_unscaled: str | None = None


@dataclass(frozen=True)
class JoinedFactor:
    """A factor made of several dimensions that lie one after the other, as Concat joins them.

    Attributes:
        parts: The factors of each joined dimension.
    """

    parts: list[list[Factor]]


# (target size, pre-train size), or dimensions joined by Concat.
Factor = tuple[int, int] | JoinedFactor


def factor_sizes(factor: Factor) -> tuple[int, int]:
    """(target, pre-train) size of one factor; the sizes of joined dimensions add up."""
    if isinstance(factor, JoinedFactor):
        sizes = [dimension_sizes(part) for part in factor.parts]
        return sum(target for target, _ in sizes), sum(pretrain for _, pretrain in sizes)
    return factor


def dimension_sizes(factors: Sequence[Factor]) -> tuple[int, int]:
    """(target, pre-train) size of a dimension: the product of its factors' sizes."""
    sizes = [factor_sizes(factor) for factor in factors]
    return prod(target for target, _ in sizes), prod(pretrain for _, pretrain in sizes)


@dataclass
class WeightPlan:
    """A weight that is resized between the networks.

    Attributes:
        name: The initializer, or the Constant node's output.
        kind: 'kernel' (a convolution's), 'interface' (rows of a fully-connected layer that stand on
            a map) or 'table' (a value per position, interpolated without amplitude). Tables of
            coordinates have kinds of their own, by what both networks have in common: 'pixels' (the
            first number and the step, as in 0.5, 1.5, 2.5 …) or 'centres' (the numbers at the outer
            edges of the map, as in linspace(-1, 1)). Indices into a table of relative positions
            follow from the sizes alone, by 'offsets', 'distances' or 'token offsets'
            (`core.lookups`), and so do the mask of 'shifted windows' (`core.shifted_windows`) and
            the logarithms of offsets, by 'log parts' or 'log pixels' (`core.log_offsets`).
        factors: For each dimension its factors in row-major order, as (target, pre-train) sizes: a
            row dimension C·H·W has three. A factor whose two sizes differ is resampled. Rows that
            stand on maps joined by Concat are one `JoinedFactor`; each part is resized by itself.
    """

    name: str
    kind: str
    factors: list[list[Factor]]

    @property
    def target_shape(self) -> list[int]:
        """Shape in the target network."""
        return [dimension_sizes(dim)[0] for dim in self.factors]

    @property
    def pretrain_shape(self) -> list[int]:
        """Shape in the pre-train network."""
        return [dimension_sizes(dim)[1] for dim in self.factors]


@dataclass(frozen=True)
class Grid:
    """Where a tensor's pixels stand on one axis, in pixels of the network's input.

    Pixel i of `size` pixels stands at origin + pitch · i; input pixel i stands at i.
    """

    origin: float
    pitch: float
    size: int

    def centre(self, input_size: int) -> float:
        """The middle of the grid relative to the middle of the input, as a part of the input."""
        middle = self.origin + self.pitch * (self.size - 1) / 2
        return (middle - (input_size - 1) / 2) / input_size


@dataclass
class GridPlan:
    """The sampling grids of one dimension of a tensor in both networks.

    `phase` is how far the middle of the pre-train grid is off the target's, both taken as parts of
    the image, in pixels of the pre-train tensor.
    """

    dimension: int
    target: Grid
    pretrain: Grid
    phase: float


@dataclass
class Plan:
    """What shrink decided.

    Attributes:
        inputs: Shapes of the graph inputs.
        layers: Every convolution and fully-connected layer.
        weights: Weights that are resized; all others are copied.
        constants: Constants that hold shapes and differ between the networks; not weights.
        init: Where the weights come from: 'resize' (the target's, resized), 'fresh' (drawn), or ''
            for a plan without weights.
        grids: Sampling grids of the feature maps, by tensor name.
        folded: Weights that nodes computed in the file and that are initializers now.
        resolved_ifs: If nodes that were replaced by a branch, because shapes decide which one.
        target: The target network without its learned weights (serialized, compressed, base64).
    """

    inputs: list[InputPlan] = field(default_factory=list)
    layers: list[LayerPlan] = field(default_factory=list)
    weights: list[WeightPlan] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    init: str = ""
    grids: dict[str, list[GridPlan]] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)
    resolved_ifs: list[str] = field(default_factory=list)
    target: str = ""

    @property
    def image_size(self) -> tuple[int, ...]:
        """Spatial size, such as (height, width), of the images that the pre-train network takes."""
        image = self.image
        sizes = [] if image is None else [image.pretrain[place] for place in image.spatial]
        return tuple(size for size in sizes if isinstance(size, int))

    @property
    def image(self) -> InputPlan | None:
        """The input that is an image: one that shrinks, of these the one with the most axes."""
        return max(
            self.inputs,
            key=lambda each: (each.pretrain != each.target, len(each.spatial), len(each.pretrain)),
            default=None,
        )

    def multiplications(self, ops: Sequence[str] | None = None) -> dict[str, float]:
        """{target, pretrain, ratio} of all layers, or of those whose operator is in `ops`."""
        layers = [layer for layer in self.layers if ops is None or layer.op in ops]
        target = sum(layer.target_multiplications for layer in layers)
        pretrain = sum(layer.pretrain_multiplications for layer in layers)
        ratio = target / pretrain if pretrain else 1.0
        return {"target": target, "pretrain": pretrain, "ratio": ratio}

    def report(self) -> dict:
        """What `graphscale shrink --json` prints."""
        convolutions = [layer.op for layer in self.layers if layer.target_kernel]
        return {
            "input": asdict(self.inputs[0]) if self.inputs else None,
            "inputs": [asdict(each) for each in self.inputs],
            "layers": [_layer_report(layer) for layer in self.layers],
            "multiplications": self.multiplications(),
            "convolution_multiplications": self.multiplications(convolutions),
            "init": self.init,
            "folded_weights": self.folded,
            "decided_branches": self.resolved_ifs,
        }

    def to_json(self) -> str:
        """The plan as one line of JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "plan") -> Plan:
        """The plan written by `to_json`; `name` is what errors call it.

        Raises:
            GraphScaleError: no plan, a plan of another format, or a field that no plan has; names
                the field.
        """
        instance("text", text, str | bytes, "the text that to_json returned")
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or "format" not in data:
                raise JsonError("it has no 'format'")
            version = integer(data.pop("format"), "format", 0)
            if version > FORMAT:
                raise GraphScaleError(
                    f"{name}: written by a newer graphscale (format {version}); upgrade graphscale"
                )
            if version < FORMAT:
                raise GraphScaleError(
                    f"{name}: written by an older graphscale (format {version}, this one reads "
                    f"{FORMAT}); shrink the target again, or grow with the target network "
                    "(--target)"
                )
            return _read_plan(data)
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise GraphScaleError(
                f"{name}: not a graphscale plan ({reason}); give the .plan.json that shrink wrote"
            ) from None

    @classmethod
    def given(cls, plan: Plan | str | os.PathLike | None) -> Plan | None:
        """The plan that a caller gave, itself or as its file; None where none was given.

        Raises:
            GraphScaleError: it is neither a plan nor the path of one.
        """
        if plan is None or isinstance(plan, cls):
            return plan
        if isinstance(plan, str | os.PathLike):
            return cls.from_file(plan)
        raise GraphScaleError(
            f"{type(plan).__name__} is no plan; give a graphscale.Plan, or the path of the "
            ".plan.json that shrink wrote"
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> Plan:
        """The plan in a file that shrink wrote."""
        try:
            check_regular(file_path("path", path))
            text = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise GraphScaleError(
                f"{path}: cannot be read ({reason}); give the .plan.json that shrink wrote"
            ) from None
        return cls.from_json(text, str(path))

    def save(self, path: str | os.PathLike) -> None:
        """Write the plan as a file that `from_file` and the option `plan` of grow read.

        Raises:
            GraphScaleError: the folder is missing or not writable, or the disk is full.
        """
        with replacing(file_path("path", path)) as (file,):
            file.write(self.to_json().encode())

    @classmethod
    def of(cls, model: ir.Model | onnx.ModelProto | Mapping) -> Plan | None:
        """The plan that travels with a model, if there is one.

        Args:
            model: A model of onnx or onnx-ir, or what torch.load read: a pre-train module's state
                dict, also inside a trainer's checkpoint.
        """
        if isinstance(model, Mapping):
            found = plans(model)
            return cls.from_json(found[0].plan or "", "the state dict: its plan") if found else None
        if isinstance(model, onnx.ModelProto):
            properties = {each.key: each.value for each in model.metadata_props}
            name = "the model"
        else:
            properties, name = model.metadata_props, model.meta.get("source", "the model")
        text = properties.get(METADATA_KEY)
        return None if text is None else cls.from_json(text, f"{name}: its plan")

    def attach(self, model: ir.Model) -> None:
        """Put the plan into a model's metadata."""
        model.metadata_props[METADATA_KEY] = self.to_json()


# Reading: each function takes an entry of the JSON with its place, checks every field, and raises
# JsonError for one that a plan written by `to_json` cannot have.


def _names(kind: type) -> list[str]:
    return [each.name for each in fields(kind)]


def _read_plan(data: object) -> Plan:
    plan = JsonObject(data, "", _names(Plan))
    return Plan(
        inputs=plan.list("inputs", _read_input),
        layers=plan.list("layers", _read_layer),
        weights=plan.list("weights", _read_weight),
        constants=plan.texts("constants"),
        init=plan.text("init", INITIALIZATIONS),
        grids=_read_grids(plan.get("grids")),
        folded=plan.texts("folded"),
        resolved_ifs=plan.texts("resolved_ifs"),
        target=plan.text("target"),
    )


def _read_input(data: object, place: str) -> InputPlan:
    entry = JsonObject(data, place, _names(InputPlan), optional=("spatial",))
    target = entry.list("target", _read_input_size)
    pretrain = entry.list("pretrain", _read_input_size)
    # A size that is a number in the target is one in the pre-train network; a symbolic one may
    # have become a number, but not another name.
    same_names = all(
        after == before for before, after in zip(target, pretrain) if isinstance(after, str)
    )
    shape: list[int] = entry.sizes("shape")
    same_sizes = all(isinstance(old, str) or old == new for old, new in zip(target, shape))
    lengths = {len(target), len(pretrain), len(shape)}
    if len(lengths) > 1 or not same_names or not same_sizes:
        raise JsonError(f"{place} has shapes of the two networks that do not belong together")
    spatial = entry.whole_numbers("spatial") if entry.has("spatial") else _moved(target, pretrain)
    if spatial != sorted(set(spatial) & set(range(len(shape)))):
        raise JsonError(f"{place}.spatial is not the positions of heights and widths")
    return InputPlan(entry.text("name"), target, pretrain, shape, spatial)


def _moved(target: list[int | str], pretrain: list[int | str]) -> list[int]:
    """The positions of heights and widths in a plan that does not name them, by what differs."""
    channels_last = target[1:2] != pretrain[1:2]
    return list(range(1, len(target) - 1) if channels_last else range(2, len(target)))


def _read_input_size(data: object, place: str) -> int | str:
    return data if isinstance(data, str) else size(data, place)


def _read_layer(data: object, place: str) -> LayerPlan:
    layer = JsonObject(data, place, _names(LayerPlan))
    found = LayerPlan(
        name=layer.text("name"),
        weight=layer.text("weight"),
        op=layer.text("op"),
        target_kernel=layer.sizes("target_kernel"),
        pretrain_kernel=layer.sizes("pretrain_kernel"),
        target_size=layer.sizes("target_size"),
        pretrain_size=layer.sizes("pretrain_size"),
        target_multiplications=layer.integer("target_multiplications", 0),
        pretrain_multiplications=layer.integer("pretrain_multiplications", 0),
        left_unscaled=layer.optional_text("left_unscaled"),
    )
    ranks = {len(found.target_kernel), len(found.pretrain_kernel)}
    ranks_of_maps = {len(found.target_size), len(found.pretrain_size)}
    if len(ranks) > 1 or len(ranks_of_maps) > 1:
        raise JsonError(f"{place} has different numbers of spatial axes in the two networks")
    return found


def _read_weight(data: object, place: str) -> WeightPlan:
    weight = JsonObject(data, place, _names(WeightPlan))
    factors = weight.list("factors", _read_factors)
    return WeightPlan(weight.text("name"), weight.text("kind", WEIGHT_KINDS), factors)


def _read_factors(data: object, place: str) -> list[Factor]:
    return [_read_factor(*entry) for entry in entries(data, place)]


def _read_factor(data: object, place: str) -> Factor:
    if isinstance(data, dict):
        joined = JsonObject(data, place, _names(JoinedFactor))
        return JoinedFactor(joined.list("parts", _read_factors))
    sizes = [size(*entry) for entry in entries(data, place)]
    if len(sizes) != 2:
        raise JsonError(f"{place} has {len(sizes)} sizes, not that of the target and the pre-train")
    return sizes[0], sizes[1]


def _read_grids(data: object) -> dict[str, list[GridPlan]]:
    if not isinstance(data, dict):
        raise JsonError("grids is not an object")
    return {
        tensor: [_read_grid_plan(*entry) for entry in entries(plans, f"grids[{tensor!r}]")]
        for tensor, plans in data.items()
    }


def _read_grid_plan(data: object, place: str) -> GridPlan:
    plan = JsonObject(data, place, _names(GridPlan))
    target, pretrain = (
        _read_grid(plan.get(network), plan.place(network)) for network in ("target", "pretrain")
    )
    return GridPlan(plan.integer("dimension", 0), target, pretrain, plan.number("phase"))


def _read_grid(data: object, place: str) -> Grid:
    grid = JsonObject(data, place, _names(Grid))
    return Grid(grid.number("origin"), grid.number("pitch"), grid.integer("size", 1))


def _layer_report(layer: LayerPlan) -> dict:
    """A layer as `--json` prints it; the keys `..._extent` are a promise to scripts."""
    report = asdict(layer)
    return {
        **{
            key: report[key] for key in ("name", "weight", "op", "target_kernel", "pretrain_kernel")
        },
        "target_extent": layer.target_size,
        "pretrain_extent": layer.pretrain_size,
        "multiplications": {
            "target": layer.target_multiplications,
            "pretrain": layer.pretrain_multiplications,
        },
        "left_unscaled": layer.left_unscaled,
    }
