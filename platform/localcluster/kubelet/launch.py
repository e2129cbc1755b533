"""How a container is to be started: user, environment, mounts, limits — everything the shim needs to know."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from localcluster.client import Object
from localcluster.kubelet.attempts import PodRecord
from localcluster.kubelet.environment import ConfigError, command_line, declared, expand, service_links
from localcluster.kubelet.host import NOBODY, Host
from localcluster.kubelet.images import Runtime
from localcluster.kubelet.processes import Shim
from localcluster.quantity import milli, whole
from localcluster.times import rfc3339

_SITE = Path(__file__).parent / "pod_site"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Volumes that the kubelet keeps up to date; containers may only read them.
_KEPT_KINDS = ("configMap", "secret", "downwardAPI", "projected")
_LOG_LIMIT = 10 * 1024 * 1024
_LOG_FILES = 5


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container finds around it: its pod as that is now, and what the kubelet has set up for the pod.

    `volumes` are directories by the volumes' names, `addresses` podIP and hostIP, `allocatable` the node's amounts,
    `devices` the variables that name the container's share of the pod's devices.
    """

    pod: Object
    host: Host
    record: PodRecord
    volumes: Mapping[str, Path]
    addresses: Mapping[str, str]
    allocatable: Mapping[str, str]
    devices: Mapping[str, str]


def label(pod: Object) -> str:
    """The pod as the kubelet names it in its messages."""
    metadata = pod["metadata"]
    return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"


def stamp(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


def user_of(pod: Object, container: Object, host: Host) -> tuple[int, int]:
    """(uid, gid) of a container: what its security context says, nobody when that says nothing.

    The kubelet's own where it cannot be another: not being root, or having no mount namespace in which another
    user could reach the pod's files.
    """
    if not switches_user(host):
        return os.geteuid(), os.getegid()
    own, shared = container.get("securityContext") or {}, pod["spec"].get("securityContext") or {}
    uid = own.get("runAsUser", shared.get("runAsUser"))
    gid = own.get("runAsGroup", shared.get("runAsGroup"))
    if uid is None:
        return NOBODY, NOBODY if gid is None else gid
    return uid, (0 if uid == 0 else NOBODY) if gid is None else gid


def switches_user(host: Host) -> bool:
    return os.geteuid() == 0 and host.isolation == "root"


def group_name(pod: Object, container: str, number: int) -> str:
    return f"{pod['metadata']['uid']}-{container}-{number}"


async def configuration(around: Surroundings, spec: Object, number: int, runtime: Runtime) -> dict[str, Any]:
    """The shim's configuration for attempt `number` of the container `spec`; makes the attempt's directory.

    ConfigError when something that the container names is missing.
    """
    pod, host = around.pod, around.host
    uid, gid = user_of(pod, spec, host)
    _check_user(pod, spec, uid, host)
    isolated = host.isolation != "none"
    mounts = _mounts(around, spec)
    environment = await _environment(around, spec, number, runtime)
    directory = around.record.begin(spec["name"], number)
    root = directory / "root"
    _make_root(root, runtime, uid, gid)
    log_file = directory / "termination-log"
    log_file.touch()
    log_file.chmod(0o666)
    mounts.append({"source": str(log_file), "target": spec.get("terminationMessagePath") or "/dev/termination-log"})
    mounts += [{"source": place, "target": place, "readonly": True} for place in runtime.directories]
    mounts.append({"source": str(_SITE), "target": "/runtime/site", "readonly": True})
    mounts.append({"source": str(_hosts_file(around)), "target": "/etc/hosts", "readonly": True})
    argv = command_line(spec, environment, ["python3"] if runtime.name.startswith("python") else ["R", "--no-save"])
    cwd = spec.get("workingDir") or "/"
    if not isolated:
        argv, environment, cwd = _without_mounts(argv, environment, cwd, mounts, root, spec)
    limits = (spec.get("resources") or {}).get("limits") or {}
    memory = whole(limits["memory"]) if limits.get("memory") else None
    cpu = milli(limits["cpu"]) if limits.get("cpu") else None
    group = host.cgroups.create(group_name(pod, spec["name"], number), cpu, memory) if memory or cpu else None
    own, shared = spec.get("securityContext") or {}, pod["spec"].get("securityContext") or {}
    return {
        "directory": str(directory),
        "root": str(root),
        "argv": argv,
        "env": environment,
        "cwd": cwd,
        "uid": uid,
        "gid": gid,
        "groups": sorted({gid, *shared.get("supplementalGroups", []), *_fs_group(shared)}),
        "switch_user": switches_user(host),
        "readonly_root": bool(own.get("readOnlyRootFilesystem")),
        "privilege_escalation": own.get("allowPrivilegeEscalation", uid == 0),
        "isolation": host.isolation,
        "hostname": hostname(pod),
        "mounts": sorted(mounts, key=lambda mount: mount["target"].count("/")),
        "cgroups": list(group.paths) if group else [],
        "oom_file": group.oom_file if group else None,
        "memory_poll": memory if memory and not (group and group.memory_limited) else 0,
        "log_limit": _LOG_LIMIT,
        "log_files": _LOG_FILES,
    }


def _fs_group(context: Object) -> list[int]:
    return [context["fsGroup"]] if context.get("fsGroup") is not None else []


def _check_user(pod: Object, spec: Object, uid: int, host: Host) -> None:
    own, shared = spec.get("securityContext") or {}, pod["spec"].get("securityContext") or {}
    if not switches_user(host):
        return
    if uid == 0 and own.get("runAsNonRoot", shared.get("runAsNonRoot")):
        text = f'container\'s runAsUser breaks non-root policy (pod: "{label(pod)}", container: {spec["name"]})'
        raise ConfigError(text)


def hostname(pod: Object) -> str:
    return (pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def _hosts_file(around: Surroundings) -> Path:
    """The pod's /etc/hosts, written anew."""
    path = around.record.directory / "hosts"
    lines = ["# Kubernetes-managed hosts file.", "127.0.0.1\tlocalhost"]
    lines += ["::1\tlocalhost ip6-localhost ip6-loopback", f"{around.addresses['podIP']}\t{hostname(around.pod)}"]
    aliases = around.pod["spec"].get("hostAliases") or []
    if aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias["ip"], *(alias.get("hostnames") or [])]) for alias in aliases]
    path.write_text("\n".join(lines) + "\n")
    return path


