"""Request data that fits a deployment's input: for snippets and for the form that tries it."""

from typing import Any

from deployments.models import DataType, Deployment
from deployments.views.examples import LABEL, all_examples

SAMPLES: dict[str, Any] = {
    "int": 1,
    "double": 1.5,
    "string": "text",
    "bool": True,
    "dict": {"key": "value"},
    "file": "ubiops-file://default/example.csv",
    "array_int": [1, 2, 3],
    "array_double": [1.5, 2.5, 3.5],
    "array_string": ["one", "two"],
    "array_file": ["ubiops-file://default/example.csv"],
}


def sample_for(deployment: Deployment) -> Any:
    """The example's own request when the deployment was made from one, else a value of the right type per field."""
    example = all_examples().get(deployment.labels.get(LABEL, ""))
    if example is not None and _fits(deployment, example.request):
        return example.request
    if deployment.input_type == DataType.PLAIN:
        return "text"
    return {field["name"]: SAMPLES.get(field["data_type"]) for field in deployment.input_fields}


def _fits(deployment: Deployment, data: Any) -> bool:
    if deployment.input_type == DataType.PLAIN:
        return isinstance(data, str)
    return isinstance(data, dict) and all(field["name"] in data for field in deployment.input_fields)
