"""What an environment is made of: its requirements, its key, and the files a build needs.

Imported by the platform, so it knows only the standard library and never looks at installed packages.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import re
import sys
import sysconfig
import tarfile
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_NAME = re.compile(r"^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(.*)$", re.DOTALL)
_COMMENT = re.compile(r"(^|\s+)#.*$")
_LOCAL = re.compile(r"^(\.{0,2}/|file:|[A-Za-z]:[\\/])")

# A ConfigMap holds 1 MiB in all; the server's archive takes some 30 KB of it.
MAX_REQUIREMENTS_BYTES = 256 * 1024


class RequirementsError(ValueError):
    """The requirements cannot be used; the message names the line and says what to do instead."""


def normalise_requirements(text: str) -> str:
    """The same requirements written one way: no comments, names as in PEP 503, sorted, one newline each.

    Options (``--index-url`` and the like) stay in front, in their order. Raises `RequirementsError` for lines
    that would need files beside ``requirements.txt``: the file is built alone.
    """
    if len(text.encode()) > MAX_REQUIREMENTS_BYTES:
        raise RequirementsError(f"requirements.txt is larger than {MAX_REQUIREMENTS_BYTES // 1024} KiB.")
    options, requirements = [], set()
    for number, line in _logical_lines(text):
        if line.startswith("-"):
            _refuse_other_files(number, line)
            options.append(line)
        elif _LOCAL.match(line) or "@ file:" in line:
            raise RequirementsError(
                f"requirements.txt line {number}: '{line}' is a local path. Name a published package, "
                "or put pure Python code into the package's 'libraries' folder."
            )
        else:
            match = _NAME.match(line)
            if not match:
                raise RequirementsError(f"requirements.txt line {number}: '{line}' is not a requirement.")
            name, rest = match.groups()
            requirements.add(re.sub(r"[-_.]+", "-", name).lower() + re.sub(r"\s+", " ", rest).strip())
    return "".join(line + "\n" for line in [*options, *sorted(requirements)])


def _logical_lines(text: str):
    """(number, line) of each requirement, with continuations joined and comments gone."""
    pending, start = "", 0
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        start = start or number
        line = _COMMENT.sub("", raw).strip()
        if line.endswith("\\"):
            pending += line[:-1].strip() + " "
            continue
        line, pending = (pending + line).strip(), ""
        if line:
            yield start, line
        start = 0
    if pending.strip():
        yield start, pending.strip()


def _refuse_other_files(number: int, line: str) -> None:
    option = re.split(r"[\s=]", line, maxsplit=1)[0]
    short = option[:2] if not option.startswith("--") else option
    if short in ("-r", "-c", "--requirement", "--constraint"):
        raise RequirementsError(
            f"requirements.txt line {number}: '{option}' reads another file. Put its lines into requirements.txt."
        )
    if short in ("-e", "--editable"):
        raise RequirementsError(
            f"requirements.txt line {number}: '{option}' is for development. Name a published package, "
            "or put the code into the package's 'libraries' folder."
        )


def is_r_runtime(runtime: str) -> bool:
    """Whether a base runtime's name (``r4.2``, ``python3.11``) is one of R."""
    return re.match(r"^r\d", runtime) is not None


def normalise(runtime: str, requirements: str) -> str:
    """Requirements in the form that the key is made of: requirements.txt for Python, renv.lock or code for R."""
    if not is_r_runtime(runtime):
        return normalise_requirements(requirements)
    text = requirements.strip()
    if not text.startswith("{"):
        return text + "\n" if text else ""
    try:
        return json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
    except ValueError as error:
        raise RequirementsError(f"renv.lock is not JSON: {error}.") from None


def platform_tag() -> str:
    """Machine and system that compiled packages are for, such as ``linux-x86_64``."""
    return sysconfig.get_platform().replace(".", "_")


def environment_hash(runtime: str, requirements: str, serving_digest: str, platform_tag: str, tree: str = "") -> str:
    """The key of an environment: 64 hexadecimal digits. Equal content in the same tree gives an equal key.

    `requirements` is normalised here, so spelling, order and comments make no difference.
    """
    parts = ["pilothouse-environment-2", runtime, normalise(runtime, requirements), serving_digest, platform_tag, tree]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.lru_cache(maxsize=1)
def serving_archive() -> tuple[bytes, str]:
    """This package as a tar.gz, the same bytes for the same sources, and its SHA-256.

    Only sources go in: ``*.py``, ``*.R`` and ``requirements.txt``, as ``pilothouse_serving/...``.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(_sources(), key=lambda path: path.as_posix()):
            content = (_HERE / path).read_bytes()
            member = tarfile.TarInfo("pilothouse_serving/" + path.as_posix())
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as compressed:
        compressed.write(raw.getvalue())
    # Of the tar, not of the gzip: another zlib may compress the same sources differently.
    return packed.getvalue(), hashlib.sha256(raw.getvalue()).hexdigest()


def _sources():
    for path in _HERE.rglob("*"):
        if path.is_file() and (path.suffix in (".py", ".R") or path.name == "requirements.txt"):
            yield path.relative_to(_HERE)


def build_script() -> bytes:
    """The builder as one file; it removes environments too."""
    return (_HERE / "build.py").read_bytes()


def build_files(runtime: str, requirements: str) -> dict[str, bytes]:
    """The files that a build reads, by name: what goes into the ConfigMap of its pod."""
    files = {"serving.tar.gz": serving_archive()[0], "build.py": build_script()}
    text = normalise(runtime, requirements)
    if not is_r_runtime(runtime):
        files["requirements.txt"] = text.encode()
    elif text.startswith("{"):
        files["renv.lock"] = text.encode()
    elif text:
        files["install_packages.R"] = text.encode()
    return files


if __name__ == "__main__":  # pragma: no cover - a convenience for building an environment by hand
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    requirements_text = Path(sys.argv[2]).read_text() if len(sys.argv) > 2 else ""
    for file_name, file_content in build_files("python", requirements_text).items():
        (target / file_name).write_bytes(file_content)
