"""The options of pod logs, and the refusals that need no kubelet."""

from __future__ import annotations

from typing import Any

from localcluster import times
from localcluster.apiserver import status
from localcluster.apiserver.status import Cause, StatusError
from localcluster.apiserver.web import Request, Response

Object = dict[str, Any]

_NUMBERS = ("tailLines", "sinceSeconds", "limitBytes")
_FLAGS = ("follow", "timestamps", "previous")
_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")


def check(request: Request) -> dict[str, str]:
    """The options for the kubelet; StatusError 400 or 422 for bad ones."""
    query = request.query
    accept = request.header(b"accept")
    if accept and accept.partition(";")[0].strip() == "text/plain":
        message = (
            "only the following "
            "media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
        raise StatusError(406, "NotAcceptable", message)
    options: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for name in _NUMBERS:
        text = query.get(name)
        if text is None:
            continue
        try:
            numbers[name] = int(text)
        except ValueError:
            raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
        options[name] = text
    since = query.get("sinceTime")
    if since is not None:
        try:
            times.check_time(since)
        except ValueError as error:
            raise status.bad_request(str(error)) from None
        options["sinceTime"] = since
    for name in _FLAGS:
        if request.flag(name):
            options[name] = "true"
    causes = _causes(numbers, query)
    if causes:
        name = request.path.split("/")[6]
        raise status.invalid("", "PodLogOptions", name, causes)
    return options


def _causes(numbers: dict[str, int], query: dict[str, str]) -> list[Cause]:
    causes = []
    if numbers.get("tailLines", 0) < 0:
        text = f"Invalid value: {numbers['tailLines']}: must be greater than or equal to 0"
        causes.append(Cause("FieldValueInvalid", text, "tailLines"))
    if numbers.get("limitBytes", 1) < 1:
        text = f"Invalid value: {numbers['limitBytes']}: must be greater than 0"
        causes.append(Cause("FieldValueInvalid", text, "limitBytes"))
    if "sinceTime" in query and "sinceSeconds" in numbers:
        text = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        causes.append(Cause("FieldValueForbidden", text, "[]"))
    elif numbers.get("sinceSeconds", 1) < 1:
        text = f"Invalid value: {numbers['sinceSeconds']}: must be greater than 0"
        causes.append(Cause("FieldValueInvalid", text, "sinceSeconds"))
    if query.get("stream", "All") != "All":
        causes.append(Cause("FieldValueForbidden", "Forbidden: may not be specified", "stream"))
    return causes


def empty() -> Response:
    """The log of a pod that no node has."""
    return Response(b"", 204, [])


def check_started(pod: Object, container: str, *, previous: bool) -> None:
    """StatusError 400 when the container has no log yet."""
    name = pod["metadata"]["name"]
    state = pod.get("status", {})
    found = None
    for key in ("containerStatuses", "initContainerStatuses"):
        for one in state.get(key) or ():
            if one["name"] == container:
                found = one
    if found is None:
        if previous:
            raise status.bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
        raise status.bad_request(f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating')
    last = (found.get("lastState") or {}).get("terminated")
    if previous:
        if last is None:
            raise status.bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
        return
    waiting = (found.get("state") or {}).get("waiting")
    if waiting is None or last is not None:
        return
    reason = waiting.get("reason", "ContainerCreating")
    if reason in _IMAGE_REASONS:
        why = "trying and failing to pull image" if reason != "InvalidImageName" else "image can't be pulled"
        raise status.bad_request(f'container "{container}" in pod "{name}" is waiting to start: {why}')
    raise status.bad_request(f'container "{container}" in pod "{name}" is waiting to start: {reason}')
