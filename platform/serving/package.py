"""What a deployment package is: found out by reading, never by importing.

A zip with ``deployment.py`` or ``deployment.R`` at its root or in one top folder, and optionally
``requirements.txt``, ``renv.lock`` or ``install_packages.R``, ``ubiops.yaml`` and ``libraries/``.
"""

from __future__ import annotations

import ast
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .archive import DEFAULT_LIMITS, ArchiveError, Limits, Member, members, open_zip, read
from .environment import RequirementsError, normalise, normalise_requirements

ENTRY_POINTS = {"deployment.py": "python", "deployment.R": "r"}
_JUNK = re.compile(r"^__MACOSX(/|$)|(^|/)\.DS_Store$")
_CODE_BYTES = 4 << 20
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


@dataclass(frozen=True)
class Problem:
    """Why a package cannot be deployed. `file` is its path in the package, "" for the archive as a whole."""

    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}" if self.file else self.message


@dataclass
class Package:
    """What was found. `root` is "" or "folder/"; `requirements` is the text as it stands in the package."""

    root: str = ""
    entry_point: str = ""
    language: str = ""
    has_request_method: bool = False
    has_requests_method: bool = False
    requirements: str = ""
    environment_variables: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    total_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)


def inspect(file: str | Path | BinaryIO, language: str = "", limits: Limits = DEFAULT_LIMITS) -> Package:
    """Look a package over. `language` ("python" or "r") settles a package that has both entry points.

    Never raises for a bad package: all that is wrong is in ``problems``, and nothing else counts then.
    """
    found = Package()
    try:
        with open_zip(file) as archive:
            entries = [entry for entry in members(archive, limits) if not _JUNK.search(entry.path)]
            _look_over(archive, entries, language, found)
    except ArchiveError as error:
        found.problems.append(Problem("", str(error)))
    return found


def find_root(paths: list[str]) -> str:
    """The folder of the package inside its archive: "" or "name/". Raises `ArchiveError` that says what to do."""
    paths = [path for path in paths if not _JUNK.search(path)]
    if any(path in ENTRY_POINTS for path in paths):
        return ""
    folders = sorted({path.split("/")[0] for path in paths if "/" in path})
    fitting = [name for name in folders if any(f"{name}/{entry}" in paths for entry in ENTRY_POINTS)]
    if "deployment_package" in fitting:
        return "deployment_package/"
    if len(fitting) == 1:
        return fitting[0] + "/"
    if len(fitting) > 1:
        raise ArchiveError(
            f"More than one folder has a deployment file: {', '.join(fitting[:5])}. Keep one, or name it "
            "'deployment_package'."
        )
    deeper = sorted(path for path in paths if path.split("/")[-1] in ENTRY_POINTS)
    hint = f" '{deeper[0]}' lies too deep." if deeper else ""
    raise ArchiveError(
        "There is no entry point: put deployment.py or deployment.R at the root of the zip or in its one top folder."
        + hint
    )


def _look_over(archive: zipfile.ZipFile, entries: list[Member], language: str, found: Package) -> None:
    files = {entry.path: entry for entry in entries if not entry.is_folder}
    found.root = find_root(list(files))
    inside = {path[len(found.root) :]: entry for path, entry in files.items() if path.startswith(found.root)}
    found.files = sorted(inside)
    found.total_bytes = sum(entry.size for entry in inside.values())
    entry_points = [name for name, spoken in ENTRY_POINTS.items() if name in inside and language in ("", spoken)]
    if not entry_points:
        wanted = next(name for name, spoken in ENTRY_POINTS.items() if spoken == language)
        found.problems.append(Problem("", f"There is no {wanted}, which this environment's language needs."))
        return
    found.entry_point = entry_points[0]
    found.language = ENTRY_POINTS[found.entry_point]
    texts = {}
    for name in (found.entry_point, "requirements.txt", "renv.lock", "install_packages.R", "ubiops.yaml"):
        if name in inside:
            try:
                texts[name] = read(archive, inside[name], _CODE_BYTES).decode("utf-8-sig")
            except UnicodeDecodeError:
                found.problems.append(Problem(name, "The file is not UTF-8 text."))
    _read_requirements(texts, found)
    _read_ubiops_yaml(texts.get("ubiops.yaml", ""), found)
    if found.entry_point in texts:
        look = _look_at_python if found.language == "python" else _look_at_r
        look(texts[found.entry_point], found)


