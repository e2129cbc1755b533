"""GPU planner: pure functions over numbers, free of Django and of Kubernetes.

`shapes` and `fleet` say what is asked for and what there is; `placement` chooses node and device with one of
the policies (`baselines`, `fragmentation`, `value`); `quota`, `fairness`, `admission`, `preemption` decide who
goes next; `explain` says why somebody waits.
"""
