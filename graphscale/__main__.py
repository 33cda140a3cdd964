"""The process of the command `graphscale`, also as python -m graphscale."""

import signal
import sys


def command() -> int:
    """Run the command and return its exit status.

    Ctrl-C before the command runs, while Python imports it, and after it has ended, while the
    libraries' own cleaning up runs, ends the process at once and without a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if nohup set another
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from graphscale.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(command())