def _read_requirements(texts: dict[str, str], found: Package) -> None:
    if found.language == "python":
        name, found.requirements = "requirements.txt", texts.get("requirements.txt", "")
    else:
        name = "renv.lock" if "renv.lock" in texts else "install_packages.R"
        found.requirements = texts.get(name, "")
    if "\0" in found.requirements:
        found.problems.append(Problem(name, "The file holds the character NUL, so it is no text."))
        return
    try:
        normalise_requirements(found.requirements) if found.language == "python" else normalise(
            "r4", found.requirements
        )
    except RequirementsError as error:
        found.problems.append(Problem(name, str(error)))


def _look_at_python(code: str, found: Package) -> None:
    """Find the class and its methods in the syntax tree. A base class or assignment may hide a method."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, (RecursionError, MemoryError)):
            line = "it is nested too deeply"
        elif isinstance(error, SyntaxError) and error.lineno:
            line = f"line {error.lineno}: {error.msg}"
        else:
            line = str(error)
        # Perhaps another Python understands it, but the message is worth more than a pod that fails.
        found.problems.append(Problem("deployment.py", f"The code cannot be read: {line}."))
        return
    maker = next(
        (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Deployment"), None
    )
    if maker is None:
        if _binds_name(tree, "Deployment"):
            found.has_request_method = True
            return
        found.problems.append(Problem("deployment.py", "There is no class named 'Deployment'."))
        return
    names = {node.name for node in maker.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    names |= {
        target.id
        for node in maker.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found.has_request_method = "request" in names
    found.has_requests_method = "requests" in names
    if maker.bases and not names & {"request", "requests"}:
        found.has_request_method = True  # Inherited, as far as can be seen from here.
    if not (found.has_request_method or found.has_requests_method):
        found.problems.append(
            Problem("deployment.py", "The class 'Deployment' has neither a method 'request' nor 'requests'.")
        )


def _binds_name(tree: ast.Module, name: str) -> bool:
    """Whether the module imports or assigns `name` at its top level."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            if any((alias.asname or alias.name) in (name, "*") for alias in node.names):
                return True
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return True
    return False


def _look_at_r(code: str, found: Package) -> None:
    """Find the functions by their assignment: R has no parser here."""
    code = re.sub(r"(?m)^\s*#.*$", "", code)
    defined = set(re.findall(r"(?m)^\s*([A-Za-z.][\w.]*)\s*(?:<-|=)\s*function\b", code))
    found.has_request_method = "request" in defined
    found.has_requests_method = "requests" in defined
    if not defined & {"request", "requests"} and "source(" not in code:
        found.problems.append(Problem("deployment.R", "There is no function named 'request'."))


def _read_ubiops_yaml(text: str, found: Package) -> None:
    if not text.strip():
        return
    # Only the platform reads this; a pod never does, so its environment needs no YAML.
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        found.problems.append(Problem("ubiops.yaml", f"This is not YAML{where}."))
        return
    except RecursionError:
        found.problems.append(Problem("ubiops.yaml", "Lists and mappings are nested too deeply."))
        return
    if content is None:
        return
    if not isinstance(content, dict):
        found.problems.append(Problem("ubiops.yaml", "A mapping such as 'environment_variables:' is needed."))
        return
    found.environment_variables = _variables(content.get("environment_variables"), found)
    if content.get("apt"):
        found.problems.append(
            Problem(
                "ubiops.yaml",
                "'apt' packages are not possible without an image: environments are built without root. Use Python "
                "or R packages that bring their libraries, or deploy a container image.",
            )
        )


def _variables(declared: Any, found: Package) -> dict[str, str]:
    """``NAME=value`` items, or a mapping."""
    items = declared.values() if isinstance(declared, dict) else declared if isinstance(declared, list) else ()
    # Written out, a list of lists of the same list may be larger than any memory.
    if any(isinstance(item, (list, dict, set, tuple)) for item in items):
        found.problems.append(Problem("ubiops.yaml", "Each of 'environment_variables' is a text such as NAME=value."))
        return {}
    if isinstance(declared, list):
        pairs = [str(item).partition("=")[::2] for item in declared]
    elif isinstance(declared, dict):
        pairs = [(str(name), "" if value is None else str(value)) for name, value in declared.items()]
    elif declared is None:
        pairs = []
    else:
        found.problems.append(Problem("ubiops.yaml", "'environment_variables' is a list of NAME=value."))
        pairs = []
    for name, value in pairs:
        if "\0" in value:
            found.problems.append(Problem("ubiops.yaml", f"The value of '{name[:60]}' holds the character NUL."))
        if not _VARIABLE.match(name.strip()):
            found.problems.append(
                Problem("ubiops.yaml", f"'{name[:60]}' is not a name for an environment variable (letters, digits, _).")
            )
    return {name.strip(): value.strip() for name, value in pairs}
