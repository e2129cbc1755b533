"""The GPU policy in the platform team's panel. Every change goes through its service: checks, audit, a new pass."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.admin import ReadOnlyAdmin
from accounts.errors import ServiceError
from accounts.models import User
from deployments.models import (
    GpuClaim,
    GpuCohort,
    GpuFlavor,
    GpuNode,
    GpuPolicy,
    GpuPool,
    GpuPriority,
    GpuQuota,
    GpuTenant,
)
from deployments.services.gpu import policy


class PolicyForm(forms.ModelForm):
    """Problems that the service would refuse are told beside their fields."""

    def full_clean(self) -> None:
        super().full_clean()
        if not self.is_bound or self.errors:
            return
        problems, _ = policy.check(self.instance)
        for field, text in problems.items():
            self.add_error(field if field in self.fields else None, text)


class PolicyAdmin(admin.ModelAdmin):
    form = PolicyForm

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        for warning in policy.save(_actor(request), obj, projects=form.cleaned_data.get("projects")):
            self.message_user(request, warning, messages.WARNING)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        try:
            policy.delete(_actor(request), obj)
        except ServiceError as error:
            self.message_user(request, error.message, messages.ERROR)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for obj in queryset:
            self.delete_model(request, obj)


def _actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # the panel lets nobody else in
    return request.user


@admin.register(GpuFlavor)
class GpuFlavorAdmin(PolicyAdmin):
    """With the first flavor of a resource, versions that ask for it are scheduled by the platform."""

    list_display = ["name", "resource", "products", "node_selector", "price"]


@admin.register(GpuCohort)
class GpuCohortAdmin(PolicyAdmin):
    list_display = ["name", "parent", "weight"]
    list_select_related = ["parent"]


@admin.register(GpuTenant)
class GpuTenantAdmin(PolicyAdmin):
    list_display = ["project", "cohort", "weight"]
    list_select_related = ["project", "cohort"]
    autocomplete_fields = ["project"]


@admin.register(GpuQuota)
class GpuQuotaAdmin(PolicyAdmin):
    list_display = ["__str__", "flavor", "project", "cohort", "nominal", "borrowing_limit", "lending_limit"]
    list_filter = ["flavor"]
    list_select_related = ["flavor", "project", "cohort"]
    autocomplete_fields = ["project"]


@admin.register(GpuPriority)
class GpuPriorityAdmin(PolicyAdmin):
    list_display = ["name", "value", "default"]
    autocomplete_fields = ["projects"]


@admin.register(GpuPolicy)
class GpuPolicyAdmin(PolicyAdmin):
    """One row: it is made with the installation, and neither added nor deleted."""

    list_display = ["__str__", "idle_minutes", "minimum_run_seconds", "reclaim", "passed_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class GpuPoolInline(admin.TabularInline):
    model = GpuPool
    fields = ("resource", "product", "memory_mib", "capacity", "allocatable", "replicas", "foreign")
    readonly_fields = fields
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(GpuNode)
class GpuNodeAdmin(ReadOnlyAdmin):
    """The inventory, which the watcher keeps."""

    list_display = ["name", "cluster", "ready", "schedulable", "simulated", "seen_at", "gone_at"]
    list_filter = ["cluster", "ready", "simulated"]
    search_fields = ["name"]
    inlines = [GpuPoolInline]


@admin.register(GpuClaim)
class GpuClaimAdmin(ReadOnlyAdmin):
    list_display = ["label", "project", "state", "flavor", "devices", "instances", "position", "created_at"]
    list_filter = ["state", "flavor"]
    search_fields = ["label", "project__name"]
    list_select_related = ["project"]
