"""Zips for tests."""

import io
import stat
import zipfile
from typing import Any

DEPLOYMENT = "class Deployment:\n    def request(self, data):\n        return data\n"


def make_zip(files: dict[str, str | bytes], **attributes: Any) -> io.BytesIO:
    """A zip in memory. `attributes` are set on every entry's ZipInfo."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.writestr(info, content)
    buffer.seek(0)
    return buffer


def link_zip(name: str, target: str) -> io.BytesIO:
    """A zip whose one entry is a symbolic link."""
    return make_zip({name: target}, create_system=3, external_attr=(stat.S_IFLNK | 0o777) << 16)