def _make_root(root: Path, runtime: Runtime, uid: int, gid: int) -> None:
    """Directories a program expects to find and may write to."""
    root.mkdir(mode=0o755)
    for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755), ("home/user", 0o755), ("root", 0o755)):
        path = root / name
        path.mkdir(parents=True)
        path.chmod(mode)
    binaries = root / "runtime/bin"
    binaries.mkdir(parents=True)
    for name, target in runtime.links.items():
        (binaries / name).symlink_to(target)
    if os.geteuid() == 0:
        for path in (root, root / "home/user", root / "run", root / "root"):
            os.chown(path, uid, gid)


async def _environment(around: Surroundings, spec: Object, number: int, runtime: Runtime) -> dict[str, str]:
    pod, host = around.pod, around.host
    metadata = pod["metadata"]
    uid, _ = user_of(pod, spec, host)
    isolated = host.isolation != "none"
    root = around.record.attempt(spec["name"], number) / "root"
    home = "/root" if uid == 0 and os.geteuid() == 0 else "/home/user"
    binaries = "/runtime/bin" if isolated else str(root / "runtime/bin")
    links = [] if not runtime.links else [binaries]
    base = {
        "PATH": ":".join([*links, *runtime.path, _SYSTEM_PATH]),
        "HOSTNAME": hostname(pod),
        "HOME": home if isolated else str(root) + home,
        **runtime.env,
        "LOCALCLUSTER_POD_IP": around.addresses["podIP"],
    }
    if uid == os.geteuid() and uid not in (0, NOBODY):
        with contextlib.suppress(KeyError):
            base["USER"] = pwd.getpwuid(uid).pw_name
    base |= _links(around)
    base |= around.devices
    declaration = await declared(
        pod,
        spec,
        partial(host.lookup, metadata["namespace"]),
        base=base,
        addresses=around.addresses,
        allocatable=around.allocatable,
    )
    site = "/runtime/site" if isolated else str(_SITE)
    own = declaration.get("PYTHONPATH")
    declaration["PYTHONPATH"] = f"{site}:{own}" if own else site
    return declaration


def _links(around: Surroundings) -> dict[str, str]:
    services = list(around.host.services.objects.values())
    own = around.pod["metadata"]["namespace"] if around.pod["spec"].get("enableServiceLinks", True) else None
    links: dict[str, str] = {}
    kubernetes = [s for s in services if s["metadata"]["name"] == "kubernetes"]
    links |= service_links(kubernetes, "default")
    if own:
        links |= service_links(services, own)
    return links


