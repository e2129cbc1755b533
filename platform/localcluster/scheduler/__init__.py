"""The scheduler: gives each pod a node, or says why none fits."""
