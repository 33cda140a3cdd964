"""SpaceToDepth and DepthToSpace."""

from __future__ import annotations

import graphscale
from graphscale.core.plan import Grid
from graphscale.passes.spatial.mapping import Change
from graphscale.passes.spatial.rules.blocks import Blocks
from tests.passes.small_graphs import analyzed, graph, node, run


def test_grid_of_a_block_is_its_middle() -> None:
    assert Blocks(down=2).grid(Grid(0.0, 1.0, 8), 4) == Grid(0.5, 2.0, 4)
    assert Blocks(up=2).grid(Grid(0.5, 2.0, 4), 8) == Grid(0.0, 1.0, 8)


def test_only_whole_blocks() -> None:
    blocks = Blocks(down=4)
    assert (blocks.downsampling, blocks.divisor(32)) == (4, 4)
    change = Change(blocks, 32, 8)
    assert list(blocks.options(change, 22, frozenset({5, 6}))) == []
    (option,) = blocks.options(change, 20, frozenset({5, 6}))
    assert (option.size, option.cost) == (5, 0.0)


def test_the_input_is_chosen_as_a_multiple_of_the_blocks() -> None:
    nodes = """
        s = SpaceToDepth <blocksize=4> (x)
        y = Conv <pads=[1,1,1,1]> (s, w)
    """
    target = graph(nodes, w=(4, 48, 3, 3))
    analysis = analyzed(target)
    (size, _) = {mapping.source for mapping in analysis.mappings[node(analysis, "SpaceToDepth")]}
    assert analysis.divisor(size) == 4
    pretrain = graphscale.shrink(target, init="resize")
    side = pretrain.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    assert side % 4 == 0
    assert side < 32
    assert run(pretrain)["y"].shape[1] == 4
