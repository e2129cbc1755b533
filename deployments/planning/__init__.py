"""Pure decisions: what to do in the cluster (`plan`), what an observation means (`progress`), how many instances
are wanted (`autoscale`)."""
