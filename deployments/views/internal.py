"""What pods ask the platform for. No user is signed in here: the link itself is the permission."""

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from accounts.errors import NotFound
from deployments.downloads import artifact_response
from deployments.services import artifacts


@require_safe
def artifact(request: HttpRequest, token: str) -> HttpResponseBase:
    """The artifact of the revision that a signed link is for; 404 once the revision is deleted."""
    try:
        revision = artifacts.revision_of(token)
    except NotFound as error:
        return HttpResponse(error.message, status=404, content_type="text/plain")
    return artifact_response(request, artifacts.stored_file(revision))
