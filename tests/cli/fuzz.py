"""Run commands on mutated files and odd options; each must end in a result or in one sentence.

In goes a seed, which makes one command with its files: a real model, plan, table, array of images
or tuning file, with bytes, fields or JSON values changed, and options near-valid and absurd. Out
comes what is wrong, or nothing. `python -m tests.cli.fuzz 100000` runs so many, from seed 0 on;
`python -m tests.cli.fuzz 1 SEED` repeats one and shows it.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from google.protobuf.message import Message

from graphscale.cli.command_line import main
from graphscale.core.tuning import Tuner
from tests.zoo.handmade import asymmetric_pads, classic, constant_nodes, shared_weights, upsample

_SECONDS = 60  # after which a command hangs
_ODD_INTEGERS = [0, 1, 2, 3, -1, 7, 64, 255, 2**31 - 1, 2**31, -(2**63), 2**63 - 1]
_ODD_TEXTS = ["", "x", "é", "\ud800", "\n", "in", "class", "/", "..", "\0", "a" * 5000, "1e999"]
_ODD_VALUES = [None, True, 0, -1, 2**70, 1.5, 1e308, math.nan, math.inf, *_ODD_TEXTS, [], {}, [[]]]
_SIZES = ["32", "40x48", "64:40", "0", "-1", "x", "1e3", "64x64x64", "9" * 400, "٣٢", "1", ":", ""]
_TABLES = [
    "3:2",
    "5:3,3:2",
    "3:4",
    "3:2,3:1",
    "5:5",
    "3",
    "a:b",
    "3:2,,",
    "9" * 400 + ":1",
    "",
    ":",
]
_PATTERNS = ["conv_0", "*", "conv_?", "[", "none", "", "\n"]


class _HangError(BaseException):
    """A command took longer than `_SECONDS`."""


class Fuzzer:
    """Makes and runs the commands of seeds in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._targets: list[bytes] = []
        self._checkpoints: list[bytes] = []
        self._plans: list[bytes] = []
        models = (classic(17), upsample(13), asymmetric_pads(), shared_weights())
        for model in (*models, constant_nodes(classic(17))):
            onnx.save(model, folder / "base.onnx")
            if main(["shrink", str(folder / "base.onnx"), "--quiet"]) != 0:
                raise RuntimeError("a base of the fuzzer does not shrink")
            self._targets.append((folder / "base.onnx").read_bytes())
            self._checkpoints.append((folder / "base.pretrain.onnx").read_bytes())
            self._plans.append((folder / "base.pretrain.plan.json").read_bytes())
        tuner = Tuner("fuzz", folder / "tuning.json", default="one")
        tuner.seconds("key", lambda: {"one": lambda: None, "other": lambda: None})
        self._tuning = (folder / "tuning.json").read_bytes()

    def wrong(self, seed: int, show: bool = False) -> str | None:
        """What is wrong with the command of this seed; None where nothing is."""
        self._random = random.Random(seed)
        for path in self._folder.iterdir():
            path.unlink()
        kinds: list[Callable[[], list[str]]] = [
            *(self._model_bytes, self._model_fields, self._model_fields, self._options),
            *(self._plan_bytes, self._plan_values, self._own_plan, self._images, self._tuning_file),
        ]
        if self._random.random() < 0.03:  # opens sessions, which takes longer
            kinds = [self._accelerate]
        arguments = self._random.choice(kinds)()
        if show:
            print([each[:200] for each in arguments])
        if not arguments:
            return None
        before = {path.name for path in self._folder.iterdir()}
        with _captured() as (out, err), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with _limited(_SECONDS):
                    status = main(arguments)
            except SystemExit as end:  # of argparse, which prints its usage, too
                return None if end.code == 2 else f"exit {end.code}"
            except _HangError:
                return f"hangs: {arguments}"
            except BaseException as error:
                return f"{type(error).__name__}: {error}: {arguments}"
        if show:
            print(status, err.getvalue())
        if status not in (0, 2):
            return f"exit {status}: {err.getvalue()}"
        if caught:
            return f"warning: {caught[0].message}"
        lines = [line for line in err.getvalue().splitlines() if ": note: " not in line]
        if len(lines) != (status == 2) or (status == 2 and out.getvalue()):
            return f"exit {status} with other than one sentence: {err.getvalue()}{out.getvalue()}"
        new = {path.name for path in self._folder.iterdir()} - before
        if (status == 2 or "--dry-run" in arguments) and new:
            return f"exit {status}, but wrote {new}"
        for name in new:
            if name.endswith(".onnx") and not onnx.load(self._folder / name).graph.node:
                return f"wrote {name}, an empty model"
        return None

    # --- one command each -------------------------------------------------------------------------

    def _model_bytes(self) -> list[str]:
        if self._random.random() < 0.5:
            return self._shrink(self._mutated(self._random.choice(self._targets)))
        return self._grow(self._mutated(self._random.choice(self._checkpoints)))

    def _model_fields(self) -> list[str]:
        """A field of the model, or several, with other values."""
        grow = self._random.random() < 0.3
        model = onnx.load_from_string(
            self._random.choice(self._checkpoints if grow else self._targets)
        )
        for _ in range(self._random.choice([1, 1, 2, 5])):
            self._change_field(model)
        data = model.SerializeToString()
        return self._grow(data) if grow else self._shrink(data)

    def _options(self) -> list[str]:
        model = self._file("model.onnx", self._random.choice(self._targets))
        given = [
            ("--input-size", self._random.choice(_SIZES)),
            ("--kernels", self._random.choice([*_TABLES, self._table()])),
            ("--keep", self._random.choice(_PATTERNS)),
            ("--init", self._random.choice(["resize", "fresh", "other"])),
            ("--seed", self._random.choice(["0", "1", "-1", str(2**32), str(2**80), "x"])),
            ("-o", str(self._folder / self._random.choice(["a.onnx", "model.onnx", "no/a", "é"]))),
        ]
        command = ["shrink", model, "--quiet"]
        for name, value in self._random.sample(given, self._random.randint(1, 3)):
            command += [name, value] if name == "-o" else [f"{name}={value}"]
        return command

    def _plan_bytes(self) -> list[str]:
        return self._grow_by_plan(self._mutated(self._random.choice(self._plans)))

    def _plan_values(self) -> list[str]:
        plan = json.loads(self._random.choice(self._plans))
        for _ in range(self._random.choice([1, 1, 2, 4])):
            self._change_value(plan)
        text = json.dumps(plan).encode()
        if self._random.random() < 0.02:
            text = b"[" * 100_000
        return self._grow_by_plan(text)

    def _own_plan(self) -> list[str]:
        """A checkpoint whose own plan is another's, or damaged."""
        model = onnx.load_from_string(self._random.choice(self._checkpoints))
        entry = next(each for each in model.metadata_props if each.key.startswith("graphscale"))
        if self._random.random() < 0.3:
            entry.value = self._random.choice(self._plans).decode()
        else:
            plan = json.loads(entry.value)
            self._change_value(plan)
            entry.value = json.dumps(plan)
        return self._grow(model.SerializeToString())

    def _images(self) -> list[str]:
        """--check with a damaged file of images."""
        file = io.BytesIO()
        shape = self._random.choice([(2, 3, 64, 64), (1, 3, 0, 9), (3, 64, 64), (), (2, 3, 8)])
        dtype = self._random.choice(["f4", "u1", "f8", "i8", "U3", "c8", "M8[s]", "?"])
        np.save(file, np.zeros(shape, dtype))
        data = file.getvalue() if self._random.random() < 0.5 else self._mutated(file.getvalue())
        images = self._file("images.npy", data)
        return [*self._grow(self._checkpoints[0]), "--check", images]

    def _tuning_file(self) -> list[str]:
        """No command: a damaged tuning file only means measuring again."""
        content = json.loads(self._tuning)
        self._change_value(content)
        text = json.dumps(content).encode()
        if self._random.random() < 0.5:
            text = self._mutated(self._tuning)
        self._file("tuning.json", text)
        tuner = Tuner("fuzz", self._folder / "tuning.json", default="one")
        known = tuner.seconds("key", lambda: {"one": lambda: None})
        if not all(0 < each < math.inf for each in known.values()) or "one" not in known:
            raise AssertionError(f"the tuner knows {known}")
        return []

    def _accelerate(self) -> list[str]:
        model = onnx.load_from_string(self._random.choice(self._targets))
        self._change_field(model)
        data = model.SerializeToString()
        if self._random.random() < 0.3:
            data = self._mutated(data)
        return ["accelerate", self._file("model.onnx", data), "--quiet"]

    # --- parts of commands ------------------------------------------------------------------------

    def _file(self, name: str, data: bytes) -> str:
        path = self._folder / name
        path.write_bytes(data)
        return str(path)

    def _shrink(self, model: bytes) -> list[str]:
        dry = ["--dry-run"] if self._random.random() < 0.7 else []
        return ["shrink", self._file("model.onnx", model), "--quiet", *dry]

    def _grow(self, checkpoint: bytes) -> list[str]:
        return ["grow", self._file("checkpoint.onnx", checkpoint), "--quiet"]

    def _grow_by_plan(self, plan: bytes) -> list[str]:
        model = onnx.load_from_string(self._random.choice(self._checkpoints))
        if self._random.random() < 0.8:
            del model.metadata_props[:]
        command = self._grow(model.SerializeToString())
        return [*command, "--plan", self._file("given.plan.json", plan)]

    def _table(self) -> str:
        """A file with a table, or with something else."""
        text = self._random.choice(_TABLES).replace(",", "\n").encode()
        return self._file("table.txt", text if self._random.random() < 0.5 else self._mutated(text))

    # --- mutations --------------------------------------------------------------------------------

    def _mutated(self, data: bytes) -> bytes:
        """Bytes changed, cut out, doubled or put in; early ones more often, where lengths stand."""
        out = bytearray(data)
        for _ in range(self._random.choice([1, 1, 2, 8, 40])):
            end = self._random.choice([64, 1024, len(out)])
            at = self._random.randrange(max(1, min(end, len(out))))
            how = self._random.randrange(5)
            if not out or how == 0:
                out[at:at] = self._random.randbytes(self._random.choice([1, 4, 100]))
            elif how == 1:
                del out[at : at + self._random.choice([1, 4, 1000, len(out)])]
            elif how == 2:
                out[at:at] = out[at : at + self._random.choice([1, 16, 1000])]
            else:
                out[at] = self._random.choice([0, 1, 0x7F, 0x80, 0xFF, self._random.randrange(256)])
        return bytes(out)

    def _change_field(self, message: Message) -> None:
        """Change one field, however deep; a repeated one loses, doubles or swaps entries, too."""
        fields = [f for f in message.DESCRIPTOR.fields if self._is_set(message, f)]
        field = self._random.choice(fields or list(message.DESCRIPTOR.fields))
        value = getattr(message, field.name)
        if field.is_repeated:
            self._change_repeated(value, field)
        elif field.type == field.TYPE_MESSAGE:
            if self._random.random() < 0.05:
                message.ClearField(field.name)
            else:
                self._change_field(value)
        elif field.name == "raw_data" and self._random.random() < 0.5:
            message.raw_data = self._mutated(message.raw_data[:4096])
        else:
            with contextlib.suppress(
                ValueError, TypeError, UnicodeError
            ):  # out of the type's range
                setattr(message, field.name, self._scalar(field))

    def _change_repeated(self, values: Any, field: Any) -> None:
        if not len(values):
            return
        at = self._random.randrange(len(values))
        how = self._random.random()
        if how < 0.1:
            del values[at]
        elif how < 0.2:
            if field.type == field.TYPE_MESSAGE:
                values.add().CopyFrom(values[at])
            else:
                values.append(values[at])
        elif field.type == field.TYPE_MESSAGE:
            self._change_field(values[at])
        else:
            with contextlib.suppress(ValueError, TypeError, UnicodeError):
                values[at] = self._random.choice([*values[:3], self._scalar(field)])

    @staticmethod
    def _is_set(message: Message, field: Any) -> bool:
        if field.is_repeated:
            return len(getattr(message, field.name)) > 0
        return message.HasField(field.name)

    def _scalar(self, field: Any) -> object:
        if field.type == field.TYPE_STRING:
            return self._random.choice(_ODD_TEXTS)
        if field.type == field.TYPE_BYTES:
            return self._random.choice(_ODD_TEXTS).encode(errors="replace")
        if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
            return self._random.choice([0.0, -1.0, 1e38, math.nan, math.inf])
        return self._random.choice([*_ODD_INTEGERS, self._random.randrange(30)])

    def _change_value(self, value: Any) -> None:
        """Change one value of a JSON object or list, however deep."""
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = self._random.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and self._random.random() < 0.8:
            self._change_value(inner)
        elif self._random.random() < 0.15:
            del value[key]
        elif isinstance(inner, int) and self._random.random() < 0.5:
            value[key] = inner + self._random.choice([-1, 1, 1000])
        else:
            value[key] = copy.deepcopy(self._random.choice(_ODD_VALUES))


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _without_measuring() -> contextlib.ExitStack:
    """Let every candidate take the same time, so that accelerate only opens its sessions."""
    patches = contextlib.ExitStack()
    for place in ("core.tuning.measure", "acceleration.choose_layers.measure_seconds"):
        patches.enter_context(
            mock.patch(
                f"graphscale.{place}",
                lambda candidates, *_, **__: {
                    name: 1.0 if run() is None else 2.0 for name, run in candidates.items()
                },
            )
        )
    return patches


def run(count: int, first: int, show: bool = False) -> dict[int, str]:
    """What is wrong, by seed, of `count` seeds from `first` on."""
    wrong = {}
    temporary = tempfile.TemporaryDirectory
    with temporary() as folder, temporary() as cache, _without_measuring():
        os.environ["XDG_CACHE_HOME"] = cache
        fuzzer = Fuzzer(Path(folder))
        for seed in range(first, first + count):
            if (found := fuzzer.wrong(seed, show)) is not None:
                wrong[seed] = found
                print(f"seed {seed}: {found[:1000]}", file=sys.stderr)
    return wrong


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    amount, start = (given + [1000, 0][len(given) :])[:2]
    sys.exit(bool(run(amount, start, show=len(given) > 1 and amount == 1)))
