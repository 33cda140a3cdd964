"""Run a function on several ranks of a gloo group, each a process.

The processes are forks of one server process, which has imported torch and graphscale once, so that
a group starts in a fraction of a second.
"""

import io
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

_PRELOAD = ["torch._dynamo", "torch.distributed.tensor.parallel", "pytest"]
_PRELOAD += ["graphscale.distributed", "graphscale.training.grow_in_place"]
_CONTEXT = multiprocessing.get_context("forkserver")
_SECONDS = 120


def on_ranks(count: int, function: Callable, *args) -> list[Any]:
    """What function(rank, *args) returns on each of `count` ranks.

    The function belongs to a module, not to another function.
    """
    _CONTEXT.set_forkserver_preload(_PRELOAD)
    packed = _packed(args)
    with tempfile.TemporaryDirectory() as folder:
        ends = [_CONTEXT.Pipe(duplex=False) for _ in range(count)]
        processes = [
            _CONTEXT.Process(target=_run, args=(rank, count, folder, send, function, packed))
            for rank, (_, send) in enumerate(ends)
        ]
        for process in processes:
            process.start()
        for _, send in ends:
            send.close()
        try:
            answers = [_answer(receive) for receive, _ in ends]
        finally:
            for process in processes:
                process.kill()
                process.join()
    failures = [text for text, _ in answers if text is not None]
    assert not failures, "\n".join(failures)
    return [_unpacked(value) for _, value in answers]


def _packed(value: object) -> bytes:
    """Pickled with tensors by value: torch's own pickling of processes shares their memory."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _unpacked(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=False)


def _answer(receive) -> tuple[str | None, Any]:
    if not receive.poll(_SECONDS):
        return "a rank did not answer", None
    try:
        return receive.recv()
    except EOFError:
        return "a rank ended without an answer", None


def _run(rank: int, count: int, folder: str, send, function: Callable, packed: bytes) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        distributed.init_process_group(
            "gloo",
            f"file://{folder}/meeting",
            world_size=count,
            rank=rank,
            timeout=timedelta(seconds=60),
        )
        send.send((None, _packed(function(rank, *_unpacked(packed)))))
        distributed.barrier()
        distributed.destroy_process_group()
    except BaseException:
        send.send((f"rank {rank}:\n{traceback.format_exc()}", None))
