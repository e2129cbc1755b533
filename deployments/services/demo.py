"""The demo: a project with a deployment that serves a model trained on this machine."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from accounts.models import Organization, Project, User
from deployments.models import Deployment, DeploymentVersion, Framework, Model, ModelVersion
from deployments.services import catalog, deployments, projects, revisions, training

PROJECT = "demo"
NAME = "wine"
VERSION = "v1"
FEATURES = ("alcohol", "malic_acid", "flavanoids", "color_intensity", "proline")
DESCRIPTION = "Tells the cultivar of an Italian wine from five measurements."
SIGNATURE = {
    "inputs": [{"name": feature, "data_type": "double"} for feature in FEATURES],
    "outputs": [{"name": "prediction", "data_type": "string"}, {"name": "probabilities", "data_type": "dict"}],
}


def seed(admin: User, tell: Callable[[str], None]) -> DeploymentVersion:
    """Make what is missing of the demo; what is there stays as it is, also when somebody changed it."""
    project = Project.objects.filter(name=PROJECT).first()
    if project is None:
        organization = Organization.objects.order_by("creation_date").first()
        if organization is None:
            raise Organization.DoesNotExist("There is no organization; run `manage.py prepare_platform` first.")
        project = projects.create_project(
            admin, organization, name=PROJECT, description="A place to look around and try things."
        )
    model_version = _model_version(admin, project, tell)
    deployment = Deployment.objects.filter(project=project, name=NAME).first() or deployments.create_deployment(
        admin,
        project,
        name=NAME,
        description=DESCRIPTION,
        input_fields=SIGNATURE["inputs"],
        output_fields=SIGNATURE["outputs"],
    )
    version = DeploymentVersion.objects.filter(deployment=deployment).first() or deployments.create_version(
        admin,
        deployment,
        version=VERSION,
        environment=f"python3-{sys.version_info.minor}",
        minimum_instances=1,
        maximum_instances=2,
    )
    if version.target_revision is None:
        revisions.deploy_model(admin, version, model_version)
        version.refresh_from_db()
    return version


def _model_version(admin: User, project: Project, tell: Callable[[str], None]) -> ModelVersion:
    model = Model.objects.filter(project=project, name=NAME).first() or catalog.create_model(
        admin, project, name=NAME, description=DESCRIPTION
    )
    existing = model.versions.order_by("number").first()
    if existing is not None:
        return existing
    example = settings.BASE_DIR / "examples" / "registry"
    requirements = (example / "requirements.txt").read_text()
    with tempfile.TemporaryDirectory() as folder:
        training.train(example / "wine.py", requirements, Path(folder), tell)
        with (Path(folder) / "model.joblib").open("rb") as file:
            return catalog.create_model_version(
                admin,
                model,
                file=file,
                file_name="model.joblib",
                framework=Framework.SKLEARN_JOBLIB,
                requirements=requirements,
                description="Logistic regression, trained on the wine data that scikit-learn ships.",
                signature=SIGNATURE,
                source={"script": "examples/registry/wine.py"},
            )
