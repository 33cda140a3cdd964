"""Commands that the tests start heed signals, however the tests themselves were started."""

import signal


def heed_signals() -> None:
    """In a child process: undo what nohup, or a shell's background, makes it ignore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
