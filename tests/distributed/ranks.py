"""Run a function on several ranks of a gloo group, each a process.

The processes are forks of one server process, which has imported torch and graphscale once, so that
a group starts in a fraction of a second.
"""

import io
import multiprocessing
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

_PRELOAD = ["torch._dynamo", "torch.distributed.tensor.parallel", "pytest"]
_PRELOAD += ["graphscale.distributed", "graphscale.training.grow_in_place"]
_CONTEXT = multiprocessing.get_context("forkserver")
_SECONDS = 400  # a machine may have much else to do


def on_ranks(
    count: int, function: Callable, *args, torchrun: bool = False, dies: int | None = None
) -> list[Any]:
    """What function(rank, *args) returns on each of `count` ranks.

    The function belongs to a module, not to another function. With `torchrun` there is no process
    group, but torchrun's environment variables, from which the function may make one. The rank
    `dies` may end without an answer, which is None then.
    """
    meeting = _free_port() if torchrun else None
    _CONTEXT.set_forkserver_preload(_PRELOAD)
    packed = _packed(args)
    with tempfile.TemporaryDirectory() as folder:
        ends = [_CONTEXT.Pipe(duplex=False) for _ in range(count)]
        processes = [
            _CONTEXT.Process(
                target=_run, args=(rank, count, folder, meeting, send, function, packed)
            )
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
    failures = [text for rank, (text, _) in enumerate(answers) if text and rank != dies]
    assert not failures, "\n".join(failures)
    return [None if text else _unpacked(value) for text, value in answers]


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run(
    rank: int,
    count: int,
    folder: str,
    port: int | None,
    send,
    function: Callable,
    packed: bytes,
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        if port is None:
            distributed.init_process_group(
                "gloo",
                f"file://{folder}/meeting",
                world_size=count,
                rank=rank,
                timeout=timedelta(seconds=60),
            )
        else:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        send.send((None, _packed(function(rank, *_unpacked(packed)))))
        if port is None:
            distributed.barrier()
            distributed.destroy_process_group()
        else:  # rank 0 serves the others, which may still be about to find each other
            time.sleep(_SECONDS)  # until `on_ranks` has all answers, and kills this process
    except BaseException:
        send.send((f"rank {rank}:\n{traceback.format_exc()}", None))
