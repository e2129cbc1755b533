"""The process between kubelet and container. Standard library and relative imports only.

The kubelet starts it as a package of its own (see `processes.py`), outside any virtual environment.
"""
