"""GPUs in the product: inventory, policy, what versions ask for, the pass over all claims, and what pages show of it.

The decisions are pure functions of `deployments.scheduling`; here rows become their input and their answers rows.
"""
