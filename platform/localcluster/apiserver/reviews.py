"""Questions about identity and rights: subject access reviews, self reviews and token reviews."""

from __future__ import annotations

from typing import Any

from localcluster import resources as r
from localcluster import times
from localcluster.apiserver import auth, codec, status
from localcluster.apiserver.auth import Tokens, User
from localcluster.apiserver.registry import Kind
from localcluster.apiserver.target import Target
from localcluster.apiserver.web import Answer, Request, json_answer

Object = dict[str, Any]

_KINDS = {
    "selfsubjectaccessreviews": ("authorization.k8s.io", "SelfSubjectAccessReview"),
    "subjectaccessreviews": ("authorization.k8s.io", "SubjectAccessReview"),
    "localsubjectaccessreviews": ("authorization.k8s.io", "LocalSubjectAccessReview"),
    "selfsubjectrulesreviews": ("authorization.k8s.io", "SelfSubjectRulesReview"),
    "selfsubjectreviews": ("authentication.k8s.io", "SelfSubjectReview"),
    "tokenreviews": ("authentication.k8s.io", "TokenReview"),
}
_EVERYTHING = [
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {
        "verbs": ["create"],
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    },
    {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
]
_PUBLIC = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"]}
_DISCOVERY = {
    "verbs": ["get"],
    "nonResourceURLs": [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ],
}
_ALL_PATHS = {"verbs": ["*"], "nonResourceURLs": ["*"]}


class Reviews:
    """Answers reviews; none of them is stored."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    async def answer(self, request: Request, target: Target) -> Answer:
        if request.method != "POST" or target.name:
            raise status.method_not_allowed()
        group, name = _KINDS[target.resource]
        kind = Kind(r.Resource(group, "v1", target.resource, name))
        body = await codec.read_object(request, kind, "CreateOptions")
        spec = body.get("spec") or {}
        shown: Object = {"kind": name, "apiVersion": f"{group}/v1", "metadata": body.get("metadata") or {}}
        if name == "SelfSubjectReview":
            shown["metadata"] = {"creationTimestamp": times.rfc3339()}
            shown["status"] = {"userInfo": _info(request.user)}
        elif name == "TokenReview":
            shown |= {"spec": spec, "status": self._token(spec)}
        elif name == "SelfSubjectRulesReview":
            if not spec.get("namespace"):
                raise status.bad_request("no namespace on request")
            shown |= {"spec": {}, "status": _rules(request.user)}
        else:
            user = request.user
            if name != "SelfSubjectAccessReview":
                user = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
            _check_attributes(spec)
            if target.namespace is not None:
                shown["metadata"] = {**shown["metadata"], "namespace": target.namespace}
            shown |= {"spec": spec, "status": _access(user, spec)}
        return json_answer(shown, 201)

    def _token(self, spec: Object) -> Object:
        token = spec.get("token", "")
        user = self.tokens.user(token)
        if user is None:
            return {"user": {}, "error": "invalid bearer token"}
        return {"authenticated": True, "user": _info(user), "audiences": spec.get("audiences") or [auth.ISSUER]}


def _check_attributes(spec: Object) -> None:
    if (spec.get("resourceAttributes") is None) == (spec.get("nonResourceAttributes") is None):
        text = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        cause = status.Cause("FieldValueInvalid", text, "spec.resourceAttributes")
        raise status.invalid("authorization.k8s.io", "", "", [cause])


def _info(user: User) -> Object:
    shown: Object = {"username": user.name}
    if user.uid:
        shown["uid"] = user.uid
    shown["groups"] = list(user.groups)
    if user.extra:
        shown["extra"] = user.extra
    return shown


def _access(user: User, spec: Object) -> Object:
    asked = spec.get("resourceAttributes")
    if asked is not None:
        allowed = auth.allows(user, asked.get("verb", ""), asked.get("group", ""), asked.get("resource", ""))
    else:
        allowed = auth.allows_path(user, (spec.get("nonResourceAttributes") or {}).get("path", ""))
    if not allowed:
        return {"allowed": False}
    if user.is_admin:
        return {"allowed": True}
    role = "system:discovery" if asked is None else "system:basic-user"
    reason = f'RBAC: allowed by ClusterRoleBinding "{role}" of ClusterRole "{role}" to Group "system:authenticated"'
    return {"allowed": True, "reason": reason}


def _rules(user: User) -> Object:
    if user.is_admin:
        rules, paths = _EVERYTHING, [_ALL_PATHS, _PUBLIC, _DISCOVERY]
    else:
        rules, paths = _EVERYTHING[1:], [_DISCOVERY, _PUBLIC]
    return {"resourceRules": rules, "nonResourceRules": paths, "incomplete": False}
