"""Rules of the source tree that no other tool holds."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_platform_is_a_source_root_and_never_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), (
        "platform/__init__.py would shadow the standard library's platform module and break `import uuid`"
    )


def test_the_standard_library_keeps_its_platform_module() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import platform, uuid; print(platform.system(), uuid.uuid4().version)"],
        cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["Linux", "4"]
