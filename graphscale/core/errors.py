"""The one family of errors that graphscale raises for input it cannot use."""


class GraphScaleError(Exception):
    """Input that graphscale cannot use.

    The message is one sentence that names the file, node or tensor and ends in what to do. The
    command line prints it and exits with status 2.
    """
