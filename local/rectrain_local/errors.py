"""What can go wrong with the local cluster, each with the exit status of its command.

Raised anywhere in `rectrain_local`, turned into one sentence by `cli`. Each message says what failed, where,
and how to mend it, because a user sees nothing else.
"""

from __future__ import annotations

EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_OSERR = 71
EX_TEMPFAIL = 75
EX_NO_COMMAND = 127  # as shells have it


class LocalError(Exception):
    """Base of all; never raised itself."""

    exit_code: int = EX_SOFTWARE


class UsageError(LocalError):
    """The command line asks for something impossible."""

    exit_code = EX_USAGE


class AssetsUnavailable(LocalError):
    """A binary could be had by none of the ways; the message lists them all."""

    exit_code = EX_UNAVAILABLE


class ComponentFailed(LocalError):
    """A process of the cluster ended, or didn't become ready; the message quotes its log."""

    exit_code = EX_SOFTWARE


class PortTaken(ComponentFailed):
    """A component met a port that was free a moment ago; starting again with other ports helps."""


class SandboxRefused(LocalError):
    """This machine doesn't let us make user namespaces; the message names the setting."""

    exit_code = EX_OSERR


class ClusterBusy(LocalError):
    """Another command holds the cluster's state folder."""

    exit_code = EX_TEMPFAIL


class NotRunning(LocalError):
    """A command needs a running cluster, and there is none."""

    exit_code = EX_UNAVAILABLE


class CommandMissing(LocalError):
    """`exec` was given a program that isn't there."""

    exit_code = EX_NO_COMMAND
