"""The platform team's panel: what projects choose from, what is built for them, and their ceilings.

What belongs to a project is changed on its pages or by the API, where the gate and the audit trail are.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from accounts import audit
from accounts.admin import ProjectAdmin as AccountsProjectAdmin
from accounts.admin import ReadOnlyAdmin
from accounts.models import Project, User
from deployments import gpu_admin
from deployments.models import Environment, EnvironmentBuild, EnvironmentTag, InstanceType
from deployments.services import environments, projects, revisions
from deployments.services.validation import Checker

__all__ = ["gpu_admin"]


class AuditedAdmin(admin.ModelAdmin):
    """Leaves an audit event for each change, with old and new values of the form's fields."""

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:
        old: dict[str, Any] = {}
        new: dict[str, Any] = form.cleaned_data
        if change:
            old, new = audit.changed(type(obj).objects.get(pk=obj.pk), form.cleaned_data)
        super().save_model(request, obj, form, change)
        audit.record(_actor(request), "update" if change else "create", obj, project=None, old=old, new=new)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        audit.record(_actor(request), "delete", obj, project=None, old={"name": str(obj)})
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for obj in queryset:
            self.delete_model(request, obj)


def _actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # the panel lets nobody else in
    return request.user


class InstanceTypeForm(forms.ModelForm):
    class Meta:
        model = InstanceType
        fields = [
            "name",
            "display_name",
            "enabled",
            "cpu",
            "memory",
            "storage",
            "accelerator",
            "accelerator_resource",
            "node_selector",
            "tolerations",
            "dedicated_node",
            "credit_rate",
        ]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        for field, least in (("cpu", 0.001), ("memory", 16), ("storage", 16), ("credit_rate", 0)):
            if values.get(field) is not None and values[field] < least:
                self.add_error(field, f"Give at least {least}")
        if values.get("accelerator") and not values.get("accelerator_resource"):
            self.add_error("accelerator_resource", "Name the devices' resource, for example nvidia.com/gpu")
        check = Checker()
        check.labels("node_selector", values.get("node_selector") or {})
        for field, text in check.problems.items():
            self.add_error(field, text)
        tolerations = values.get("tolerations") or []
        if not isinstance(tolerations, list) or not all(isinstance(item, dict) for item in tolerations):
            self.add_error("tolerations", 'Give a list, for example [{"key": "gpu", "operator": "Exists"}]')
        return values


@admin.register(InstanceType)
class InstanceTypeAdmin(AuditedAdmin):
    """A change reaches the pods that exist with their next rollout only."""

    form = InstanceTypeForm
    list_display = ["name", "display_name", "cpu", "memory", "accelerator", "accelerator_resource", "enabled"]
    list_filter = ["enabled"]
    search_fields = ["name", "display_name"]


class EnvironmentTagInline(admin.TabularInline):
    model = EnvironmentTag
    extra = 0


class EnvironmentForm(forms.ModelForm):
    class Meta:
        model = Environment
        fields = [
            "name",
            "display_name",
            "description",
            "runtime",
            "requirements",
            "gpu_required",
            "deprecated",
        ]

    def clean_runtime(self) -> str:
        runtime = str(self.cleaned_data["runtime"])
        known = environments.runtimes()
        if runtime not in known:
            raise forms.ValidationError(f"Unknown runtime; PILOTHOUSE_RUNTIME_IMAGES has {', '.join(known)}")
        return runtime

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        check = Checker()
        if "name" in values:
            check.name("name", values["name"])
        for field, text in check.problems.items():
            self.add_error(field, text)
        return values


@admin.register(Environment)
class EnvironmentAdmin(AuditedAdmin):
    """Base environments, those of no project."""

    form = EnvironmentForm
    list_display = ["name", "display_name", "runtime", "deprecated", "versions"]
    list_filter = ["deprecated"]
    search_fields = ["name", "display_name"]
    inlines = [EnvironmentTagInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Environment]:
        return super().get_queryset(request).filter(project=None).annotate(used=Count("versions"))

    @admin.display(description="versions that use it")
    def versions(self, environment: Any) -> int:
        return environment.used


@admin.register(EnvironmentBuild)
class EnvironmentBuildAdmin(ReadOnlyAdmin):
    """To see logs, and to queue failed builds again."""

    list_display = ["__str__", "runtime", "state", "project", "attempt", "created_at", "finished_at", "reason_code"]
    list_filter = ["state", "runtime"]
    search_fields = ["hash", "requirements", "error_message"]
    list_select_related = ["project"]
    actions = ["retry"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.action(description="Build failed environments again", permissions=["rebuild"])
    def retry(self, request: HttpRequest, queryset: QuerySet[EnvironmentBuild]) -> None:
        count = sum(revisions.rebuild_all(_actor(request), build) for build in queryset)
        text = f"{count} version(s) build again" if count else "None of these failed and is needed now"
        self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)

    def has_rebuild_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser


class ProjectForm(forms.ModelForm):
    class Meta:
        model = Project
        fields = ["description", "suspended", "suspended_reason", "quota_cpu", "quota_memory", "quota_accelerators"]

    def clean_quota_cpu(self) -> float | None:
        cpu = self.cleaned_data["quota_cpu"]
        if cpu is not None and cpu < 0:
            raise forms.ValidationError("Give at least 0, or nothing for no ceiling")
        return cpu


admin.site.unregister(Project)


@admin.register(Project)
class ProjectAdmin(AccountsProjectAdmin):
    """Quotas and suspension go through the services, which wake the reconciler and leave the audit event."""

    form = ProjectForm

    def save_model(self, request: HttpRequest, obj: Project, form: ModelForm, change: bool) -> None:
        given = form.cleaned_data
        projects.update_project(
            _actor(request),
            obj,
            description=given["description"],
            suspend=given["suspended"],
            suspended_reason=given["suspended_reason"],
        )
        projects.set_quotas(
            _actor(request),
            obj,
            cpu=given["quota_cpu"],
            memory=given["quota_memory"],
            accelerators=given["quota_accelerators"],
        )
