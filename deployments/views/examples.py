"""The packages in ``examples/`` as starting points: each folder with a ``pilothouse.json`` is one."""

import io
import json
import zipfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.base import File

DESCRIPTION = "pilothouse.json"
# What makes an example but does not run: left out of the package.
NOT_PACKAGED = {DESCRIPTION, "README.md", "train.py", "train.R", "request.json"}
LABEL = "example"


@dataclass(frozen=True)
class Example:
    """``runtime`` is a key of PILOTHOUSE_RUNTIME_IMAGES; ``request`` the body of a request that works."""

    slug: str
    folder: Path
    title: str
    sentence: str
    runtime: str
    input_type: str = "structured"
    output_type: str = "structured"
    input_fields: list[dict[str, Any]] = field(default_factory=list)
    output_fields: list[dict[str, Any]] = field(default_factory=list)
    request: Any = None

    @property
    def language(self) -> str:
        return "R" if self.runtime.startswith("r") else "Python"

    def package(self) -> File:
        """The folder as a deployment package; the same bytes each time, so that it is stored once."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(self.folder.rglob("*")):
                relative = path.relative_to(self.folder)
                hidden = any(part.startswith((".", "__")) for part in relative.parts)
                if path.is_file() and not hidden and relative.as_posix() not in NOT_PACKAGED:
                    archive.writestr(zipfile.ZipInfo(relative.as_posix()), path.read_bytes(), zipfile.ZIP_DEFLATED)
        buffer.seek(0)
        return File(buffer, name=f"{self.slug}.zip")


@lru_cache
def all_examples(folder: Path | None = None) -> dict[str, Example]:
    """By slug, in the order of titles."""
    root = folder or settings.BASE_DIR / "examples"
    found = [_read(path) for path in root.glob(f"*/{DESCRIPTION}")]
    return {example.slug: example for example in sorted(found, key=lambda example: example.title)}


def _read(path: Path) -> Example:
    told = json.loads(path.read_text())
    request = path.parent / "request.json"
    return Example(
        slug=path.parent.name,
        folder=path.parent,
        title=told["title"],
        sentence=told["sentence"],
        runtime=told["runtime"],
        input_type=told.get("input_type", "structured"),
        output_type=told.get("output_type", "structured"),
        input_fields=told.get("input_fields", []),
        output_fields=told.get("output_fields", []),
        request=json.loads(request.read_text()) if request.exists() else told.get("request"),
    )
