"""Pieces that several answers share. Shapes follow the public `ubiops` client 4.15; our own fields come last."""

from typing import Any

from rest_framework import serializers

from deployments.api.base import Input


class Labels(serializers.DictField):
    """Text to text."""

    child = serializers.CharField(allow_blank=True)


class TextOrNull(serializers.CharField):
    """Text that the public client wants to be null when it is empty."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, **kwargs)

    def to_representation(self, value: Any) -> Any:
        return super().to_representation(value) or None


class Field(Input):
    """An input or output field of a deployment."""

    name = serializers.CharField()
    data_type = serializers.CharField()
    widget = serializers.DictField(required=False, allow_null=True)


class Reason(serializers.Serializer):
    """Why something is not as wished: a code, a sentence, and what to do."""

    code = serializers.CharField()
    message = serializers.CharField()
    next_step = serializers.CharField()


def reason_of(row: Any) -> dict[str, str] | None:
    if not row.reason_code:
        return None
    return {"code": row.reason_code, "message": row.reason_message, "next_step": row.reason_next}
