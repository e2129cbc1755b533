"""Changing one environment variable, of a project, a deployment or a version."""

from typing import Any

from django.http import HttpRequest, HttpResponse

from accounts.errors import ServiceError
from deployments.services import variables
from deployments.services.variables import Scope
from deployments.views.forms import VariableForm
from deployments.views.gate import user_of
from deployments.views.render import Crumb, add_errors, done, respond


def change_variable(
    request: HttpRequest, frame: dict[str, Any], scope: Scope, variable_id: str, back: str, what: str
) -> HttpResponse:
    """The form and its handling. A secret's value is not shown; leaving it empty keeps it."""
    user = user_of(request)
    shown = variables.get_variable(user, scope, variable_id)
    initial = {"name": shown.name, "value": shown.value or "", "secret": shown.secret}
    form = VariableForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        changes = form.cleaned_data
        if shown.secret and not changes["value"]:
            del changes["value"]
        try:
            variables.update_variable(user, scope, variable_id, **changes)
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, back, f"{changes['name']} changed")
    frame["crumbs"] = [*frame["crumbs"][:-1], Crumb(frame["crumbs"][-1].label, back), Crumb(shown.name)]
    frame |= {"title": f"{shown.name} · Variables", "form": form, "variable": shown, "back": back, "what": what}
    return respond(request, "deployments/variable.html", frame, status=422 if form.errors else 200)
