"""What a page may listen to, and whether its user may."""

import uuid
from dataclasses import dataclass

from accounts import access
from accounts.models import Project, User
from deployments.models import Deployment, DeploymentVersion

KINDS = ("project", "deployment", "version", "logs")


@dataclass(frozen=True, slots=True)
class Topic:
    """``kind:id``: hints about a project, deployment or version, or the log lines of a version (``logs``)."""

    kind: str
    key: uuid.UUID

    def __str__(self) -> str:
        return f"{self.kind}:{self.key}"

    @property
    def group(self) -> str:
        """The channel-layer group of its hints; for logs that of the version, whose instances come and go."""
        return f"{'version' if self.kind == 'logs' else self.kind}-{self.key}"


def parse(text: object) -> Topic | None:
    """A topic as a page writes it; None for anything else."""
    if not isinstance(text, str) or len(text) > 64:
        return None
    kind, _, key = text.partition(":")
    try:
        return Topic(kind, uuid.UUID(key)) if kind in KINDS else None
    except ValueError:
        return None


def allowed(user_id: uuid.UUID, topics: list[Topic]) -> set[Topic]:
    """Those of the topics that exist and whose project the user may see, by one query a kind and project."""
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if user is None:
        return set()
    projects = _projects(topics)
    visible = set(access.projects_of(user).filter(pk__in=set(projects.values())).values_list("pk", flat=True))
    return {topic for topic in topics if projects.get(topic) in visible}


def _projects(topics: list[Topic]) -> dict[Topic, uuid.UUID]:
    """The project of each topic that exists."""
    keys = {kind: [topic.key for topic in topics if topic.kind == kind] for kind in KINDS}
    found: dict[tuple[str, uuid.UUID], uuid.UUID] = {}
    for project in Project.objects.filter(pk__in=keys["project"]).values_list("pk", flat=True):
        found["project", project] = project
    for key, project in Deployment.objects.filter(pk__in=keys["deployment"]).values_list("pk", "project_id"):
        found["deployment", key] = project
    versions = DeploymentVersion.objects.filter(pk__in=keys["version"] + keys["logs"])
    for key, project in versions.values_list("pk", "deployment__project_id"):
        found["version", key] = found["logs", key] = project
    return {topic: found[topic.kind, topic.key] for topic in topics if (topic.kind, topic.key) in found}
