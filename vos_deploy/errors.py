"""The few exceptions users see.

Each message is one sentence or two: what was expected, what was found, what to do about it.
"""


class VosDeployError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InputError(VosDeployError, ValueError):
    """What the caller gave is wrong: a frame, a mask, a video, an option."""

    exit_code = 2


class ModelError(InputError):
    """A model folder, a plan or a checkpoint that cannot be used."""
