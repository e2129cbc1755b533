"""Reading what people enter. Only parsing: the services decide what is allowed, and their refusals come back here."""

import json
from collections.abc import Iterable
from typing import Any

from django import forms

from accounts.models import Project, User
from deployments.models import DataType, DeploymentVersion, Environment, InstanceType, ModelVersion
from deployments.services.bootstrap import DEFAULT_ENVIRONMENT, DEFAULT_INSTANCE_TYPE, IMAGE_RUNTIME
from deployments.services.gpu import policy
from deployments.views.examples import all_examples

SOURCES = (
    ("package", "Upload a package"),
    ("model", "Registered model"),
    ("example", "Start from an example"),
    ("image", "Container image"),
)
NAME_ATTRS = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "off"}
MODELS_OFFERED = 200


def offer(form: forms.Form, name: str, choices: Iterable[tuple[str, str]]) -> forms.ChoiceField:
    """Give a form's field of choices those that are known only now."""
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField)
    field.choices = list(choices)
    return field


class FieldsField(forms.CharField):
    """Input or output fields as a JSON list; the fields editor writes it."""

    widget = forms.Textarea(attrs={"rows": 4, "class": "mono", "spellcheck": "false"})

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return []
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(
                f'This is not JSON ({error}). Give a list such as [{{"name": "x", "data_type": "double"}}].'
            ) from None

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else json.dumps(value or [])


def environments_of(project: Project, keep: Environment | None = None) -> list[Environment]:
    """The project's own and the base ones that are not on their way out, Python before R before images."""
    found = [
        *project.environments.all(),
        *Environment.objects.filter(project=None, deprecated=False),
    ]
    if keep is not None and keep not in found:
        found.append(keep)
    order = {DEFAULT_ENVIRONMENT: 0}
    return sorted(
        found,
        key=lambda one: (
            one.runtime == IMAGE_RUNTIME,
            one.language != "python",
            order.get(one.name, 1),
            [int(part) if part.isdigit() else part for part in one.runtime.replace("python", "").split(".")]
            if one.language == "python"
            else [],
        ),
    )


class InProjectForm(forms.Form):
    """A form whose choices are those of a project."""

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project


class RunsForm(InProjectForm):
    """How a version runs: environment, instance type and scaling."""

    environment = forms.ChoiceField(label="Environment", help_text="The language and its version.")
    instance_type = forms.ChoiceField(label="Instance type", help_text="What each instance gets.", required=False)
    minimum_instances = forms.IntegerField(
        label="At least", initial=0, help_text="0 lets it go idle; the next request then waits for a start."
    )
    maximum_instances = forms.IntegerField(label="At most", initial=2, help_text="The ceiling under load.")
    maximum_idle_time = forms.IntegerField(
        label="Idle after", initial=300, help_text="Seconds without a request before going down to the least."
    )

    def __init__(self, *args: Any, project: Project, version: DeploymentVersion | None = None, **kwargs: Any) -> None:
        super().__init__(*args, project=project, **kwargs)
        self.environments = environments_of(project, version.environment if version else None)
        types = list(InstanceType.objects.filter(enabled=True))
        if version and version.instance_type and version.instance_type not in types:
            types.append(version.instance_type)
        names = [(one.name, one.display_name or one.name) for one in self.environments]
        groups = [(f"group:{one.name}", f"{one.name} (group)") for one in project.instance_type_groups.all()]
        offer(self, "environment", names).initial = DEFAULT_ENVIRONMENT
        sizes = [(one.name, instance_label(one)) for one in types]
        offer(self, "instance_type", sizes + groups).initial = DEFAULT_INSTANCE_TYPE
        for name in ("minimum_instances", "maximum_instances", "maximum_idle_time"):
            self.fields[name].widget.attrs.update(min=0, inputmode="numeric")
        if version is not None:
            group = version.instance_type_group
            self.initial = {
                "environment": version.environment.name,
                "instance_type": f"group:{group.name}" if group else str(version.instance_type or ""),
                "minimum_instances": version.minimum_instances,
                "maximum_instances": version.maximum_instances,
                "maximum_idle_time": version.maximum_idle_time,
                **self.initial,
            }

    def settings(self) -> dict[str, Any]:
        """Keywords for `create_version` and `update_version`."""
        data = self.cleaned_data
        chosen = data["instance_type"]
        size = {"instance_type_group_name": chosen[6:]} if chosen.startswith("group:") else {"instance_type": chosen}
        names = ("environment", "minimum_instances", "maximum_instances", "maximum_idle_time")
        return {**{name: data[name] for name in names}, **(size if chosen else {})}


def instance_label(kind: InstanceType) -> str:
    """An instance type with what it holds and costs."""
    memory = f"{kind.memory / 1024:g} GB" if kind.memory >= 1024 else f"{kind.memory} MB"
    parts = [f"{kind.cpu:g} CPU", memory]
    if kind.accelerator:
        parts.append(f"{kind.accelerator} GPU")
    if kind.credit_rate:
        parts.append(f"{kind.credit_rate:g} credits/h")
    return f"{kind.name}: {', '.join(parts)}"


