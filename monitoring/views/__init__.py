"""Pages of monitoring: logs, metrics, events, alerts. They sit beside those of `deployments.views`."""
