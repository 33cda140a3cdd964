"""The exchange of 1-bit matrices against the same computation in numpy, for uneven rows."""

import numpy as np
import torch

from graphscale.distributed.one_bit_exchange import OneBitExchange, Packets, quantize
from tests.distributed.one_bit_reference import Averaging
from tests.distributed.ranks import on_ranks

SHAPES = [(5, 70), (2, 33), (1, 1), (7, 64)]
STEPS = 4


def gradients(rank: int, step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * rank + step)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def exchange_in_rank(rank: int) -> list:
    exchange = OneBitExchange(SHAPES, torch.float64)
    residuals = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
    home = [r[exchange.packets.own(i, rank)] for i, r in enumerate(residuals)]
    found = []
    for step in range(STEPS):
        parts = [quantize(g, r) for g, r in zip(gradients(rank, step), residuals)]
        exchange.send(parts)
        results = exchange.finish(home)
        residuals = [p.residual(r, f) for p, r, (_, f) in zip(parts, residuals, results)]
        found.append([result.numpy() for result, _ in results])
    return [found, [each.numpy() for each in residuals], [each.numpy() for each in home]]


def test_against_numpy():
    ranks = 3
    answers = on_ranks(ranks, exchange_in_rank)
    for i in range(len(SHAPES)):
        reference = Averaging()
        for step in range(STEPS):
            wanted = reference(np.stack([gradients(r, step)[i].numpy() for r in range(ranks)]))
            for found, _, _ in answers:
                np.testing.assert_allclose(found[step][i], wanted, atol=1e-12)
                np.testing.assert_array_equal(found[step][i], answers[0][0][step][i])
        for rank, (_, residuals, _) in enumerate(answers):
            np.testing.assert_allclose(residuals[i], reference.residuals[rank], atol=1e-12)
        home = np.concatenate([home[i] for _, _, home in answers])
        np.testing.assert_allclose(home, reference.home, atol=1e-12)


def test_packets_come_back():
    packets = Packets(SHAPES, torch.float16, ranks=3)
    parts = [quantize(torch.randn(s).half(), torch.zeros(s).half()) for s in SHAPES]
    packet = packets.pack(parts, 3)
    assert packet.shape == (3, packets.size)
    for part, (words, scales) in zip(parts, packets.unpack(packet), strict=True):
        rows = len(part.words)
        np.testing.assert_array_equal(words.numpy()[:rows], part.words.numpy())
        assert torch.equal(scales[:rows], part.scales)
        assert not scales[rows:].any()


def test_a_bit_per_element_and_two_means_per_row():
    assert Packets([(64, 576)], torch.float32, ranks=4).size == 16 * (576 // 8 + 8)


def test_a_row_of_zeros_keeps_its_residual():
    gradient = torch.tensor([[0.0, 0.0], [1.0, -3.0], [float("nan"), 1.0]])
    before = torch.tensor([[0.5, -0.5], [0.0, 1.0], [2.0, 2.0]])
    part = quantize(gradient, before)
    assert part.active.tolist() == [False, True, True]
    assert part.scales[0].tolist() == [0.0, 0.0]
    assert part.scales[2].isnan().any()
    finite = torch.isfinite(part.scales).all(1)
    left = part.residual(before, finite)
    assert torch.equal(left, torch.tensor([[0.5, -0.5], [0.0, 0.0], [2.0, 2.0]]))