class SourceForm(InProjectForm):
    """Where a revision comes from."""

    source = forms.ChoiceField(choices=SOURCES, initial="package", widget=forms.RadioSelect)
    file = forms.FileField(required=False, label="Deployment package", allow_empty_file=True)
    model_version = forms.ModelChoiceField(ModelVersion.objects.none(), required=False, label="Model version")
    example = forms.ChoiceField(required=False, widget=forms.RadioSelect)
    image = forms.CharField(required=False, max_length=500, label="Image")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, project=project, **kwargs)
        rows = ModelVersion.objects.filter(model__project=project).select_related("model")
        self.model_versions = list(rows.order_by("model__name", "-number")[:MODELS_OFFERED])
        model_version = self.fields["model_version"]
        assert isinstance(model_version, forms.ModelChoiceField)
        model_version.queryset = rows
        offer(self, "example", ((slug, one.title) for slug, one in all_examples().items()))
        self.fields["file"].widget.attrs.update(accept=".zip,application/zip")
        self.fields["image"].widget.attrs.update(placeholder="registry.example.com/team/server:1.2", **NAME_ATTRS)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        needed = {
            "package": ("file", "Choose a zip file with a deployment.py or deployment.R"),
            "model": ("model_version", "Choose the model version to serve"),
            "example": ("example", "Choose an example"),
            "image": ("image", "Give the name of an image"),
        }.get(data.get("source", ""))
        if needed and not data.get(needed[0]) and needed[0] not in self.errors:
            self.add_error(*needed)
        return data


class DeployForm(SourceForm, RunsForm):
    """All of a new deployment on one page."""

    name = forms.CharField(max_length=63, help_text="Lower-case letters, digits and hyphens. Part of its address.")
    description = forms.CharField(required=False, max_length=10_000)
    version = forms.CharField(initial="v1", max_length=40, label="First version")
    input_type = forms.ChoiceField(choices=DataType.choices, label="Input", initial=DataType.STRUCTURED)
    output_type = forms.ChoiceField(choices=DataType.choices, label="Output", initial=DataType.STRUCTURED)
    input_fields = FieldsField(required=False)
    output_fields = FieldsField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update(NAME_ATTRS, placeholder="churn-predictor")
        self.fields["version"].widget.attrs.update(NAME_ATTRS)


class DeploymentForm(forms.Form):
    """What a deployment is, beside its versions."""

    name = forms.CharField(max_length=63, help_text="Renaming changes the address; callers must follow.")
    description = forms.CharField(required=False, max_length=10_000)
    default_version = forms.ChoiceField(
        label="Default version", help_text="Answers requests that name no version.", required=False
    )
    input_type = forms.ChoiceField(choices=DataType.choices, label="Input")
    output_type = forms.ChoiceField(choices=DataType.choices, label="Output")
    input_fields = FieldsField(required=False)
    output_fields = FieldsField(required=False)

    def __init__(self, *args: Any, versions: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offer(self, "default_version", [("", "None"), *((one, one) for one in versions)])
        self.fields["name"].widget.attrs.update(NAME_ATTRS)


class VersionForm(RunsForm):
    """A version's name and how it runs."""

    version = forms.CharField(max_length=40, label="Name", help_text="For example v2.")
    description = forms.CharField(required=False, max_length=10_000)
    request_retention_mode = forms.ChoiceField(
        label="Keep requests",
        choices=(("full", "With their data"), ("metadata", "Without data"), ("none", "Not at all")),
    )
    request_retention_time = forms.IntegerField(
        label="Keep them for (seconds)", help_text="86400 is a day, 604800 a week."
    )
    instance_processes = forms.IntegerField(
        label="Processes", help_text="Copies of the code in each instance; more use more memory."
    )
    gpu_priority = forms.ChoiceField(
        required=False, label="Priority level", help_text="Who gets GPUs first when there are not enough."
    )

    def __init__(self, *args: Any, version: DeploymentVersion | None = None, **kwargs: Any) -> None:
        super().__init__(*args, version=version, **kwargs)
        levels = [level.name for level in policy.usable_levels(self.project)]
        if levels:
            offer(self, "gpu_priority", [("", "Default"), *((name, name) for name in levels)])
            self.initial["gpu_priority"] = version.gpu_priority.name if version and version.gpu_priority else ""
        else:
            del self.fields["gpu_priority"]  # the platform team has made none
        own = ("request_retention_mode", "request_retention_time", "instance_processes")
        row = version or DeploymentVersion()
        self.initial = {**{name: getattr(row, name) for name in own}, **self.initial}
        self.fields["version"].widget.attrs.update(NAME_ATTRS)

    def settings(self) -> dict[str, Any]:
        names = ("version", "description", "request_retention_mode", "request_retention_time", "instance_processes")
        return {**super().settings(), **{name: self.cleaned_data[name] for name in names}}

    def save_level(self, actor: User, version: DeploymentVersion) -> None:
        """The priority level, which the GPU services keep. Raises Invalid."""
        if "gpu_priority" in self.fields:
            policy.set_version_priority(actor, version, self.cleaned_data["gpu_priority"] or None)


class VariableForm(forms.Form):
    name = forms.CharField(max_length=200)
    value = forms.CharField(
        required=False, strip=False, widget=forms.Textarea(attrs={"rows": 1, "class": "mono one-line"})
    )
    secret = forms.BooleanField(required=False, label="Secret: cannot be read again")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update(NAME_ATTRS, placeholder="API_URL")
        self.fields["value"].widget.attrs.update(NAME_ATTRS)
