"""Inside the child: a root file system of its own, an unprivileged user, then the program.

Standard library only: the shim loads this file alone. The root is a directory on disk with read-only binds of the
machine's system directories, so that programs run unchanged and see neither other pods nor the kubelet's data.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
from typing import Any

from . import kernel

Config = dict[str, Any]

# Top-level directories that make up "the image"; everything else of the machine is out of sight.
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "nix")
_FILES = ("/etc/resolv.conf", "/etc/localtime", "/etc/nsswitch.conf")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")
_TTY_GROUP = 5  # of terminals, everywhere
_ACCELERATORS = ("nvidia", "dri", "kfd", "dxg", "accel")
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
# What container runtimes leave to root in a container (docker's default set).
_ROOT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})


def enter_user_namespace() -> None:
    """A user namespace in which the caller keeps its ids; needs no privilege where the machine permits it."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(content)


def join_cgroups(paths: list[str]) -> None:
    for path in paths:
        with open(f"{path}/cgroup.procs", "w") as stream:
            stream.write("0")


def build_root(config: Config) -> None:
    """Mount the container's root file system and make it this process's root."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root = config["root"]
    kernel.bind(root, root)
    os.chdir(root)
    for name in _SYSTEM:
        _system_directory(root, name)
    for path in _FILES:
        _linked_file(root, path)
    _devices(root)
    os.makedirs(f"{root}/proc", exist_ok=True)
    try:
        kernel.mount("proc", f"{root}/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    except OSError:
        kernel.bind("/proc", f"{root}/proc")  # some containers do not permit a new one
    os.makedirs(f"{root}/sys", exist_ok=True)
    _bind_quietly("/sys", f"{root}/sys")
    for mount in config["mounts"]:
        _volume(root, mount)
    socket.sethostname(config["hostname"])
    kernel.pivot_root(root)
    if config.get("readonly_root"):
        os.makedirs(config.get("cwd") or "/", exist_ok=True)
        kernel.remount_readonly("/")


def _system_directory(root: str, name: str) -> None:
    source, target = f"/{name}", f"{root}/{name}"
    if os.path.islink(source):
        if not os.path.lexists(target):
            os.symlink(os.readlink(source), target)
    elif os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        _bind_quietly(source, target)


def _linked_file(root: str, path: str) -> None:
    """A file of /etc that is a link out of the system directories (resolv.conf often points into /run)."""
    real = os.path.realpath(path)
    if os.path.isfile(real) and not any(real.startswith(f"/{name}/") for name in _SYSTEM):
        _mount_point(real, root + real)
        _bind_quietly(real, root + real)


def _bind_quietly(source: str, target: str) -> None:
    kernel.bind(source, target)
    try:
        kernel.remount_readonly(target)
    except OSError:
        # Read-only is comfort here: file permissions already keep an unprivileged user from writing.
        return


def _devices(root: str) -> None:
    os.makedirs(f"{root}/dev", exist_ok=True)
    present = [name for name in os.listdir("/dev") if name.startswith(_ACCELERATORS)]
    for name in (*_DEVICES, *present):
        source, target = f"/dev/{name}", f"{root}/dev/{name}"
        if not os.path.exists(source):
            continue
        _mount_point(source, target)
        kernel.bind(source, target)
    _terminals(root)
    shared = f"{root}/dev/shm"  # noqa: S108 - a mount point of the container
    os.makedirs(shared, exist_ok=True)
    kernel.mount("shm", shared, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777,size=1g")
    for name, target in _LINKS:
        if not os.path.lexists(f"{root}/dev/{name}"):
            os.symlink(target, f"{root}/dev/{name}")


def _terminals(root: str) -> None:
    """Pseudo terminals of the container's own, as container runtimes give; the machine's where none can be had."""
    place, link = f"{root}/dev/pts", f"{root}/dev/ptmx"
    os.makedirs(place, exist_ok=True)
    # A user namespace of one id does not know the group that terminals belong to.
    for group in (f",gid={_TTY_GROUP}", ""):
        try:
            options = f"newinstance,ptmxmode=0666,mode=0620{group}"
            kernel.mount("devpts", place, "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, options)
        except OSError:
            continue
        if not os.path.lexists(link):
            os.symlink("pts/ptmx", link)
        return
    if os.path.isdir("/dev/pts") and os.path.exists("/dev/ptmx"):
        kernel.bind("/dev/pts", place)
        _mount_point("/dev/ptmx", link)
        kernel.bind("/dev/ptmx", link)


def _mount_point(source: str, target: str) -> None:
    """Make what can be mounted over: a directory for a directory, an empty file for anything else."""
    if os.path.lexists(target) and os.path.isdir(target) == os.path.isdir(source):
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def _volume(root: str, mount: Config) -> None:
    inside = os.path.normpath(mount["target"])
    target = _resolve(root, inside)
    try:
        _mount_point(mount["source"], target)
    except OSError as error:
        raise OSError(
            error.errno, f"mountPath {inside}: {error.strerror}; choose a path outside system directories"
        ) from error
    kernel.bind(mount["source"], target, mount.get("readonly", False))


def _resolve(root: str, path: str) -> str:
    """`path` below `root`, following links as if `root` were the root (so that none leads out)."""
    parts, done, links = path.strip("/").split("/"), "", 0
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        step = f"{done}/{part}"
        if os.path.islink(root + step) and links < 40:
            links += 1
            link = os.readlink(root + step)
            parts = link.strip("/").split("/") + parts
            done = "" if link.startswith("/") else done
        else:
            done = step
    return root + done


def become(config: Config) -> None:
    """Drop to the container's user and tie this process to its parent."""
    uid, gid = config["uid"], config["gid"]
    if os.geteuid() == 0 and config["switch_user"]:
        if uid == 0:
            kernel.drop_bounding_capabilities(_ROOT_CAPABILITIES)
        os.setgroups(config.get("groups") or [gid])
        os.setgid(gid)
        os.setuid(uid)
    if not config.get("privilege_escalation", True):
        kernel.set_no_new_privileges()
    # After the change of user, as that clears it: no container outlives its shim.
    kernel.set_parent_death_signal(signal.SIGKILL)


def execute(config: Config) -> None:
    """Replace this process by the container's program, looked up in the container's own PATH."""
    argv, environment = config["argv"], config["env"]
    directory = config.get("cwd") or "/"
    os.makedirs(directory, exist_ok=True)
    os.chdir(directory)
    program = find_program(argv[0], environment.get("PATH", ""))
    # What we ignore, or what whoever started the cluster ignored (nohup), is not the program's.
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execve(program, argv, environment)  # noqa: S606 - running the pod's program is the purpose


def find_program(name: str, path: str) -> str:
    """The file to execute; OSError in the words of the OCI runtime when there is none."""
    if "/" in name:
        try:
            mode = os.stat(name).st_mode
        except OSError as error:
            raise FileNotFoundError(
                error.errno, f'exec: "{name}": stat {name}: {(error.strerror or "").lower()}'
            ) from error
        if stat.S_ISDIR(mode) or not os.access(name, os.X_OK):
            raise PermissionError(13, f'exec: "{name}": permission denied')
        return name
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(2, f'exec: "{name}": executable file not found in $PATH')