def _mounts(around: Surroundings, spec: Object) -> list[dict[str, Any]]:
    pod = around.pod
    mounts = []
    kept = {
        volume["name"] for volume in pod["spec"].get("volumes") or () if any(volume.get(kind) for kind in _KEPT_KINDS)
    }
    for mount in spec.get("volumeMounts") or []:
        source = around.volumes[mount["name"]]
        sub = mount.get("subPath") or ""
        if mount.get("subPathExpr"):
            names = {"POD_NAME": pod["metadata"]["name"]} | {
                entry["name"]: entry.get("value", "") for entry in spec.get("env") or []
            }
            sub = expand(mount["subPathExpr"], names)
        if sub:
            if ".." in Path(sub).parts or sub.startswith("/"):
                raise ConfigError(f"volumeMounts {mount['name']}: subPath {sub} must stay inside the volume")
            source = _below(source, Path(sub))
        readonly = bool(mount.get("readOnly")) or mount["name"] in kept
        mounts.append({"source": str(source), "target": mount["mountPath"], "readonly": readonly})
    return mounts


def _below(volume: Path, sub: Path) -> Path:
    """A folder of a volume for a ``subPath``; one that is not there is the kubelet's own, with the volume's mode.

    Source: kubernetes pkg/kubelet/kubelet_pods.go (makeMounts), pkg/volume/util/subpath (SafeMakeDir).
    """
    mode = stat.S_IMODE(volume.stat().st_mode)
    path = volume
    for part in sub.parts:
        path = path / part
        if not path.exists():
            path.mkdir()
            path.chmod(mode)
    return path


def _rewriter(mounts: list[dict[str, Any]]) -> Callable[[str], str]:
    """Replaces paths below a mountPath by those of the volume on this machine."""
    table = {
        os.path.normpath(mount["target"]): mount["source"]
        for mount in mounts
        if os.path.normpath(mount["target"]) != mount["source"]
    }
    places = sorted(table, key=len, reverse=True)
    pattern = re.compile(r"(?<![\w./-])(" + "|".join(map(re.escape, places)) + r")(?![\w.-])") if places else None

    def rewrite(text: str) -> str:
        return pattern.sub(lambda match: table[match[1]], text) if pattern else text

    return rewrite


def _without_mounts(
    argv: list[str], environment: dict[str, str], cwd: str, mounts: list[dict[str, Any]], root: Path, spec: Object
) -> tuple[list[str], dict[str, str], str]:
    """Where no mount namespace can be had, paths below a mountPath are rewritten to where the volume is."""
    rewrite = _rewriter(mounts)
    environment = {name: rewrite(value) for name, value in environment.items()}
    environment.setdefault("TMPDIR", str(root / "tmp"))
    return [rewrite(text) for text in argv], environment, rewrite(cwd) if spec.get("workingDir") else str(root)


def exec_configuration(
    around: Surroundings, spec: Object, shim: Shim, environment: Mapping[str, str], argv: list[str], tty: bool
) -> dict[str, Any]:
    """What running a command in a container needs; `environment` is what the container was started with.

    That of a container which an earlier kubelet started is empty: it is read from its process.
    """
    pod, host = around.pod, around.host
    uid, gid = user_of(pod, spec, host)
    shared = pod["spec"].get("securityContext") or {}
    isolated = host.isolation != "none"
    cwd = spec.get("workingDir") or "/"
    if not isolated:
        rewrite = _rewriter(_mounts(around, spec))
        argv = [rewrite(text) for text in argv]
    return {
        "pid": shim.pid,
        "isolation": host.isolation,
        "argv": argv,
        "env": dict(environment or _environment_of(shim.pid)) | ({"TERM": "xterm"} if tty else {}),
        "cwd": cwd if isolated else str(shim.directory / "root"),
        "uid": uid,
        "gid": gid,
        "groups": sorted({gid, *shared.get("supplementalGroups", []), *_fs_group(shared)}),
        "switch_user": switches_user(host),
        "privilege_escalation": (spec.get("securityContext") or {}).get("allowPrivilegeEscalation", uid == 0),
        "tty": tty,
    }


def _environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with (for containers that an earlier kubelet started)."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {"PATH": _SYSTEM_PATH}
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, _, value in pairs}
