"""Routes of the pages, and of what pods fetch."""

from django.urls import URLPattern, URLResolver, include, path

from deployments.views import (
    account,
    deployments,
    gpu,
    gpu_what_if,
    instance_types,
    internal,
    palette,
    preflight,
    project_settings,
    projects,
    registry,
    revisions,
    rollout_pages,
    settings,
    trial,
    versions,
    wizard,
)

version_patterns = [
    path("", versions.overview, name="version"),
    path("try/", trial.send, name="version-try"),
    path("logs/", versions.logs, name="version-logs"),
    path("requests/", versions.requests, name="version-requests"),
    path("requests/<uuid:request_id>/", versions.request_detail, name="version-request"),
    path("requests/<uuid:request_id>/delete/", versions.request_delete, name="version-request-delete"),
    path("revisions/", revisions.history, name="version-revisions"),
    path("revisions/new/", revisions.create, name="revision-create"),
    path("revisions/<int:number>/", revisions.detail, name="revision"),
    path("revisions/<int:number>/file/", revisions.file, name="revision-file"),
    path("revisions/<int:number>/rollback/", revisions.rollback, name="revision-rollback"),
    path("revisions/<int:number>/rebuild/", revisions.rebuild, name="revision-rebuild"),
    path("rollouts/", rollout_pages.rollout_list, name="version-rollouts"),
    path("rollouts/<uuid:rollout_id>/", rollout_pages.rollout_detail, name="version-rollout"),
    path("restart/", revisions.restart, name="version-restart"),
    path("settings/", settings.version_settings, name="version-settings"),
    path("settings/version/", settings.version_update, name="version-update"),
    path("settings/deployment/", settings.deployment_update, name="deployment-update"),
    path("settings/variables/", settings.variable_create, name="version-variable-create"),
    path("settings/variables/<uuid:variable_id>/", settings.variable_change, name="version-variable"),
    path("settings/variables/<uuid:variable_id>/delete/", settings.variable_delete, name="version-variable-delete"),
    path("delete/", settings.version_delete, name="version-delete"),
]

deployment_patterns: list[URLPattern | URLResolver] = [
    path("", versions.overview, name="deployment"),
    path("delete/", settings.deployment_delete, name="deployment-delete"),
    path("new-version/", settings.version_create, name="version-create"),
    path("versions/<str:version>/", include(version_patterns)),
]

model_patterns = [
    path("", registry.model_list, name="models"),
    path("new/", registry.model_create, name="model-create"),
    path("named/<str:model>/", registry.model_detail, name="model"),
    path("named/<str:model>/delete/", registry.model_delete, name="model-delete"),
    path("named/<str:model>/new-version/", registry.model_version_create, name="model-version-create"),
    path("named/<str:model>/<int:number>/file/", registry.model_file, name="model-file"),
    path("named/<str:model>/<int:number>/delete/", registry.model_version_delete, name="model-version-delete"),
]

settings_patterns = [
    path("", project_settings.general, name="project-settings"),
    path("delete/", project_settings.delete, name="project-delete"),
    path("members/", project_settings.members, name="project-members"),
    path("members/add/", project_settings.member_add, name="member-add"),
    path("members/<uuid:user_id>/role/", project_settings.member_role, name="member-role"),
    path("members/<uuid:user_id>/remove/", project_settings.member_remove, name="member-remove"),
    path("service-users/", project_settings.service_users, name="project-service-users"),
    path("service-users/add/", project_settings.service_user_create, name="service-user-create"),
    path("service-users/<uuid:user_id>/rotate/", project_settings.service_user_rotate, name="service-user-rotate"),
    path("service-users/<uuid:user_id>/delete/", project_settings.service_user_delete, name="service-user-delete"),
    path("variables/", project_settings.variable_list, name="project-variables"),
    path("variables/add/", project_settings.variable_create, name="project-variable-create"),
    path("variables/<uuid:variable_id>/", project_settings.variable_change, name="project-variable"),
    path("variables/<uuid:variable_id>/delete/", project_settings.variable_delete, name="project-variable-delete"),
    path("instance-types/", instance_types.overview, name="project-instance-types"),
    path("instance-types/new/", instance_types.group_create, name="instance-type-group-create"),
    path("instance-types/<uuid:group_id>/", instance_types.group_detail, name="instance-type-group"),
    path("instance-types/<uuid:group_id>/delete/", instance_types.group_delete, name="instance-type-group-delete"),
    path("audit/", project_settings.audit, name="project-audit"),
]

project_patterns: list[URLPattern | URLResolver] = [
    path("deployments/", deployments.deployment_list, name="deployments"),
    # Below "deployments/named/" a deployment may have any name, "new" too.
    path("deployments/preflight/", preflight.check, name="deployment-preflight"),
    path("deployments/new/", wizard.deployment_create, name="deployment-create"),
    path("deployments/named/<str:deployment>/", include(deployment_patterns)),
    path("models/", include(model_patterns)),
    path("gpus/", gpu.project_gpus, name="gpus"),
    path("gpus/<uuid:claim_id>/release/", gpu.project_release, name="gpu-release"),
    path("gpus/<uuid:claim_id>/priority/", gpu.project_priority, name="gpu-priority"),
    path("settings/", include(settings_patterns)),
]

urlpatterns = [
    path("", account.home, name="home"),
    path("sign-in/", account.SignIn.as_view(), name="sign-in"),
    path("sign-out/", account.SignOut.as_view(), name="sign-out"),
    path("account/", account.account, name="account"),
    path("account/password/", account.password_change, name="password-change"),
    path("account/tokens/", account.token_create, name="token-create"),
    path("account/tokens/<uuid:token_id>/revoke/", account.token_revoke, name="token-revoke"),
    path("palette/", palette.palette, name="palette"),
    path("projects/", projects.project_list, name="projects"),
    path("new-project/", projects.project_create, name="project-create"),
    path("gpus/", gpu.platform_board, name="gpu-board"),
    path("gpus/what-if/", gpu_what_if.what_if, name="gpu-what-if"),
    path("gpus/defragment/", gpu.defragment, name="gpu-defragment"),
    path("gpus/<uuid:claim_id>/release/", gpu.platform_release, name="gpu-board-release"),
    path("projects/<str:project>/", include(project_patterns)),
    path("internal/artifacts/<str:token>/", internal.artifact, name="internal-artifact"),
]
