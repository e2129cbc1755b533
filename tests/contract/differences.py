"""Where the embedded cluster answers otherwise than the recorded Kubernetes, on purpose, and why."""

from __future__ import annotations

from tests.contract.replay import Difference

_SMALL = "the embedded cluster serves the resources that the product needs, not all of them"
_NO_ROLES = "rights are fixed: administrators may do everything, service accounts nothing; there are no roles"
_OWN_NAMES = "users, keys and signatures are the cluster's own"
_PROGRESS = "how far controllers are at this moment is a matter of timing"
_ECHO = "the message repeats the whole object, or Go's own dump of it, in an order of its own"

DIFFERENCES = [
    Difference("01-discovery", "^discovery$", r"\.(groups|resources)", _SMALL),
    Difference("01-discovery", "^aggregated", r"\.items", _SMALL),
    Difference("01-discovery", "^openapi v3 index|^root$", "", _SMALL),
    Difference("01-discovery", "^health verbose", "", "the checks are those of this server"),
    Difference("16-quota-limitrange", "raised|exceeded", r"\.(items|status)", _PROGRESS),
    Difference("*", ".", r"\.status\.(?!phase|loadBalancer)|\.status$", _PROGRESS),
    Difference("*", ".", r"\.metadata\.annotations(\.deployment\.kubernetes\.io/revision)?$", _PROGRESS),
    Difference("17-server-side-apply", ".", r"\.metadata\.managedFields\[\d\]\.fieldsV1\.f:status", _PROGRESS),
    Difference("18-patches", "Strict$", r"\.(message|details\.causes)", _ECHO),
    Difference("19-errors", "immutable pod field", r"\.(message|details\.causes)", _ECHO),
    Difference("19-errors", "unknown query param", r"\.items", _PROGRESS),
    Difference("21-list", "metadata.namespace=other", r"\.items", "an empty list is [] here, never null"),
    Difference("23-delete", "^get at once$", "", _PROGRESS),
    Difference("23-delete", "^deletecollection pods$", r"\.items", _PROGRESS),
    Difference("25-services", "both ready", r"\.items\[\d\]\.(metadata|ports|subsets)", _PROGRESS),
    Difference("29-access-reviews", "^(role|rolebinding|sa may now|subresource|resource name)$", "", _NO_ROLES),
    Difference("29-access-reviews", "^(sa lists pods|sa escalates|subjectaccessreview|rules)", "", _NO_ROLES),
    Difference("29-access-reviews", "^(token request|token default)$", r"\.status\.token", _OWN_NAMES),
    Difference("29-access-reviews", "^selfsubjectreview$", r"\.status\.userInfo", _OWN_NAMES),
]
