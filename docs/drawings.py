"""Draw the pictures of the site: python docs/drawings.py

In: nothing but this file. Out: docs/images/floors.svg (the rooms of the code and who may import
whom) and docs/images/kernel_rescaling.svg (a network, its pre-train network, and what grows).
A test keeps the files up to date.
"""

from __future__ import annotations

from pathlib import Path

IMAGES = Path(__file__).parent / "images"
INK, SOFT, BLUE, ORANGE, PALE = "#263238", "#607d8b", "#3f51b5", "#e65100", "#eceff1"


class Drawing:
    """Shapes of an SVG, collected one after another."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="Helvetica, Arial, sans-serif" role="img">',
            f"<title>{title}</title>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0 0 10 5 0 10z" fill="{SOFT}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def box(self, x, y, width, height, fill="white", line=SOFT, radius=6) -> None:
        """A rectangle."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" '
            f'fill="{fill}" stroke="{line}"/>'
        )

    def text(self, x, y, text, size=13, fill=INK, anchor="middle", bold=False) -> None:
        """One line of text."""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" '
            f'text-anchor="{anchor}"{weight}>{text}</text>'
        )

    def arrow(self, x1, y1, x2, y2, color=SOFT, width=1.5) -> None:
        """A straight arrow."""
        self.parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}" '
            f'stroke-width="{width}" marker-end="url(#head)"/>'
        )

    def cells(self, x, y, count, size, fill) -> None:
        """A kernel of count × count taps."""
        for row in range(count):
            for column in range(count):
                self.box(x + column * size, y + row * size, size, size, fill, "white", 1)

    def stack(self, x, y, side, text, layers) -> None:
        """A square with its centre at (x, y), the first of so many channels."""
        for depth in range(8 * (layers - 1), -1, -8):
            self.box(x - side / 2 + depth, y - side / 2 - depth, side, side, PALE)
        self.text(x, y + 4, text, 12)

    def svg(self) -> str:
        """The picture as text."""
        return "\n".join([*self.parts, "</svg>", ""])


def floors() -> str:
    """The rooms, floor by floor, the lowest at the bottom."""
    drawing = Drawing(860, 636, "The floors of graphscale: each imports only floors below it")
    storeys = [
        ("commands", [("cli", "one file per command")]),
        ("what users import", [("api", "plan, shrink, grow")]),
        (
            "whole tasks",
            [
                ("rescaling", "ONNX models"),
                ("acceleration", "measure, choose"),
                ("modules", "torch modules"),
                ("training", "growth in a loop"),
                ("distributed", "many GPUs"),
            ],
        ),
        (
            "their parts",
            [
                ("passes", "steps on graphs, no torch"),
                ("convert", "ONNX ↔ torch"),
                ("layers", "fbcunn's layers in torch"),
            ],
        ),
        ("ground floor", [("core", "errors, model files, plan, resampling, sessions")]),
        (
            "front ends, C++",
            [
                ("custom_ops/onnxruntime", "operators for a session"),
                ("custom_ops/torch", "operators for torch"),
            ],
        ),
        ("kernels, C++ and CUDA", [("kernels/cpu", "SIMD"), ("kernels/cuda", "sm_80 and newer")]),
        ("", [("custom_ops/core", "operator, tensor, context: both devices, both front ends")]),
    ]
    for number, (label, rooms) in enumerate(storeys):
        y = 14 + number * 76 + (14 if number > 4 else 0)
        compiled = number > 4
        drawing.text(14, y + 34, label, 12, SOFT, "start")
        width = (680 - 10 * (len(rooms) - 1)) / len(rooms)
        for place, (name, what) in enumerate(rooms):
            x = 160 + place * (width + 10)
            drawing.box(round(x), y, round(width), 58, PALE if compiled else "#e8eaf6", SOFT)
            middle = round(x + width / 2)
            drawing.text(middle, y + 25, name, 14, BLUE if not compiled else INK, bold=True)
            drawing.text(middle, y + 44, what, 11.5, SOFT)
        if number < len(storeys) - 1:
            step = 76 + (14 if number == 4 else 0)
            drawing.arrow(500, y + 58, 500, y + step - 1)
    drawing.parts.append(
        f'<line x1="14" x2="846" y1="394" y2="394" stroke="{ORANGE}" stroke-dasharray="5 4"/>'
    )
    drawing.text(14, 389, "Python", 11, ORANGE, "start")
    drawing.text(14, 407, "libgraphscale.so", 11, ORANGE, "start")
    return drawing.svg()


def kernel_rescaling() -> str:
    """The target above, its pre-train network below, and what shrinks and grows between them."""
    drawing = Drawing(900, 466, "Kernel rescaling: the target above, its pre-train network below")
    # Name, top, colour; sides of image and maps in the picture; taps of the kernels.
    rows = [
        ("target", 34, BLUE, (120, "231×231"), 11, (76, "56×56"), 3, 6),
        ("pre-train network", 268, ORANGE, (78, "147×147"), 7, (50, "36×36"), 2, 4),
    ]
    for label, top, color, image, first, feature_map, second, rows_high in rows:
        middle = top + 74
        drawing.text(20, top - 12, label, 16, color, "start", bold=True)
        drawing.stack(80, middle, *image, layers=1)
        drawing.text(80, middle + image[0] / 2 + 17, "image", 12, SOFT)
        for centre, taps in ((255, first), (530, second)):
            drawing.cells(centre - taps * 5, middle - taps * 5, taps, 10, color)
            drawing.text(centre, middle + taps * 5 + 17, f"{taps}×{taps}")
        drawing.stack(412, middle, *feature_map, layers=3)
        drawing.stack(628, middle, rows_high * 9, f"{rows_high}×{rows_high}", layers=3)
        drawing.box(720, middle - rows_high * 9, 16, rows_high * 18, color, radius=2)
        drawing.text(728, middle + rows_high * 9 + 17, f"C·{rows_high}·{rows_high} rows")
        drawing.box(810, middle - 38, 16, 76, SOFT, radius=2)
        drawing.text(818, middle + 55, "classes", 12, SOFT)
        for start, end in ((148, 190), (320, 360), (474, 508), (554, 590), (676, 714), (744, 802)):
            drawing.arrow(start, middle, end, middle)
    for x in (255, 530, 728):
        drawing.arrow(x, 262, x, 206, ORANGE, 2)
    drawing.text(268, 238, "grow: bilinear, times (k̃/k)²", 13, ORANGE, "start")
    drawing.text(741, 238, "grow", 13, ORANGE, "start")
    drawing.arrow(80, 192, 80, 238, BLUE, 2)
    drawing.text(92, 222, "shrink", 13, BLUE, "start")
    drawing.text(
        450, 448, "all other weights (biases, BatchNorm, later layers) are copied", 13, SOFT
    )
    return drawing.svg()


PICTURES = {"floors.svg": floors, "kernel_rescaling.svg": kernel_rescaling}

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw())
