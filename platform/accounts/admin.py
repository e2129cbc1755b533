"""The platform team's view of accounts and tenants."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest

from accounts.models import AuditEvent, Membership, Organization, OrganizationMember, Project, Token, User
from accounts.sign_in import AdminSignIn

admin.site.site_header = "Pilothouse platform"
admin.site.index_title = "What the platform team governs"
admin.site.site_title = "Pilothouse"
admin.site.login_form = AdminSignIn
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    ordering = ["email"]
    list_display = ["email", "name", "surname", "is_active", "is_staff", "is_service", "last_login"]
    list_filter = ["is_active", "is_staff", "is_service"]
    search_fields = ["email", "name", "surname"]
    filter_horizontal = []
    fieldsets = [
        (None, {"fields": ["email", "password"]}),
        ("Person", {"fields": ["name", "surname"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "is_superuser"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "usable_password", "password1", "password2"]})]


class OrganizationMemberInline(admin.TabularInline):
    model = OrganizationMember
    autocomplete_fields = ["user"]
    extra = 0


@admin.register(Organization)
class OrganizationAdmin(admin.ModelAdmin):
    list_display = ["name", "creation_date"]
    search_fields = ["name"]
    inlines = [OrganizationMemberInline]


class MembershipInline(admin.TabularInline):
    model = Membership
    autocomplete_fields = ["user"]
    extra = 0


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin):
    list_display = ["name", "organization", "suspended", "quota_cpu", "quota_memory", "quota_accelerators"]
    list_filter = ["organization", "suspended"]
    search_fields = ["name"]
    fields = [
        "name",
        "organization",
        "namespace",
        "description",
        "suspended",
        "suspended_reason",
        "quota_cpu",
        "quota_memory",
        "quota_accelerators",
    ]
    readonly_fields = ["name", "namespace", "organization"]
    inlines = [MembershipInline]

    def has_add_permission(self, request: HttpRequest) -> bool:
        # Projects are made on the page or by the API, which also make the namespace.
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyAdmin(admin.ModelAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Token)
class TokenAdmin(ReadOnlyAdmin):
    """To see and revoke; a token is only ever made by its user."""

    list_display = ["hint", "user", "name", "created_at", "expires_at", "last_used_at"]
    search_fields = ["hint", "user__email", "name"]
    exclude = ["digest"]


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "actor_name", "action", "object_type", "object_name", "project_name"]
    list_filter = ["action", "object_type"]
    search_fields = ["actor_name", "object_name", "project_name"]
    date_hierarchy = "created_at"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
