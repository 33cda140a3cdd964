"""Time and memory of shrink and grow on large networks: python benchmarks/rescale.py.

Claims: a 550 MB VGG-19 shrinks and grows in under 10 s each with at most 2.5 times the file in
memory; ResNet-152 and DenseNet-201 plan in under 3 s. Each command is run as a user runs it, in a
process of its own; the medians of five runs and the operating system's peak memory are written to
results/rescale.json.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx

NETWORKS = ("vgg19", "resnet152", "densenet201")
RUNS = 5
RESULTS = Path(__file__).parent / "results" / "rescale.json"


def run(*arguments: str | Path) -> tuple[float, int]:
    """Seconds and peak bytes of one graphscale command."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "graphscale", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        cwd=tempfile.gettempdir(),  # so that the installed package is measured
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"graphscale {' '.join(map(str, arguments))} failed")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def measure(claim: str, file: Path, *arguments: str | Path) -> dict[str, object]:
    runs = [run(*arguments) for _ in range(RUNS)]
    seconds = statistics.median(second for second, _ in runs)
    peak = max(peak for _, peak in runs)
    size = file.stat().st_size
    print(f"{claim:28} {seconds:6.2f} s, {peak / 1e6:6.0f} MB = {peak / size:.2f} × the file")
    return {"seconds": seconds, "peak_bytes": peak, "file_bytes": size, "ratio": peak / size}


def write_networks(folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from zoo import export

    for name in NETWORKS:
        onnx.save(export(name, "torchscript"), folder / f"{name}.onnx")


def main() -> None:
    results: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "onnx": onnx.__version__,
        "runs": RUNS,
    }
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's peak memory starts from its parent's.
        subprocess.run([sys.executable, __file__, folder], check=True)
        files = {name: Path(folder) / f"{name}.onnx" for name in NETWORKS}
        vgg = files["vgg19"]
        results["vgg19 shrink"] = measure("vgg19 shrink", vgg, "shrink", vgg)
        results["vgg19 grow"] = measure(
            "vgg19 grow", vgg, "grow", vgg.with_suffix(".pretrain.onnx")
        )
        for name in NETWORKS[1:]:
            results[f"{name} plan"] = measure(
                f"{name} plan", files[name], "shrink", files[name], "--dry-run"
            )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    write_networks(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
