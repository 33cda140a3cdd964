"""Time and memory of shrink and grow on large networks: python benchmarks/rescale.py

Claims: `graphscale shrink` and `grow` of a 550 MB VGG-19 take less than 10 s each and at most 2.5
times the file's size in memory; planning takes less than 3 s for ResNet-152 and DenseNet-201. Each
command runs as a user runs it, in a process of its own. Medians of five runs and the largest peak
memory, as the operating system counts it, are written to results/rescale.json.
"""

from __future__ import annotations

import argparse
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
    """Median seconds and largest peak of a command that works on `file`."""
    runs = [run(*arguments) for _ in range(RUNS)]
    seconds = statistics.median(second for second, _ in runs)
    peak = max(peak for _, peak in runs)
    size = file.stat().st_size
    print(f"{claim:28} {seconds:6.2f} s, {peak / 1e6:6.0f} MB = {peak / size:.2f} × the file")
    return {"seconds": seconds, "peak_bytes": peak, "file_bytes": size, "ratio": peak / size}


def write_networks(folder: Path) -> None:
    """Export the networks, with random weights, into `folder`."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from zoo import export

    for name in NETWORKS:
        onnx.save(export(name, "torchscript"), folder / f"{name}.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write-networks", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write_networks:
        write_networks(arguments.write_networks)
        return
    results: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "onnx": onnx.__version__,
        "runs": RUNS,
    }
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: the peak memory of later child processes includes their parent's.
        subprocess.run([sys.executable, __file__, "--write-networks", folder], check=True)
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
    main()
