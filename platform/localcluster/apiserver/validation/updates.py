"""What may not change in an update."""

from __future__ import annotations

import difflib
from typing import Any

import orjson

from localcluster.apiserver.validation.base import IMMUTABLE, Causes, show

Object = dict[str, Any]

_POD_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def metadata(old: Object, new: Object, causes: Causes) -> None:
    """The parts of metadata that nobody may change."""
    before, after = old["metadata"], new["metadata"]
    if before.get("deletionTimestamp"):
        gained = set(after.get("finalizers") or ()) - set(before.get("finalizers") or ())
        if gained:
            causes.forbidden(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                + "[]string{"
                + ", ".join(show(one) for one in sorted(gained))
                + "}",
            )
    for key in ("name", "namespace", "uid"):
        if before.get(key) != after.get(key):
            causes.invalid(f"metadata.{key}", after.get(key), IMMUTABLE)


def _without_mutable(spec: Object, gated: bool) -> Object:
    copy: Object = orjson.loads(orjson.dumps(spec))
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for container in copy.get(key) or ():
            container.pop("image", None)
    for key in ("activeDeadlineSeconds", "tolerations", "schedulingGates", "terminationGracePeriodSeconds"):
        copy.pop(key, None)
    if gated:
        copy.pop("nodeSelector", None)
        copy.pop("affinity", None)
    return copy


def _spec_diff(old: Object, new: Object) -> str:
    lines = [
        orjson.dumps(one, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode().splitlines() for one in (old, new)
    ]
    found = list(difflib.unified_diff(lines[0], lines[1], lineterm="", n=3))[2:]
    return "\n" + "\n".join(found) + "\n" if found else ""


def pod(old: Object, new: Object, causes: Causes) -> None:
    """Pods change little: images, tolerations, deadlines, and the gates that hold them back."""
    before, after = old["spec"], new["spec"]
    for key in ("containers", "initContainers"):
        if len(before.get(key) or ()) != len(after.get(key) or ()):
            causes.forbidden(f"spec.{key}", "pod updates may not add or remove containers")
            return
    gates_before = {gate["name"] for gate in before.get("schedulingGates") or ()}
    gates_after = {gate["name"] for gate in after.get("schedulingGates") or ()}
    if gates_after - gates_before:
        names = ", ".join(f'{{"name":"{name}"}}' for name in sorted(gates_after - gates_before))
        causes.forbidden("spec.schedulingGates", f"only deletion is allowed, but found new scheduling gate '{names}'")
    gated = bool(gates_before)
    if gated:
        _gated_selector(before, after, causes)
    _tolerations(before, after, causes)
    _deadline(before, after, causes)
    grace_before, grace_after = (s.get("terminationGracePeriodSeconds") for s in (before, after))
    same_grace = grace_before == grace_after or (grace_before is not None and grace_before < 0 and grace_after == 1)
    if _without_mutable(before, gated) != _without_mutable(after, gated) or not same_grace:
        causes.forbidden("spec", _POD_RULE + _spec_diff(before, after))


def _gated_selector(before: Object, after: Object, causes: Causes) -> None:
    old, new = before.get("nodeSelector") or {}, after.get("nodeSelector") or {}
    if any(new.get(key) != value for key, value in old.items()):
        causes.invalid("spec.nodeSelector", new, "only additions are allowed to the nodeSelector")


def _tolerations(before: Object, after: Object, causes: Causes) -> None:
    kept = after.get("tolerations") or []
    for toleration in before.get("tolerations") or ():
        same = [{k: v for k, v in one.items() if k != "tolerationSeconds"} for one in kept]
        if {k: v for k, v in toleration.items() if k != "tolerationSeconds"} not in same:
            causes.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
            return


def _deadline(before: Object, after: Object, causes: Causes) -> None:
    old, new = before.get("activeDeadlineSeconds"), after.get("activeDeadlineSeconds")
    if old is None or new == old:
        return
    if new is None:
        causes.invalid("spec.activeDeadlineSeconds", None, "must not update from a positive integer to nil value")
    elif new > old:
        causes.invalid("spec.activeDeadlineSeconds", new, "must be less than or equal to previous value")


def selector(old: Object, new: Object, causes: Causes) -> None:
    """Deployments and ReplicaSets keep their selector."""
    if old["spec"].get("selector") != new["spec"].get("selector"):
        causes.invalid("spec.selector", new["spec"].get("selector"), IMMUTABLE)


def job(old: Object, new: Object, causes: Causes) -> None:
    """Jobs keep selector, completion mode and, unless suspended and never started, their template."""
    before, after = old["spec"], new["spec"]
    for key in ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"):
        if before.get(key) != after.get(key):
            causes.invalid(f"spec.{key}", after.get(key), IMMUTABLE)
    if before.get("completions") != after.get("completions"):
        indexed = before.get("completionMode") == "Indexed"
        if not indexed or after.get("completions") != after.get("parallelism"):
            causes.invalid("spec.completions", after.get("completions"), IMMUTABLE)
    not_started = before.get("suspend") and not old.get("status", {}).get("startTime")
    if before.get("template") != after.get("template") and not not_started:
        causes.invalid("spec.template", after.get("template"), IMMUTABLE)


def immutable_data(old: Object, new: Object, causes: Causes) -> None:
    """ConfigMaps and Secrets that are marked immutable."""
    if not old.get("immutable"):
        return
    rule = "field is immutable when `immutable` is set"
    if not new.get("immutable"):
        causes.forbidden("immutable", rule)
    for key in ("data", "binaryData"):
        if (old.get(key) or {}) != (new.get(key) or {}):
            causes.forbidden(key, rule)


def secret(old: Object, new: Object, causes: Causes) -> None:
    if old.get("type") != new.get("type"):
        causes.invalid("type", new.get("type", ""), IMMUTABLE)
    immutable_data(old, new, causes)


def service(old: Object, new: Object, causes: Causes) -> None:
    """A cluster IP stays as long as the service has one."""
    before, after = old["spec"].get("clusterIPs") or [], new["spec"].get("clusterIPs") or []
    if before and after and before[0] != after[0]:
        causes.invalid("spec.clusterIPs[0]", after, "may not change once set")


def priorityclass(old: Object, new: Object, causes: Causes) -> None:
    if old.get("value") != new.get("value"):
        causes.invalid("value", new.get("value"), IMMUTABLE)
    if old.get("preemptionPolicy") != new.get("preemptionPolicy"):
        causes.invalid("preemptionPolicy", new.get("preemptionPolicy"), IMMUTABLE)


def endpointslice(old: Object, new: Object, causes: Causes) -> None:
    if old.get("addressType") != new.get("addressType"):
        causes.invalid("addressType", new.get("addressType"), IMMUTABLE)


def limited(old: Object, new: Object, causes: Causes) -> None:
    """For kinds with no rules of their own."""
