"""What if: the last days' claims under another policy, compared before it is saved."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from accounts.errors import ServiceError
from deployments.models import GpuPolicy
from deployments.services.gpu import gate
from deployments.services.gpu import rules as rules_of
from deployments.services.gpu import what_if as service
from deployments.views.gate import signed_in, user_of
from deployments.views.render import Crumb, add_errors, done, respond


class WhatIfForm(forms.Form):
    """The rules of the pass, and the limits of each quota; an empty limit is none."""

    minimum_run_seconds = forms.IntegerField(label="Minimum run time", help_text="Seconds before a claim is displaced.")
    hold_after_seconds = forms.IntegerField(
        label="Hold back after", help_text="Seconds of waiting before what frees up is kept for a claim."
    )
    half_life_hours = forms.FloatField(label="Half-life of past use", help_text="Hours.")
    usage_weight = forms.FloatField(label="Weight of past use", help_text="0 ignores what a project used before.")
    preempt_within_project = forms.BooleanField(label="Higher priority displaces lower in a project", required=False)
    reclaim = forms.BooleanField(label="Projects get lent quota back by displacing borrowers", required=False)
    fair_sharing = forms.ChoiceField(
        label="A borrower with less displaces one with more", choices=GpuPolicy.FairSharing.choices
    )

    def __init__(self, *args: Any, found: rules_of.Rules, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows = found.quotas
        for name in service.SETTINGS:
            self.fields[name].initial = getattr(found.settings, name)
        for row in found.quotas:
            for limit in service.LIMITS:
                label = f"{limit.replace('_', ' ').capitalize()} of {row.flavor} for {row.project or row.cohort}"
                self.fields[f"quota-{row.pk}-{limit}"] = forms.IntegerField(
                    label=label,
                    required=limit == "nominal",
                    initial=getattr(row, limit),
                    widget=forms.NumberInput(attrs={"class": "control control-small", "placeholder": "no limit"}),
                )

    @property
    def rules(self) -> list[forms.BoundField]:
        return [self[name] for name in service.SETTINGS]

    @property
    def quotas(self) -> list[tuple[Any, list[forms.BoundField]]]:
        return [(row, [self[f"quota-{row.pk}-{limit}"] for limit in service.LIMITS]) for row in self.rows]

    def settings(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in service.SETTINGS}

    def limits(self) -> dict[str, dict[str, int | None]]:
        return {
            str(row.pk): {limit: self.cleaned_data[f"quota-{row.pk}-{limit}"] for limit in service.LIMITS}
            for row in self.rows
        }


@require_http_methods(["GET", "POST"])
@signed_in
def what_if(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    gate.require_platform(user)
    found = rules_of.load()
    form = WhatIfForm(request.POST or None, found=found)
    comparison = None
    if request.method == "POST" and form.is_valid():
        try:
            if "save" in request.POST:
                for warning in service.save(user, form.settings(), form.limits()):
                    messages.warning(request, warning)
                return done(request, reverse("gpu-board"), "The policy is in force")
            changed = service.proposal(found, form.settings(), form.limits())
            comparison = service.compare(user, changed, timezone.now())
        except ServiceError as error:
            add_errors(form, error)
    context = {
        "title": "What if",
        "section": "gpus",
        "crumbs": [Crumb("GPU board", reverse("gpu-board")), Crumb("What if")],
        "form": form,
        "comparison": comparison,
        "days": service.DAYS,
        "most": service.MAX_CLAIMS,
    }
    return respond(request, "deployments/gpu/what_if.html", context, status=422 if form.errors else 200)
