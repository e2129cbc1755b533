"""How far containers can be shut off from the machine; found out once by trying."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

Isolation = Literal["root", "user", "none"]

_HERE = Path(__file__).parent
_TRY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from shim import kernel, sandbox
if sys.argv[2] == "user":
    sandbox.enter_user_namespace()
kernel.unshare(kernel.CLONE_NEWPID)
child = os.fork()
if child == 0:
    try:
        sandbox.build_root({"root": sys.argv[3], "mounts": [], "hostname": "try"})
        os.listdir("/usr")
        os._exit(0)
    finally:
        os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def probe(scratch: Path) -> Isolation:
    """The strongest isolation that works here: as root, in a user namespace, or none at all."""
    kinds: tuple[Isolation, ...] = ("root",) if os.geteuid() == 0 else ("user",)
    for kind in kinds:
        root = scratch / f"isolation-{kind}"
        root.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-I", "-S", "-c", _TRY, str(_HERE), kind, str(root)]
        try:
            result = subprocess.run(command, capture_output=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if result.returncode == 0:
            return kind
    return "none"
