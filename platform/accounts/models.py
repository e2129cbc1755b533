"""Users, tenants and who may do what: the rows behind `accounts.access`."""

import uuid
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower

# Names end up in Kubernetes labels and URLs; the rule is the public UbiOps API's, within a DNS label's length.
name_validator = RegexValidator(
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z",
    "Use lower-case letters, digits and hyphens, at most 63, starting and ending with a letter or digit.",
    code="invalid_name",
)


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person, or a service user that belongs to one project and only ever uses tokens.

    ``is_staff`` marks the platform team: the admin panel, instance types, base environments.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(max_length=254, unique=True)
    name = models.CharField(max_length=100, blank=True)
    surname = models.CharField(max_length=100, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    is_service = models.BooleanField(default=False)
    # Service users only.
    project = models.ForeignKey("Project", models.CASCADE, null=True, blank=True, related_name="service_users")
    description = models.TextField(blank=True)
    registration_date = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique"),
            models.CheckConstraint(
                condition=models.Q(is_service=False, project=None) | models.Q(is_service=True, project__isnull=False),
                name="service_user_has_project",
            ),
        ]

    def __str__(self) -> str:
        return self.name if self.is_service else self.email

    def get_full_name(self) -> str:
        return f"{self.name} {self.surname}".strip() or self.email


class Organization(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    creation_date = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class OrganizationMember(models.Model):
    """An admin of an organization is admin of every project in it; a member may create projects."""

    class Role(models.TextChoices):
        ADMIN = "admin"
        MEMBER = "member"

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="members")
    user = models.ForeignKey(User, models.CASCADE, related_name="organization_memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.MEMBER)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "user"], name="organization_member_unique")]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization}: {self.role}"


class Project(models.Model):
    """A tenant. Its name is unique in the installation because the public API addresses it by name alone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, models.CASCADE, related_name="projects")
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    # Set once at creation from the prefix and the name; kept when the project is renamed.
    namespace = models.CharField(max_length=63, unique=True, editable=False)
    description = models.TextField(blank=True)
    labels = models.JSONField(default=dict, blank=True)
    suspended = models.BooleanField(default=False)
    suspended_reason = models.CharField(max_length=300, blank=True)
    cors_origins = models.JSONField(default=list, blank=True)
    advanced_permissions = models.BooleanField(default=False)
    credits = models.FloatField(null=True, blank=True)
    # Ceilings over the running instances of the project; empty means no ceiling.
    quota_cpu = models.FloatField(null=True, blank=True, help_text="cores")
    quota_memory = models.PositiveIntegerField(null=True, blank=True, help_text="MiB")
    quota_accelerators = models.PositiveIntegerField(null=True, blank=True)
    creation_date = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    """What a member of a project may do, each including the one before."""

    VIEWER = "viewer", "Viewer: sees everything, sends requests"
    EDITOR = "editor", "Editor: also deploys and changes"
    ADMIN = "admin", "Admin: also members, tokens, secrets and deletion of the project"


class Membership(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="membership_unique")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project}: {self.role}"


class Token(models.Model):
    """An API token. Only its SHA-256 is kept; 256 random bits need no slow hash."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100, blank=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    # The first characters, so that a person can tell tokens apart.
    hint = models.CharField(max_length=12, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.hint}... of {self.user}"


class AuditEvent(models.Model):
    """One change: who, what, old and new values. Secrets are recorded as changed, never by value."""

    id = models.BigAutoField(primary_key=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    project = models.ForeignKey(Project, models.SET_NULL, null=True, blank=True, related_name="audit_events")
    # Names are copied: the trail outlives what it tells of.
    project_name = models.CharField(max_length=63, blank=True)
    actor = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    actor_name = models.CharField(max_length=254)
    action = models.CharField(max_length=40)
    object_type = models.CharField(max_length=40)
    object_id = models.CharField(max_length=40)
    object_name = models.CharField(max_length=254)
    old = models.JSONField(default=dict)
    new = models.JSONField(default=dict)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["project", "-id"], name="audit_project_id")]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.action} {self.object_type} {self.object_name}"
