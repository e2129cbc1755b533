"""From a URL to the project it names, past the one permission gate; refusals become pages."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, cast
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url

from accounts import access
from accounts.access import Permission
from accounts.errors import ServiceError
from accounts.models import Project, Role, User
from deployments.views.render import error_page

View = Callable[..., HttpResponseBase]


@dataclass(frozen=True)
class Tenant:
    """The project of a page and what the signed-in user may do in it."""

    project: Project
    role: Role

    @property
    def can_send(self) -> bool:
        return Permission.REQUEST_SEND in access.GRANTS[self.role]

    @property
    def can_edit(self) -> bool:
        return Permission.PROJECT_EDIT in access.GRANTS[self.role]

    @property
    def can_write_secrets(self) -> bool:
        return Permission.SECRET_WRITE in access.GRANTS[self.role]

    @property
    def can_admin(self) -> bool:
        return Permission.PROJECT_ADMIN in access.GRANTS[self.role]


def user_of(request: HttpRequest) -> User:
    return cast(User, request.user)


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """To the sign-in page and back here; a fragment's request moves the whole page."""
    target = resolve_url(settings.LOGIN_URL)
    if request.headers.get("HX-Request"):
        back = request.headers.get("HX-Current-URL", "/")
        return HttpResponse(status=204, headers={"HX-Redirect": f"{target}?next={quote(_path_of(back))}"})
    return HttpResponseRedirect(f"{target}?next={quote(request.get_full_path())}")


def _path_of(url: str) -> str:
    return "/" + url.split("/", 3)[3] if url.count("/") >= 3 else "/"


def signed_in(view: View) -> View:
    """Only for people who signed in; a refusal of a service becomes its error page."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return to_sign_in(request)
        try:
            return view(request, *args, **kwargs)
        except ServiceError as error:
            return error_page(request, error)

    return guarded


def tenant_of(request: HttpRequest, name: str, permission: Permission) -> Tenant:
    """Raises NotFound for an outsider and Forbidden for a member whose role does not reach."""
    project = access.get_project(request.user, name, permission)
    return Tenant(project, Role(access.role_of(request.user, project) or Role.VIEWER))


def in_project(permission: Permission = Permission.PROJECT_VIEW) -> Callable[[View], View]:
    """Resolves the first URL argument, ``project``, into a `Tenant` given to the view as its second argument."""

    def decorate(view: View) -> View:
        @wraps(view)
        def resolved(request: HttpRequest, project: str, **kwargs: Any) -> HttpResponseBase:
            return view(request, tenant_of(request, project, permission), **kwargs)

        return signed_in(resolved)

    return decorate
