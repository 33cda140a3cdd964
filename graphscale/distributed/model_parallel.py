"""`ModelParallel`: the wide layers of a module split over ranks by output features or classes.

In: a module with Linear layers, lookup tables or a hierarchical softmax. Out: the same module, each
rank with a share of their weights, on torch.distributed.tensor.parallel.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.collectives import copy_from_first
from graphscale.distributed.require_process_group import require_process_group
from graphscale.distributed.split_batches import check_batch, check_lengths
from graphscale.distributed.split_layers import SplitHierarchicalSoftmax, SplitLookupTable
from graphscale.layers.hierarchical_softmax import HierarchicalSoftmax
from graphscale.layers.lookup_table import LookupTable, WeightedLookupTable

# The layers that are split, and the names of their weights.
_WEIGHTS: dict[type, set[str]] = {
    nn.Linear: {"weight", "bias"},
    LookupTable: {"weight"},
    nn.Embedding: {"weight"},
    HierarchicalSoftmax: {"weight", "bias", "cluster_weight", "cluster_bias"},
}


class ModelParallel(nn.Module):
    """A module whose wide layers are split over ranks (fbcunn ModelParallel).

    Linear layers are split by output features, as DTensors; rows of `LookupTable` and
    torch.nn.Embedding, and clusters of `HierarchicalSoftmax` by classes. Other layers stay whole on
    every rank. The outputs are those of the whole module.

    Args:
        module: Is changed in place. The weights of the first rank count.
        mesh: A one-dimensional DeviceMesh of the ranks that share the weights; by default all.
        batch: 'same': these ranks have the same images. 'split': each has images of its own, as
            many as the others, as behind data-parallel convolutions: a layer sees the images of all
            of them, and every rank gets the outputs of its own.
        data_mesh: For a mesh of two dimensions, the ranks with the same share of the weights and
            other images; gradients are averaged over them.

    Gradients are those of the mean of the ranks' losses, as `DataParallel` computes them.

    Raises:
        GraphScaleError: there is no process group, the mesh has two dimensions, a layer cannot
            be split, or shares a weight with another one.

    Example:
        >>> mesh = init_device_mesh("cuda", (4, 2), mesh_dim_names=("data", "model"))
        ... # doctest: +SKIP
        >>> features = DataParallel(convolutions)  # doctest: +SKIP
        >>> classifier = ModelParallel(
        ...     layers, mesh["model"], batch="split", data_mesh=mesh["data"]
        ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        module: nn.Module,
        mesh: DeviceMesh | None = None,
        *,
        batch: str = "same",
        data_mesh: DeviceMesh | None = None,
    ) -> None:
        super().__init__()
        require_process_group("ModelParallel")
        check_batch("ModelParallel", batch)
        if mesh is None:
            device = next((each.device.type for each in module.parameters()), "cpu")
            mesh = init_device_mesh(device, (dist.get_world_size(),))
        for each in (mesh, data_mesh):
            if each is not None and each.ndim != 1:
                raise GraphScaleError(
                    f"ModelParallel: the mesh has {each.ndim} dimensions; give one of them, such "
                    'as mesh["model"]'
                )
        self.batch = batch
        self._device = mesh.device_type
        self._groups = [mesh.get_group()] + ([] if data_mesh is None else [data_mesh.get_group()])
        copy_from_first(module, self._groups, "ModelParallel")
        self.module = self._split(module, mesh)

    def _split(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        layers = _layers_to_split(module)
        if not layers:
            raise GraphScaleError(
                f"ModelParallel: {type(module).__name__} has no layer that can be split; give a "
                "module with Linear, LookupTable or HierarchicalSoftmax"
            )
        group = self._groups[0]
        layout = Replicate() if self.batch == "same" else Shard(0)
        made: dict[nn.Module, nn.Module] = {}
        for layer in layers.values():
            if isinstance(layer, nn.Linear):
                style = ColwiseParallel(input_layouts=layout, output_layouts=layout)
                parallelize_module(layer, mesh, style)
            elif isinstance(layer, HierarchicalSoftmax):
                made[layer] = SplitHierarchicalSoftmax(layer, group, self.batch)
            else:
                made[layer] = SplitLookupTable(layer, group, self.batch)
        for owner in list(module.modules()):
            for key, layer in owner._modules.items():
                if layer in made:  # maybe at several places
                    setattr(owner, key, made[layer])
        return made.get(module, module)

    def forward(self, *args: Any, **options: Any) -> Any:
        """What the module returns.

        Raises:
            GraphScaleError: ranks that share weights have batches of different lengths, or a layer
                computes with the weight of a split layer inside it.
        """
        self._watch_gradients()
        given = [each for each in (*args, *options.values()) if isinstance(each, Tensor)]
        check_lengths("ModelParallel", given, self._groups[0], self._device)
        try:
            return self.module(*args, **options)
        except RuntimeError as error:
            if "mixed torch.Tensor and DTensor" not in str(error):
                raise
            raise GraphScaleError(
                "ModelParallel: a layer computes with the weight of a split Linear itself instead "
                f"of calling it ({str(error).split()[0]}); leave that layer outside"
            ) from error

    def _watch_gradients(self) -> None:
        """Let the gradients be averaged, also those of Parameter objects that growth has made."""
        for owner in self.module.modules():
            for parameter in owner.parameters(recurse=False):
                placements = getattr(parameter, "placements", None)  # of a DTensor
                split = placements or isinstance(owner, SplitLookupTable | SplitHierarchicalSoftmax)
                if parameter.requires_grad and not hasattr(parameter, "_is_averaged"):
                    parameter.register_hook(
                        partial(self._averaged, placements) if split else self._averaged_whole
                    )
                    parameter._is_averaged = True

    def _averaged(self, placements: Any, gradient: Tensor) -> Tensor:
        """The gradient of a split weight: the images of all ranks of its mesh are in it."""
        if placements is not None:  # of a weight with one row DTensor keeps all on every rank
            gradient = gradient.redistribute(placements=placements)
        ranks = dist.get_world_size(self._groups[0]) if self.batch == "split" else 1
        return self._mean(gradient / ranks, self._groups[1:])

    def _averaged_whole(self, gradient: Tensor) -> Tensor:
        """The gradient of a weight that every rank has, of its own images."""
        return self._mean(gradient.clone(), self._groups[int(self.batch == "same") :])

    def _mean(self, gradient: Tensor, groups: list[dist.ProcessGroup]) -> Tensor:
        local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
        for group in groups:
            local.div_(dist.get_world_size(group))
            dist.all_reduce(local, group=group)
        return gradient


def _layers_to_split(module: nn.Module) -> dict[str, nn.Module]:
    """The layers whose weights can be split, by their names in the module.

    Raises:
        GraphScaleError: a layer is of a kind that is split, but cannot be.
    """
    # An attention computes with the weight of its last Linear without calling it.
    attention = {
        part
        for each in module.modules()
        if isinstance(each, nn.MultiheadAttention)
        for part in each.modules()
    }
    found: dict[str, nn.Module] = {}
    owners: dict[Tensor, str] = {}
    for name, layer in module.named_modules():
        whole = name or "the module"
        if isinstance(layer, WeightedLookupTable):
            raise GraphScaleError(
                f"ModelParallel: {whole} is a WeightedLookupTable, which cannot be split; leave it "
                "outside"
            )
        kinds = [names for kind, names in _WEIGHTS.items() if isinstance(layer, kind)]
        if kinds and layer not in attention:
            if not {key for key, _ in layer.named_parameters()} <= kinds[0]:
                raise GraphScaleError(
                    f"ModelParallel: the weight of {whole} is computed from others, as by "
                    "weight_norm, and cannot be split; leave it outside"
                )
            found[name] = layer
        for key, parameter in layer.named_parameters(recurse=False):
            first = owners.setdefault(parameter, name)
            if first != name and (first in found or name in found):
                raise GraphScaleError(
                    f"ModelParallel: {key} of {whole} is also a weight of {first or 'the module'}, "
                    "and shared weights cannot be split; leave both layers outside"
                )
    return found
