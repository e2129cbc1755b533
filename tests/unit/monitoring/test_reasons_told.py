"""The documents' list of reasons: every code there is, each with a test that exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = (
    "platform/kube/explain.py",
    "platform/kube/placement.py",
    "deployments/planning/progress.py",
    "deployments/tasks/environments.py",
    "deployments/tasks/gates.py",
    "deployments/tasks/reconciling.py",
)
ROW = re.compile(r"^\| `([a-z_]+)` \| (.+) \| `(tests/[\w/]+\.py)::(\w+)` \|$", re.MULTILINE)


def codes() -> set[str]:
    """Codes of all reasons that the sources can give."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse((ROOT / source).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason":
                # Those that pass a stored code on have an expression.
                found |= {str(each.value) for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)}
    return found


def rows() -> dict[str, tuple[str, str]]:
    """File and name of the test by code."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    return {code: (file, name) for code, _, file, name in ROW.findall(text)}


def test_the_list_of_reasons_is_whole() -> None:
    assert set(rows()) == codes()


def test_each_reason_has_the_test_that_the_list_names() -> None:
    for code, (file, name) in rows().items():
        source = (ROOT / file).read_text()
        body = re.search(rf"^(?:async )?def {name}\(.*?(?=^(?:async )?def |^@|\Z)", source, re.MULTILINE | re.DOTALL)
        assert body, f"{code}: there is no {file}::{name}"
        before = source[: body.start()].rpartition("\ndef ")[2]
        assert f'"{code}"' in body[0] or f'"{code}"' in before, f"{code}: {name} does not speak of it"
