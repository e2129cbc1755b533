"""Where the embedded cluster answers otherwise than the recorded Kubernetes, on purpose, and why."""

from __future__ import annotations

from tests.contract.replay import Difference

_SMALL = "the embedded cluster serves the resources that the product needs, not all of them"
_NO_ROLES = "rights are fixed: administrators may do everything, service accounts nothing; there are no roles"
_OWN_NAMES = "users, keys and signatures are the cluster's own"
_PROGRESS = "how far controllers are at this moment is a matter of timing"
_FASTER = "what is waited for comes sooner here than the first look"
_NODE = "a node is this machine, without a container runtime and a network of its own"
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
    Difference("21-list", "cronjobs|^table across namespaces$", "", _SMALL),
    Difference("21-list", "rolebindings", "", _NO_ROLES),
    Difference("21-list", "^table /api/v1/namespaces$", r"\.rows", "other tests have namespaces besides"),
    Difference(
        "21-list", "^table /api/v1/nodes$|^kubectl (get -o wide|describe pod)$", r"\.rows\[0\].cells|stdout", _NODE
    ),
    Difference("21-list", "^kubectl describe deployment$", "stdout", "another version of kubectl"),
    Difference("21-list", "^table events$|^kubectl get$", r"\.rows|stdout", _PROGRESS),
    Difference("21-list", "^table (replicasets|horizontal)", r"\.rows\[0\]\.cells\[[57]\]", _PROGRESS),
    Difference("21-list", "^table endpoint", r"\.rows\[0\]\.object\.metadata\.(generation|annotations)", _PROGRESS),
    Difference("21-list", "^all namespaces$", r"\.items\[0\]\.spec\.containers", "what the job ran was not recorded"),
    Difference(
        "21-list",
        "^event",
        r"\.items\[0\]\.(metadata\.name|message)",
        "names of events hold times, hashes are those of another template",
    ),
    Difference("21-list", "metadata.namespace=other", r"\.items", "an empty list is [] here, never null"),
    Difference("23-delete", "^get at once$", "", _PROGRESS),
    Difference("23-delete", "^deletecollection pods$", r"\.items", _PROGRESS),
    Difference("25-services", "both ready|unready|terminating|gone|changed", r"\.items\[\d\]\.metadata", _PROGRESS),
    Difference(
        "25-services",
        ".",
        r"\.items\[2\]\.(ports|subsets\[0\]\.ports)",
        "ports are in their order, not in that of a hash",
    ),
    Difference("23-delete", "^pods left$", r"\.items$", "an empty list is [] here, never null"),
    Difference("23-delete", "events", "Completed Job", _FASTER),
    Difference("*", "events", r"Unhealthy .*connection refused", _FASTER),
    Difference("29-access-reviews", "^(role|rolebinding|sa may now|subresource|resource name)$", "", _NO_ROLES),
    Difference("29-access-reviews", "^(sa lists pods|sa escalates|subjectaccessreview|rules)", "", _NO_ROLES),
    Difference("29-access-reviews", "^(token request|token default)$", r"\.status\.token", _OWN_NAMES),
    Difference("29-access-reviews", "^kubectl auth can-i --list$", "stdout", _NO_ROLES),
    Difference("29-access-reviews", "^kubectl create token$", "stdout", _OWN_NAMES),
    Difference("29-access-reviews", "^selfsubjectreview$", r"\.status\.userInfo", _OWN_NAMES),
]

_TURN = "a container that crashes again and again is met at whatever turn it is"
_MACHINE = (
    r"(capacity|allocatable)\.(memory|eph|pods)|daemonEnd|nodeInfo|images|runtimeHandlers|features|declaredFeatures"
)
_TRIED = "all that waits is tried again, not only what the plugin that refused it hopes for"
_MEASURED = "how much is used is measured anew, and autoscalers look more often in tests"
_ONE_STEP = "pods that become ready at the same time are replaced in one step"

# Of the workloads that are played again (stories.py); problems of events have reason and message as their path.
OF_STORIES = [
    Difference("*", ".", r".*\.status\.resources\.limits$", "the recorded node had version 1 of cgroups"),
    Difference("*", "endpoint", r"\.items\[\d\]\.metadata\.annotations$", "causes in one second are one cause"),
    Difference("*", "events", r"Unhealthy .*connection refused|FailedMount .*timed out", _FASTER),
    Difference("03-deployment-create", "endpointslices", r"\.items\[0\]\.metadata\.generation", _PROGRESS),
    Difference("03-deployment-create", "events", r"\.metadata\.remainingItemCount", _PROGRESS),
    Difference("*", "revisionHistoryLimit", r"\.metadata\.annotations", _PROGRESS),
    Difference("04-rolling-update", "events", "ScalingReplicaSet", _ONE_STEP),
    Difference("04-rolling-update|05-rollout-undo", "replicasets", r"\.items\[\d\]\..*[gG]eneration$", _ONE_STEP),
    Difference("15-unschedulable", "node", r"\.status\.allocatable\.nvidia", _FASTER),
    Difference("15-unschedulable", "node|untaint|resource|remove", r"\.metadata\.annotations|\.spec\.podCIDRs?", _NODE),
    Difference("15-unschedulable", "node", rf"\.status\.({_MACHINE})", _NODE),
    Difference(
        "15-unschedulable", "pod|events", r"OutOfcpu |.*status\.message$", "the recorded node had a pod of its own"
    ),
    Difference("15-unschedulable", "kubectl describe", "stdout", _NODE),
    Difference("15-unschedulable", "events", "FailedScheduling .*untolerated taint", _TRIED),
    Difference("22-logs", "since|^(current|previous|log while.*|previous while.*)$", "", "these lines hold times"),
    Difference("22-logs", "waiting on its image", r"\.message", _TURN),
    Difference("24-jobs", "events", "(BackOff|Killing) .* c", "a failed job's pod goes before or after its next start"),
    Difference("24-jobs", "^immutable template$", r"\.(message|details\.causes)", _ECHO),
    Difference("26-hpa-metrics", "^metrics|top", r"(\.items(\[0\])?)?\.usage|\.items$|\.rows|stdout", _MEASURED),
    Difference("26-hpa-metrics", "hpa table|stop|final|events|states|scaled", r"(?!\.items\[[12]\])", _MEASURED),
    Difference("26-hpa-metrics", "autoscaling/v1 view", "", _SMALL),
    Difference("27-config-volumes-init", "what the container saw", "", "the image sets variables of its own"),
    Difference("27-config-volumes-init", "before|table", r"\.(items|rows)\[2\]\.(status\.init|cells)", _TURN),
    Difference("31-kubectl-traces", "^version$", "stdout", "another version of kubectl"),
    Difference("31-kubectl-traces", "^api-resources$", "stdout", _SMALL),
    Difference("31-kubectl-traces", "^(get one -o json|events|get all)$", "stdout", _PROGRESS),
    Difference("10-crashloop", "states of pods", "two$", "the start of each container is told, not only of all"),
    Difference("1[01]-.*", "pods|table", r"\.(items|rows)\[\d\]\.(status\.(cond|cont)|cells)", _TURN),
]
