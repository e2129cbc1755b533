"""A project with something on every page, made through the public API, and the addresses of all pages."""

import uuid
from typing import Any

import httpx
from django.urls import get_resolver, reverse

from tests.app.pages.routes import PAGES
from tests.support.service import Service
from tests.support.stack import RunningStack, eventually

PROJECT = "gallery"
# As long as people make them, and once as long as they may be.
NAME = "churn-predictor-for-the-netherlands"
LONGEST = "a" + "-very-long-name" * 4
CODE = """
import json, logging

print(json.dumps({"level": "warning", "event": "cache is cold", "entries": 0}), flush=True)
print("\\x1b[32mready\\x1b[0m to predict", flush=True)


class Deployment:
    def request(self, data):
        if data["seconds"] < 0:
            raise ValueError("seconds must not be negative")
        print(json.dumps({"level": "info", "event": "predicted", "answer": 42}), flush=True)
        return {"answer": 42}
"""
GLOBAL_PAGES = {
    "sign-in": "/sign-in/",
    "projects": "/projects/",
    "project-create": "/new-project/",
    "account": "/account/",
    "gpu-board": "/gpus/",
    "gpu-what-if": "/gpus/what-if/",
    "api-docs": "/api/docs",
    "not-found": "/no-such-page/",
}


class Gallery:
    """What the pages need to have something to show."""

    def __init__(self, stack: RunningStack) -> None:
        self.service = Service(stack, NAME, project=PROJECT)
        self.known: dict[str, Any] = {"project": PROJECT, "deployment": NAME, "version": "v1"}
        with stack.api(follow_redirects=True) as api:
            self._beside(api)
        self.first = self.service.upload(CODE)
        self.service.wait_rollout(self.first, "complete")
        self.service.answer()
        with stack.api() as api:
            self.service.request(api, -1)
        broken = self.service.upload("import nothing_of_that_name\n" + CODE)
        rollout = self.service.wait_rollout(broken, "failed")
        self.known |= {"rollout_id": rollout["id"], "number": 2}
        with stack.api() as api:
            path = f"/projects/{PROJECT}/deployments/{NAME}/requests"
            rows = eventually(lambda: api.get(path).json(), "the requests")
        self.known["request_id"] = rows[0]["id"]

    def _beside(self, api: httpx.Client) -> None:
        base = f"/projects/{PROJECT}"

        def make(path: str, **options: Any) -> Any:
            answer = api.post(f"{base}{path}", **options)
            assert answer.status_code in (200, 201), (path, answer.text)
            return answer.json()

        make("/deployments", json={"name": LONGEST[:60], "input_type": "plain", "output_type": "plain",
                                   "description": "Has no version yet. " * 8})  # fmt: skip
        make("/models", json={"name": "churn", "description": "Trained every night."})
        for _ in range(2):
            make("/models/churn/versions", files={"file": ("model.joblib", b"\x80\x04N.")},
                 data={"framework": "sklearn-joblib", "requirements": "scikit-learn==1.5.0\nnumpy<2\n"})  # fmt: skip
        self.known |= {"model": "churn"}
        shared = make("/environment-variables", json={"name": "API_URL", "value": "https://api.example.com/" * 6})
        make("/environment-variables", json={"name": "API_TOKEN", "value": "secret-" * 3, "secret": True})
        variable = make(f"/deployments/{NAME}/versions/v1/environment-variables",
                        json={"name": "THRESHOLD", "value": "0.8"})  # fmt: skip
        self.variables = {"project-variable": shared["id"], "version-variable": variable["id"]}
        types = api.get(f"{base}/instance-types").json()
        rows = types["results"] if isinstance(types, dict) else types
        chosen = [{"id": row["id"], "priority": at} for at, row in enumerate(rows[:3])]
        made = make("/instance-type-groups", json={"name": "small-first", "instance_types": chosen})
        self.known["group_id"] = made["id"]
        make("/webhooks", json={"name": "team-chat", "event": "alert", "url": "https://chat.example.com/hooks/1"})
        make("/alert-rules", json={"name": "errors", "kind": "error_rate", "webhooks": ["team-chat"]})
        self.known |= {"webhook": "team-chat", "rule": "errors"}

    def pages(self) -> dict[str, str]:
        """Every page by name; those that download a file are none."""
        found = dict(GLOBAL_PAGES)
        for name in PAGES:
            if name.endswith("-file"):
                continue
            ((_, parameters),) = get_resolver().reverse_dict.getlist(name)[-1][0]
            values = {key: self.known.get(key) for key in parameters}
            if "variable_id" in values:
                values["variable_id"] = uuid.UUID(self.variables[name])
            found[name] = reverse(name, kwargs=values)
        found["empty-deployment"] = reverse("deployment", args=[PROJECT, LONGEST[:60]])
        return found
