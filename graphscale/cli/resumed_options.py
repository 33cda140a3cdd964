"""Compare the options of `graphscale train --resume` with those that the training was started with.

A command that is given again with --resume appended, as a job that starts anew does it, is the same
training; one with another option would be a different one, and is refused.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from graphscale.core.errors import GraphScaleError
from graphscale.training.started import FolderOptions
from graphscale.training.train_folder import started_with
from graphscale.training.trainer import TrainingOptions


def refuse_other_options(
    options: argparse.Namespace,
    usual: argparse.Namespace,
    given: tuple[TrainingOptions, FolderOptions],
    output: Path,
) -> None:
    """Raise GraphScaleError for the first option that is not the one of the training in `output`.

    An option that has its default is taken as not given. How many processes decode images, and on
    which device the network is, may change.

    Args:
        options: Of the command.
        usual: The defaults.
        given: What the library makes of `options`.
        output: The folder of the training.
    """
    started = started_with(output)
    kept = {"data": started.data, "recipe": started.recipe, "baseline": started.baseline}
    kept |= _by_option(started.options, started.folder_options)
    wanted = {name: getattr(options, name) for name in ("data", "recipe", "baseline")}
    wanted |= _by_option(*given)
    for name, value in {"model": started.model, **kept}.items():
        own = options.model if name == "model" else wanted[name]
        is_given = name == "model" or getattr(options, name) != getattr(usual, name)
        same = _same_place(own, value) if name in ("model", "data") else own == value
        if is_given and not same:
            option = name if name == "model" else f"--{name.replace('_', '-')}"
            raise GraphScaleError(
                f"{option}: the training in {output} was started with another one "
                f"({_text(value)}); leave the option out to go on with it, or start a new training "
                "without --resume and with another -o"
            )


def _by_option(training: TrainingOptions, folder: FolderOptions) -> dict[str, object]:
    """The values by the names of the command's options."""
    values = asdict(training) | asdict(folder)
    schedule = training.schedule
    values |= {"schedule": schedule.kind, "contiguous": not training.channels_last}
    # In epochs, as on the command line, and up to rounding.
    values["warm_up"] = round(schedule.warm_up * training.epochs, 6)
    for name in ("channels_last", "workers", "device"):
        del values[name]
    return values


def _same_place(one: object, other: object) -> bool:
    return str(one) == str(other) or os.path.realpath(str(one)) == os.path.realpath(str(other))


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
