"""What the forms of alert rules and webhooks do alike: bind what was posted, save it, and say what was refused."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse, QueryDict

from accounts.errors import ServiceError
from deployments.views.render import add_errors, done, refused

T = TypeVar("T")


def posted(request: HttpRequest) -> QueryDict | None:
    """What a form is bound to: nothing when the page is only shown."""
    return request.POST if request.method == "POST" else None


def save(form: Any, service: Callable[..., T]) -> T | None:
    """The row that the service made of a valid form; None without one, or when it refused, which the form then says."""
    if not (form.is_bound and form.is_valid()):
        return None
    try:
        return service(**form.settings())
    except ServiceError as error:
        add_errors(form, error)
        return None


def attempt(
    request: HttpRequest, back: str, work: Callable[[], T], tell: Callable[[T], tuple[str, str]]
) -> HttpResponse:
    """Do something without a form; ``tell`` gives the address to go to and what is said there."""
    try:
        found = work()
    except ServiceError as error:
        return refused(request, back, error)
    url, text = tell(found)
    return done(request, url, text)
