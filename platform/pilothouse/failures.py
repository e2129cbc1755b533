"""What a client is told when a request ends in an exception of ours: JSON for the API, a page for people."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from redis.exceptions import ConnectionError as ValkeyAway
from redis.exceptions import TimeoutError as ValkeySilent

RETRY_AFTER = 5
BROKEN = "Something broke on our side; if it stays, tell the platform team the time it happened"
AWAY = "The platform's database cannot be reached; try again in a few seconds"


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's `handler500`: 503 with `Retry-After` while a store is away, else 500."""
    away = isinstance(sys.exc_info()[1], OperationalError | InterfaceError | ValkeyAway | ValkeySilent)
    status = 503 if away else 500
    answer: HttpResponse
    if request.path.startswith("/api/"):
        answer = JsonResponse({"error": AWAY if away else BROKEN}, status=status)
    else:
        answer = render(None, f"{status}.html", status=status)  # no context processor: they ask the database
    if away:
        answer["Retry-After"] = str(RETRY_AFTER)
    return answer
