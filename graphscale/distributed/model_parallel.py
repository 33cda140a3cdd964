"""`ModelParallel`: the wide layers of a module split over ranks by output features or classes.

In: a module with Linear layers, lookup tables or a hierarchical softmax. Out: the same module, each
rank with a share of their weights, on torch.distributed.tensor.parallel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from graphscale.core.errors import GraphScaleError
from graphscale.distributed.require_process_group import require_process_group
from graphscale.distributed.split_batches import check_batch
from graphscale.distributed.split_layers import SplitHierarchicalSoftmax, SplitLookupTable
from graphscale.layers.hierarchical_softmax import HierarchicalSoftmax
from graphscale.layers.lookup_table import LookupTable, WeightedLookupTable


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
        GraphScaleError: there is no process group, the mesh has two dimensions, or a layer cannot
            be split.

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
        self._groups = [mesh.get_group()] + ([] if data_mesh is None else [data_mesh.get_group()])
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                for group in self._groups:
                    dist.broadcast(tensor, dist.get_global_rank(group, 0), group=group)
        self.module = self._split(module, mesh)

    def _split(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        group = self._groups[0]
        names = dict(module.named_modules())
        found = 0
        layout = Replicate() if self.batch == "same" else Shard(0)
        for name, layer in names.items():
            made: nn.Module
            if isinstance(layer, WeightedLookupTable):
                raise GraphScaleError(
                    f"ModelParallel: {name or 'the module'} is a WeightedLookupTable, which cannot "
                    "be split; leave it outside"
                )
            if isinstance(layer, nn.Linear):
                style = ColwiseParallel(input_layouts=layout, output_layouts=layout)
                parallelize_module(layer, mesh, style)
                made = layer
            elif isinstance(layer, LookupTable | nn.Embedding):
                made = SplitLookupTable(layer, group, self.batch)
            elif isinstance(layer, HierarchicalSoftmax):
                made = SplitHierarchicalSoftmax(layer, group, self.batch)
            else:
                continue
            found += 1
            if not name:
                return made
            owner, _, key = name.rpartition(".")
            setattr(names[owner], key, made)
        if not found:
            raise GraphScaleError(
                f"ModelParallel: {type(module).__name__} has no layer that can be split; give a "
                "module with Linear, LookupTable or HierarchicalSoftmax"
            )
        return module

    def forward(self, *args: Any, **options: Any) -> Any:
        """What the module returns."""
        self._watch_gradients()
        return self.module(*args, **options)

    def _watch_gradients(self) -> None:
        """Let the gradients be averaged, also those of Parameter objects that growth has made."""
        for owner in self.module.modules():
            split = isinstance(owner, SplitLookupTable | SplitHierarchicalSoftmax | nn.Linear)
            for parameter in owner.parameters(recurse=False):
                if parameter.requires_grad and not hasattr(parameter, "_is_averaged"):
                    parameter.register_hook(self._averaged if split else self._averaged_whole)
                    parameter._is_averaged = True

    def _averaged(self, gradient: Tensor) -> Tensor:
        """The gradient of a split weight: the images of all ranks of its mesh are in it."""
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
