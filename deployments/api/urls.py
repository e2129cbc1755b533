"""Routes below `/api/v1`, path by path those of the public `ubiops` client, then our own."""

from django.urls import path

from deployments.api import (
    accounts,
    audit,
    catalog,
    deployments,
    environments,
    gpu,
    groups,
    instances,
    openapi,
    preflight,
    projects,
    requests,
    revisions,
    rollouts,
    variables,
)

__all__ = ["openapi", "urlpatterns"]

PROJECT = "projects/<str:project_name>"
DEPLOYMENT = f"{PROJECT}/deployments/<str:deployment_name>"
VERSION = f"{DEPLOYMENT}/versions/<str:version>"
MODEL = f"{PROJECT}/models/<str:model_name>"

urlpatterns = [
    path("status", accounts.StatusView.as_view()),
    path("user", accounts.UserView.as_view()),
    path("organizations", accounts.OrganizationsView.as_view()),
    path("organizations/<str:organization_name>", accounts.OrganizationView.as_view()),
    path("projects", projects.ProjectsView.as_view()),
    path(PROJECT, projects.ProjectView.as_view()),
    path(f"{PROJECT}/resources", projects.ResourceUsageView.as_view()),
    path(f"{PROJECT}/users", accounts.MembersView.as_view()),
    path(f"{PROJECT}/users/<str:user_id>", accounts.MemberView.as_view()),
    path(f"{PROJECT}/service-users", accounts.ServiceUsersView.as_view()),
    path(f"{PROJECT}/service-users/<str:service_user_id>", accounts.ServiceUserView.as_view()),
    path(f"{PROJECT}/service-users/<str:service_user_id>/token", accounts.ServiceUserTokenView.as_view()),
    path(f"{PROJECT}/audit", audit.AuditView.as_view()),
    path(f"{PROJECT}/environments", environments.EnvironmentsView.as_view()),
    path(f"{PROJECT}/environments/<str:environment_name>", environments.EnvironmentView.as_view()),
    path(f"{PROJECT}/environments/<str:environment_name>/tags", environments.EnvironmentTagsView.as_view()),
    path(
        f"{PROJECT}/environments/<str:environment_name>/tags/<str:tag_name>", environments.EnvironmentTagView.as_view()
    ),
    path(f"{PROJECT}/instance-types", environments.InstanceTypesView.as_view()),
    path(f"{PROJECT}/instance-type-groups", groups.GroupsView.as_view()),
    path(f"{PROJECT}/instance-type-groups/<str:group_id>", groups.GroupView.as_view()),
    path(f"{PROJECT}/instance-type-groups/<str:group_id>/usage", groups.GroupUsageView.as_view()),
    path(f"{PROJECT}/instances", instances.ProjectInstancesView.as_view()),
    path(f"{PROJECT}/instances/<str:instance_id>", instances.ProjectInstanceView.as_view()),
    path("gpu/board", gpu.BoardView.as_view()),
    path(f"{PROJECT}/gpu-claims", gpu.ClaimsView.as_view()),
    path(f"{PROJECT}/gpu-offers", gpu.OffersView.as_view()),
    path(f"{PROJECT}/deployments", deployments.DeploymentsView.as_view()),
    path(DEPLOYMENT, deployments.DeploymentView.as_view()),
    path(f"{DEPLOYMENT}/audit", audit.DeploymentAuditView.as_view()),
    path(f"{DEPLOYMENT}/versions", deployments.VersionsView.as_view()),
    path(f"{DEPLOYMENT}/versions/preflight", preflight.PreflightView.as_view()),
    path(VERSION, deployments.VersionView.as_view()),
    path(f"{VERSION}/claim", gpu.VersionClaimView.as_view()),
    path(f"{VERSION}/claim/release", gpu.ReleaseView.as_view()),
    path(f"{VERSION}/restart", deployments.RestartView.as_view()),
    path(f"{VERSION}/instances", instances.InstancesView.as_view()),
    path(f"{VERSION}/instances/<str:instance_id>", instances.InstanceView.as_view()),
    path(f"{VERSION}/instances/<str:instance_id>/events", instances.InstanceEventsView.as_view()),
    path(f"{VERSION}/revisions", revisions.RevisionsView.as_view()),
    path(f"{VERSION}/revisions/<str:revision_id>", revisions.RevisionView.as_view()),
    path(f"{VERSION}/revisions/<str:revision_id>/download", revisions.DownloadView.as_view()),
    path(f"{VERSION}/revisions/<str:revision_id>/rebuild", revisions.RebuildView.as_view()),
    path(f"{VERSION}/revisions/<str:revision_id>/rollback", revisions.RollbackView.as_view()),
    path(f"{VERSION}/revisions/<str:revision_id>/build", revisions.BuildView.as_view()),
    path(f"{VERSION}/revisions/<str:revision_id>/diff/<str:other_id>", revisions.DiffView.as_view()),
    path(f"{VERSION}/rollouts", rollouts.RolloutsView.as_view()),
    path(f"{VERSION}/rollouts/<uuid:rollout_id>", rollouts.RolloutView.as_view()),
    path(f"{MODEL[: MODEL.rindex('/')]}", catalog.ModelsView.as_view()),
    path(MODEL, catalog.ModelView.as_view()),
    path(f"{MODEL}/versions", catalog.ModelVersionsView.as_view()),
    path(f"{MODEL}/versions/<str:number>", catalog.ModelVersionView.as_view()),
    path(f"{MODEL}/versions/<str:number>/download", catalog.ModelVersionDownloadView.as_view()),
]

for scope, views in ((PROJECT, variables.PROJECT), (DEPLOYMENT, variables.DEPLOYMENT), (VERSION, variables.VERSION)):
    urlpatterns += [
        path(f"{scope}/environment-variables", views.collection.as_view()),
        path(f"{scope}/environment-variables/<str:id>", views.single.as_view()),
    ]
    if views.copy is not None:
        urlpatterns.append(path(f"{scope}/copy-environment-variables", views.copy.as_view()))

for scope, prefix in ((DEPLOYMENT, "deployment"), (VERSION, "deployment_version")):
    views_of = requests.named(prefix)
    urlpatterns += [
        path(f"{scope}/requests", views_of["RequestsView"].as_view()),
        path(f"{scope}/requests/batch", views_of["BatchView"].as_view()),
        path(f"{scope}/requests/stream", views_of["StreamView"].as_view()),
        path(f"{scope}/requests/collect", views_of["CollectView"].as_view()),
        path(f"{scope}/requests/delete", views_of["DeleteView"].as_view()),
        path(f"{scope}/requests/cancel", views_of["CancelView"].as_view()),
        path(f"{scope}/requests/<str:request_id>", views_of["RequestView"].as_view()),
    ]
