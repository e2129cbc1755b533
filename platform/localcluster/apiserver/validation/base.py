"""Collecting causes, and the rules for names, labels and metadata."""

from __future__ import annotations

import re
from typing import Any

import orjson

from localcluster.apiserver.selectors import NAME_RULE, VALUE_RULE
from localcluster.apiserver.status import Cause

Object = dict[str, Any]

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_NAME_PART = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
NOT_NEGATIVE = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"


def show(value: Any) -> str:
    """A value as messages show it."""
    return value if isinstance(value, str) and value[:1] == "\0" else orjson.dumps(value).decode()


class Causes:
    """The findings of one validation, in the order of the checks."""

    def __init__(self) -> None:
        self.found: list[Cause] = []

    def required(self, field: str, detail: str = "") -> None:
        text = f"Required value: {detail}" if detail else "Required value"
        self.found.append(Cause("FieldValueRequired", text, field))

    def invalid(self, field: str, value: Any, detail: str) -> None:
        self.found.append(Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {detail}", field))

    def unsupported(self, field: str, value: Any, choices: list[str]) -> None:
        listed = ", ".join(f'"{choice}"' for choice in choices)
        text = f"Unsupported value: {show(value)}: supported values: {listed}"
        self.found.append(Cause("FieldValueNotSupported", text, field))

    def forbidden(self, field: str, detail: str) -> None:
        self.found.append(Cause("FieldValueForbidden", f"Forbidden: {detail}", field))

    def duplicate(self, field: str, value: Any) -> None:
        self.found.append(Cause("FieldValueDuplicate", f"Duplicate value: {show(value)}", field))

    def not_found(self, field: str, value: Any) -> None:
        self.found.append(Cause("FieldValueNotFound", f"Not found: {show(value)}", field))

    def too_long(self, field: str, limit: int) -> None:
        self.found.append(Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field))

    def not_negative(self, field: str, value: int | None) -> None:
        if value is not None and value < 0:
            self.invalid(field, value, NOT_NEGATIVE)

    def one_of(self, field: str, value: str | None, choices: list[str]) -> None:
        if value is not None and value not in choices:
            self.unsupported(field, value, choices)


def dns_label(name: str) -> list[str]:
    """What is wrong with a DNS label."""
    problems = []
    if len(name) > 63:
        problems.append("must be no more than 63 characters")
    if not _LABEL.match(name):
        problems.append(LABEL_RULE)
    return problems


def dns_subdomain(name: str) -> list[str]:
    """What is wrong with a DNS subdomain."""
    problems = []
    if len(name) > 253:
        problems.append("must be no more than 253 characters")
    if not _SUBDOMAIN.match(name):
        problems.append(SUBDOMAIN_RULE)
    return problems


def qualified_name(name: str) -> list[str]:
    """What is wrong with a label or annotation key, or the name of an extended resource."""
    parts = name.split("/")
    if len(parts) > 2:
        return [
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
            "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
            "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix "
            "and '/' (e.g. 'example.com/MyName')"
        ]
    problems = []
    if len(parts) == 2:
        if not parts[0]:
            problems.append("prefix part must be non-empty")
        else:
            problems += ["prefix part " + problem for problem in dns_subdomain(parts[0])]
    last = parts[-1]
    if not last:
        problems.append("name part must be non-empty")
    elif len(last) > 63:
        problems.append("name part must be no more than 63 characters")
    if not _NAME_PART.match(last):
        problems.append(NAME_RULE)
    return problems


def label_value(value: str) -> list[str]:
    """What is wrong with a label's value."""
    problems = []
    if len(value) > 63:
        problems.append("must be no more than 63 characters")
    if value and not _NAME_PART.match(value):
        problems.append(VALUE_RULE)
    return problems


def labels(found: dict[str, str] | None, field: str, causes: Causes) -> None:
    for key, value in (found or {}).items():
        for problem in qualified_name(key):
            causes.invalid(field, key, problem)
        for problem in label_value(value):
            causes.invalid(field, value, problem)


def metadata(meta: Object, name_rule: Any, causes: Causes, field: str = "metadata") -> None:
    """Names, labels, annotations, finalizers and owners of any object."""
    generate = meta.get("generateName")
    if generate:
        for problem in name_rule(generate.rstrip("-.") or "-"):
            causes.invalid(f"{field}.generateName", generate, problem)
    name = meta.get("name", "")
    if not name:
        causes.required(f"{field}.name", "name or generateName is required")
    else:
        for problem in name_rule(name):
            causes.invalid(f"{field}.name", name, problem)
    labels(meta.get("labels"), f"{field}.labels", causes)
    annotation_map(meta.get("annotations"), f"{field}.annotations", causes)
    for index, owner in enumerate(meta.get("ownerReferences") or ()):
        where = f"{field}.ownerReferences[{index}]"
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                causes.invalid(f"{where}.{key}", owner.get(key, ""), "must not be empty")
    controllers = [owner for owner in meta.get("ownerReferences") or () if owner.get("controller")]
    if len(controllers) > 1:
        causes.invalid(
            f"{field}.ownerReferences",
            meta["ownerReferences"],
            "Only one reference can have Controller set to true. Found "
            f'"true" in references for {controllers[0]["name"]} and {controllers[1]["name"]}',
        )
    for index, finalizer in enumerate(meta.get("finalizers") or ()):
        for problem in qualified_name(finalizer):
            causes.invalid(f"{field}.finalizers[{index}]", finalizer, problem)
        if "/" not in finalizer and finalizer not in _FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            causes.invalid(f"{field}.finalizers[{index}]", finalizer, text)


def annotation_map(found: dict[str, str] | None, field: str, causes: Causes) -> None:
    """Keys and total size of annotations."""
    size = 0
    for key, value in (found or {}).items():
        size += len(key) + len(value)
        for problem in qualified_name(key.lower()):
            causes.invalid(field, key, problem)
    if size > 256 * 1024:
        causes.too_long(field, 262144)


def label_selector(selector: Object | None, field: str, causes: Causes) -> None:
    """The terms of a LabelSelector."""
    if selector is None:
        return
    labels(selector.get("matchLabels"), f"{field}.matchLabels", causes)
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        where = f"{field}.matchExpressions[{index}]"
        operator = term.get("operator")
        if operator in ("In", "NotIn"):
            if not term.get("values"):
                causes.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if term.get("values"):
                causes.forbidden(
                    f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
        else:
            causes.invalid(f"{where}.operator", operator or "", "not a valid selector operator")
        for problem in qualified_name(term.get("key", "")):
            causes.invalid(f"{where}.key", term.get("key", ""), problem)
