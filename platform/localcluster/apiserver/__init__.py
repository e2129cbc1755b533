"""The embedded cluster's API server: Kubernetes' HTTP API over an in-memory store with a write-ahead log."""
