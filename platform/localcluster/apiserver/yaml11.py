"""YAML as Kubernetes reads it: version 1.1, where a bare `y` is true, without timestamps and repeated keys."""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_NODES = 200_000


class Loader(yaml.SafeLoader):
    """A safe loader whose scalars become what JSON can hold."""

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        # Aliases to aliases can make a small text huge.
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise yaml.YAMLError("the document has too many nodes")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f'key "{key_node.value}" already set in map')
            seen.add(key_node.value)
        mapping = super().construct_mapping(node, deep)
        return {_key(key): value for key, value in mapping.items()}


def _key(key: Any) -> str:
    if key is True or key is False:
        return str(key).lower()
    return key if isinstance(key, str) else str(key)


Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:y|Y|n|N)$"), list("yYnN"))


def _boolean(loader: yaml.SafeLoader, node: Any) -> bool:
    return str(loader.construct_scalar(node)).lower() in ("y", "yes", "true", "on")


Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)
