"""Small images of two classes, red and blue, for trainings on a folder."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_red_and_blue(
    folder: Path,
    count: int,
    random: np.random.Generator,
    *,
    noise: int,
    colour: int,
    size: tuple[int, int] = (20, 24),
) -> None:
    """Write `count` images of each class into folder/red and folder/blue.

    Their values are below `noise`, with `colour` added to the channel of the class.
    """
    for channel, name in ((0, "red"), (2, "blue")):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, noise, (*size, 3), np.uint8)
            pixels[:, :, channel] += colour
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
