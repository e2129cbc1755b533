"""Every page and every form's address, with what is needed to reach it."""

from tests.app.pages.conftest import Site

# name -> least standing that may open it (GET).
PAGES = {
    "deployments": "viewer",
    "deployment-create": "editor",
    "deployment": "viewer",
    "version-create": "editor",
    "version": "viewer",
    "version-logs": "viewer",
    "version-metrics": "viewer",
    "version-events": "viewer",
    "project-events": "viewer",
    "version-rollouts": "viewer",
    "version-rollout": "viewer",
    "version-requests": "viewer",
    "version-request": "viewer",
    "version-revisions": "viewer",
    "revision-create": "editor",
    "revision": "viewer",
    "revision-file": "viewer",
    "version-settings": "viewer",
    "gpus": "viewer",
    "models": "viewer",
    "model-create": "editor",
    "model": "viewer",
    "model-version-create": "editor",
    "model-file": "viewer",
    "project-settings": "viewer",
    "project-members": "viewer",
    "project-service-users": "admin",
    "project-variables": "viewer",
    "project-instance-types": "viewer",
    "instance-type-group-create": "editor",
    "instance-type-group": "editor",
    "project-audit": "viewer",
    "version-variable": "editor",
    "project-variable": "editor",
    "project-alerts": "viewer",
    "alert-rule-create": "editor",
    "alert-rule": "editor",
    "project-webhooks": "viewer",
    "webhook-create": "editor",
    "webhook": "editor",
}

# What scripts and downloads of those pages fetch: name -> least standing (GET).
DATA = {
    "deployment-preflight": "editor",
    "version-log-instances": "viewer",
    "version-log-history": "viewer",
    "version-log-previous": "viewer",
    "version-log-download": "viewer",
}

# name -> least standing that may send it (POST).
ACTIONS = {
    "deployment-create": "editor",
    "deployment-delete": "editor",
    "version-create": "editor",
    "version-try": "viewer",
    "version-request-delete": "editor",
    "version-restart": "editor",
    "version-update": "editor",
    "deployment-update": "editor",
    "version-delete": "editor",
    "version-variable-create": "editor",
    "version-variable-delete": "editor",
    "revision-create": "editor",
    "revision-rollback": "editor",
    "revision-rebuild": "editor",
    "gpu-release": "editor",
    "gpu-priority": "editor",
    "model-create": "editor",
    "model-version-create": "editor",
    "model-delete": "editor",
    "model-version-delete": "editor",
    "project-settings": "admin",
    "project-delete": "admin",
    "member-add": "admin",
    "member-role": "admin",
    "service-user-create": "admin",
    "service-user-rotate": "admin",
    "service-user-delete": "admin",
    "project-variable-create": "editor",
    "project-variable-delete": "editor",
    "instance-type-group-create": "editor",
    "instance-type-group": "editor",
    "instance-type-group-delete": "editor",
    "alert-rule-create": "editor",
    "alert-rule": "editor",
    "alert-rule-test": "editor",
    "alert-rule-delete": "editor",
    "webhook-create": "editor",
    "webhook": "editor",
    "webhook-test": "editor",
    "webhook-delete": "editor",
}

STANDINGS = ("viewer", "editor", "admin")


def address(site: Site, name: str) -> str:
    """The URL of a route of the site's project."""
    more: dict[str, list[object]] = {
        "version-request": [site.request.pk],
        "version-request-delete": [site.request.pk],
        "revision": [site.second.number],
        "version-rollout": [site.rollout.pk],
        "revision-file": [site.second.number],
        "revision-rollback": [site.first.number],
        "revision-rebuild": [site.second.number],
        "version-variable": [site.variable.pk],
        "version-variable-delete": [site.variable.pk],
    }
    if name in ("deployment", "version-create", "deployment-delete"):
        return site.project_url(name, site.deployment.name)
    if name.startswith("model") and name not in ("models", "model-create"):
        number = [site.model_version.number] if name in ("model-file", "model-version-delete") else []
        return site.project_url(name, site.model.name, *number)
    if name in ("member-role", "service-user-rotate", "service-user-delete"):
        return site.project_url(name, site.people["viewer"].pk)
    if name in ("gpu-release", "gpu-priority"):
        return site.project_url(name, site.claim.pk)
    if name in ("webhook", "webhook-test", "webhook-delete"):
        return site.project_url(name, site.webhook.name)
    if name in ("alert-rule", "alert-rule-test", "alert-rule-delete"):
        return site.project_url(name, site.rule.name)
    if name in ("instance-type-group", "instance-type-group-delete"):
        return site.project_url(name, site.group.pk)
    if name in ("project-variable", "project-variable-delete"):
        return site.project_url(name, site.shared.pk)
    if name == "deployment-preflight":
        return f"{site.project_url(name)}?instance_type={site.version.instance_type}"
    if name == "version-log-previous":
        return f"{site.url(name)}?instance={site.instance.pk}"
    if name.startswith(("version", "revision")) or name == "deployment-update":
        return site.url(name, *more.get(name, []))
    return site.project_url(name)
