"""Trains on two hosts with a slow link that loses packets; one dies. test_hosts.py runs it.

python two_hosts.py FOLDER END: FOLDER holds images and the network. END is 'kill' (the process of
the second host kills itself in the second epoch) or 'unplug' (the second host's link is cut).
Prints what both processes said, their exit statuses, and the seconds from one's end to both's.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from distributed.hosts import Hosts, enter

OPTIONS = ["--data", "images", "--image-size", "16", "--epochs", "1000", "--batch", "8"]
OPTIONS += ["--rate", "0.02", "--augmentation", "crop", "--workers", "0", "--recipe", "target"]


def main(folder: str, end: str) -> None:
    os.chdir(folder)
    command = [sys.executable, "-m", "graphscale", "train", "mortal_network:network"]
    with Hosts(2, rate="100mbit", loss=0.01) as hosts:
        processes = []
        for rank in range(2):
            environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
            environment |= {"MASTER_ADDR": hosts.address(0), "MASTER_PORT": "29500"}
            environment |= {"PYTHONPATH": os.pathsep.join([folder, os.environ["PYTHONPATH"]])}
            whole = [*command, *OPTIONS, "-o", end]
            processes.append(
                hosts.start(rank, whole, env=environment, stderr=subprocess.PIPE, text=True)
            )
        for line in processes[0].stderr:
            if line.startswith("epoch   1 "):
                break
        if end == "unplug":
            hosts.unplug(1)
        else:
            processes[1].wait()
        ended = time.monotonic()
        said = [process.communicate()[1] for process in processes]
        seconds = time.monotonic() - ended
    statuses = [process.returncode for process in processes]
    print(json.dumps({"said": said, "statuses": statuses, "seconds": seconds}))


if __name__ == "__main__":
    enter()
    main(*sys.argv[1:])
