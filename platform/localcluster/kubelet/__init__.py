"""The kubelet: runs the pods of its node as process groups of this machine and tells the API server about them."""
