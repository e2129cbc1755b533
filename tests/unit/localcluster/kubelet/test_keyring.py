"""Pull secrets: which credentials an image gets."""

from __future__ import annotations

import base64
import json
from typing import Any

import aiohttp
import pytest

from localcluster.kubelet.keyring import Credential, credentials, pull_secrets

Object = dict[str, Any]


def packed(content: Any) -> str:
    return base64.b64encode((content if isinstance(content, str) else json.dumps(content)).encode()).decode()


def secret(*places: str, user: str = "u", **entry: Any) -> Object:
    auths = {place: entry or {"username": user, "password": f"of {place}"} for place in places}
    return {
        "metadata": {"name": "s"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": packed({"auths": auths})},
    }


@pytest.mark.parametrize(
    ("place", "repository", "matches"),
    [
        ("registry.example.com", "registry.example.com/team/server", True),
        ("https://registry.example.com", "registry.example.com/team/server", True),
        ("https://registry.example.com/v2/", "registry.example.com/team/server", True),
        ("registry.example.com/team", "registry.example.com/team/server", True),
        ("registry.example.com/other", "registry.example.com/team/server", False),
        ("registry.example.com:5000", "registry.example.com:5000/a", True),
        ("registry.example.com", "registry.example.com:5000/a", False),
        ("registry.example.com:5000", "registry.example.com/a", False),
        ("*.example.com", "registry.example.com/a", True),
        ("*.com", "registry.example.com/a", False),
        ("evil.example.com", "registry.example.com/a", False),
        ("example.com", "registry.example.com/a", False),
        ("127.0.0.1:5000", "127.0.0.1:5000/a", True),
    ],
)
def test_which_hosts_a_credential_is_for(place: str, repository: str, matches: bool) -> None:
    expected = [Credential("u", f"of {place}")] if matches else []
    assert credentials([secret(place)], repository) == expected


def test_the_most_telling_comes_first_and_none_twice() -> None:
    found = credentials([secret("r.io", "r.io/team"), secret("r.io")], "r.io/team/a")
    assert [one.secret for one in found] == ["of r.io/team", "of r.io"]


def test_user_and_password_may_be_packed_together() -> None:
    entry = {"auth": packed("me:a:b").rstrip("="), "username": "old", "password": "old"}
    assert credentials([secret("r.io", **entry)], "r.io/a") == [Credential("me", "a:b")]


def test_the_older_form_is_read() -> None:
    old = {
        "metadata": {"name": "s"},
        "type": "kubernetes.io/dockercfg",
        "data": {".dockercfg": packed({"r.io": {"username": "u", "password": "p"}})},
    }
    assert credentials([old], "r.io/a") == [Credential("u", "p")]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"auths": 3}', '{"auths": {"r.io": 3}}', '{"auths": {"http://[": {}}}']
)
def test_what_cannot_be_read_is_passed_over(content: str) -> None:
    bad = secret("r.io") | {"data": {".dockerconfigjson": packed(content)}}
    assert credentials([bad, secret("r.io")], "r.io/a") == [Credential("u", "of r.io")]
    for entry in ({"auth": "!"}, {"auth": packed("x")}, {"username": "a:b"}, {"username": "a", "password": "\ud800"}):
        assert credentials([secret("r.io", **entry)], "r.io/a") == []
    assert credentials([secret("r.io") | {"type": "Opaque"}], "r.io/a") == []


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(Credential("u", "hidden"))


async def test_pull_secrets_that_cannot_be_read_are_named() -> None:
    there = secret("r.io")

    async def lookup(kind: str, name: str) -> Object | None:
        assert kind == "Secret"
        if name == "away":
            raise aiohttp.ClientConnectionError
        return {"there": there}.get(name)

    names = ["there", "gone", "away"]
    pod = {"metadata": {"namespace": "ns"}, "spec": {"imagePullSecrets": [{"name": name} for name in names]}}
    assert await pull_secrets(pod, lookup) == ([there], ["gone", "away"])
    assert await pull_secrets({"metadata": {"namespace": "ns"}, "spec": {}}, lookup) == ([], [])
