"""Stored files as downloads."""

from django.http import FileResponse

from deployments.services.artifacts import StoredFile


def download(stored: StoredFile) -> FileResponse:
    """Streams the file under the name it was uploaded with; the ETag is its digest."""
    response = FileResponse(
        stored.open(), as_attachment=True, filename=stored.file_name, content_type="application/octet-stream"
    )
    response.headers["Content-Length"] = str(stored.size)
    response.headers["ETag"] = f'"{stored.digest}"'
    return response
