"""Lists that come in pages, `{"next", "previous", "results"}`, and how the schema tells of them."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers

CURSOR = OpenApiParameter("cursor", description="of an earlier answer's next or previous")
PART = (
    OpenApiParameter("limit", int, description="at most this many; all without it"),
    OpenApiParameter("offset", int, description="leave out this many first"),
)
LIMIT = OpenApiParameter("limit", int, description="results a page")


def paginated(name: str, serializer: type[serializers.Serializer], **parameters: str) -> dict[str, Any]:
    """Keyword arguments of `extend_schema` for a paged list; ``parameters`` are further query parameters."""
    return {
        "parameters": [CURSOR, LIMIT, *(OpenApiParameter(key, description=text) for key, text in parameters.items())],
        "responses": inline_serializer(
            f"{name}Page",
            {
                "next": serializers.URLField(allow_null=True),
                "previous": serializers.URLField(allow_null=True),
                "results": serializer(many=True),
            },
        ),
    }
