"""Become another program, tied to the life of the parent.

Usage: ``python -I -S launch.py [options] -- PROGRAM ARGS``.

A file of its own, standard library only, so that it starts in milliseconds and needs no package path.

Options:

``--identity same``
    stay who we are (the default);
``--identity userns``
    enter a user namespace that maps nobody. The kernel still sees the owner of our files, so no file changes
    hands, but the program sees an unprivileged user; PostgreSQL, which refuses to run as root, accepts that;
``--identity UID``
    give up root for that numeric user;
``--parent PID --death-signal N``
    receive signal N when the parent dies, and do not start at all when it is dead already.

Exit status 126: the identity could not be taken; 127: the program could not be started.
"""

import argparse
import ctypes
import os
import signal
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def take_identity(identity: str) -> None:
    """Change who this process is; raises OSError when the kernel refuses."""
    if identity == "same":
        return
    if identity == "userns":
        if _libc().unshare(CLONE_NEWUSER) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return
    uid = int(identity)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def die_with_parent(parent: int, signal_number: int) -> None:
    """Ask for ``signal_number`` at the parent's death; a later change of identity would clear it."""
    _libc().prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("launch.py: the process that asked for this start is gone")


def forget_signal_settings() -> None:
    """What our starter blocks or ignores (shells ignore SIGINT in the background) is not the program's business."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="launch.py")
    parser.add_argument("--identity", default="same")
    parser.add_argument("--parent", type=int, default=0)
    parser.add_argument("--death-signal", type=int, default=15)
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    command = argv[split + 1 :]
    if not command:
        parser.error("name the program to start after --")
    forget_signal_settings()
    try:
        take_identity(options.identity)
    except OSError as error:
        print(f"launch.py: cannot become {options.identity}: {error.strerror}", file=sys.stderr)
        sys.exit(126)
    if options.parent:
        die_with_parent(options.parent, options.death_signal)
    try:
        os.execvpe(command[0], command, os.environ)  # noqa: S606 no shell is wanted
    except OSError as error:
        print(f"launch.py: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
