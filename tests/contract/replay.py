"""Sending recorded requests to the cluster under test and comparing its answers with the recorded ones.

What differs from run to run - uids, versions, times, addresses, generated names - is matched by position:
the first time a recorded value appears it is paired with the value that the cluster gave, later requests are
sent with the paired value, and later answers must hold it.
"""

from __future__ import annotations

import asyncio
import io
import json
import lzma
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

FOLDER = Path(__file__).parent / "recordings"
RECORDED_IMAGE = "localhost/python:3.11"

# The recordings write <SRV> for this HTTP server.
SERVER = """import signal,sys,json,os,time,http.server as h
signal.signal(15,lambda*a:sys.exit(0))
T=time.time()
class H(h.BaseHTTPRequestHandler):
    protocol_version='HTTP/1.1'
    def do(self):
        n=int(self.headers.get('content-length') or 0);b=self.rfile.read(n).decode();c=200
        if self.path=='/fail':c=500
        if self.path=='/slow500' and time.time()-T>6:c=500
        if self.path=='/redir':c=302
        d=json.dumps({'pod':os.uname().nodename,'method':self.command,'path':self.path,\
'headers':dict(self.headers),'body':b}).encode()
        if self.path=='/html':d=b'<html><a href="/abs">x</a><a href="rel">y</a></html>'
        self.send_response(c);self.send_header('content-type','text/html' if self.path=='/html' \
else 'application/json');self.send_header('content-length',str(len(d)))
        if c==302:self.send_header('location','/other')
        self.end_headers();self.wfile.write(d)
    do_GET=do_POST=do_PUT=do_DELETE=do_PATCH=do
    def log_message(self,*a):pass
h.ThreadingHTTPServer(('',8080),H).serve_forever()"""

_UID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
_MANY = re.compile(r"<(\d+) times (.)>")
# What belongs to the place where the recording was made, not to Kubernetes.
_PLACE = re.compile(
    r"\.(nodeName|imageID|containerID|nodePort|hostIP|podIP|serverAddress|image|pod-template-hash|pod)$"
    r"|\.user\.linux\.|IPs\[\d+\](\.ip)?$|\.ca\.crt$"
)
# The volume of the service account is in no recording but one.
_ACCESS = "kube-api-access-"
_LARGE = 1024 * 1024
_PAIRED_KEYS = {"resourceVersion", "continue", "uid"}
_VOLATILE_TEXT = re.compile(r"\d+(\.\d+)?(ms|s|m|h|d)(\d+s)?\b")


def load(name: str) -> list[dict[str, Any]]:
    """The steps of one recording."""
    return json.loads(lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()))


@dataclass(frozen=True)
class Difference:
    """A deliberate difference: where it is and why. `path` is a prefix of the field's path, "" for everything."""

    scenario: str
    step: str
    path: str
    reason: str

    def covers(self, scenario: str, step: str, path: str) -> bool:
        same = (self.scenario == "*" or re.fullmatch(self.scenario, scenario) is not None) and re.search(
            self.step, step
        ) is not None
        return same and re.match(self.path, path) is not None


@dataclass
class Replay:
    """One scenario being replayed."""

    scenario: str
    session: aiohttp.ClientSession
    server: str
    token: str
    image: str
    account_token: str = ""
    node: str = "localcluster"
    pairs: dict[str, str] = field(default_factory=dict)
    found: list[tuple[str, str, str]] = field(default_factory=list)
    accept: Callable[[list[tuple[str, str, str]]], bool] = lambda found: not found

    def expand(self, text: str) -> str:
        """A recorded text as it is to be sent."""
        text = text.replace("<SRV>", SERVER).replace(RECORDED_IMAGE, self.image)
        text = _MANY.sub(lambda match: match.group(2) * int(match.group(1)), text)
        text = text.replace("<serviceaccount token>", self.account_token)
        for recorded, actual in self.pairs.items():
            if len(recorded) > 7 and recorded in text:
                text = text.replace(recorded, actual)
        return text

    def outgoing(self, value: Any, key: str = "") -> Any:
        """A recorded value with what is paired replaced."""
        if isinstance(value, dict):
            return {name: self.outgoing(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [self.outgoing(part, key) for part in value]
        if isinstance(value, str):
            if key in _PAIRED_KEYS and value in self.pairs:
                return self.pairs[value]
            return self.expand(value)
        return value

    async def send(self, request: dict[str, Any]) -> tuple[int, dict[str, list[str]], Any]:
        """Send a recorded request: status, headers, decoded body of the answer."""
        headers = {"User-Agent": "python-httpx/0.28.1", "Accept": "application/json"}
        headers["Authorization"] = f"Bearer {self.token}"
        for name, value in (request.get("headers") or {}).items():
            if value is None:
                headers.pop(name, None)
            else:
                headers[name] = self.expand(str(value))
        body = self.outgoing(request.get("body"))
        data = None
        if body is not None:
            data = body.encode() if isinstance(body, str) else json.dumps(body, separators=(",", ":")).encode()
        query = {name: str(self.outgoing(str(value), name)) for name, value in (request.get("query") or {}).items()}
        url = self.server + self.expand(request["path"])
        skip = () if headers.get("Content-Type") else ("Content-Type",)
        headers = {name: value for name, value in headers.items() if value != "" or name == "Authorization"}
        async with self.session.request(
            request["method"],
            url,
            params=query,
            data=io.BytesIO(data) if data and len(data) > _LARGE else data,
            headers=headers,
            skip_auto_headers=skip,
            allow_redirects=False,
        ) as answer:
            raw = await answer.read()
            found: dict[str, list[str]] = {}
            for name, value in answer.headers.items():
                found.setdefault(name.lower(), []).append(value)
            text = raw.decode("utf-8", "replace")
            if "yaml" in answer.headers.get("Content-Type", ""):
                return answer.status, found, yaml.safe_load(text)
            try:
                decoded = json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text
            except ValueError:
                decoded = text
            return answer.status, found, decoded

    async def step(self, step: dict[str, Any], *, patience: float) -> None:
        """Replay one step. A read is repeated until it matches or patience ends."""
        recorded, request = dict(step["response"]), step["request"]
        if "yaml" in (recorded.get("content_type") or ""):
            recorded["body"] = yaml.safe_load(recorded["body"])
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            code, headers, body = await self.send(request)
            problems: list[tuple[str, str, str]] = []
            pairs = dict(self.pairs)
            name = step["step"]
            if code != recorded["status"]:
                message = body.get("message", "") if isinstance(body, dict) else str(body)[:300]
                problems.append((name, "status", f"recorded {recorded['status']}, got {code} {message}"))
            else:
                self._compare_headers(recorded, headers, name, problems)
                self._compare(recorded.get("body"), body, "", name, problems)
            in_time = asyncio.get_running_loop().time() < deadline
            again = request["method"] == "GET" and in_time
            if again and not _settled(body):
                problems.append((name, "", "not settled"))
            if self.accept(problems) or not again:
                self.found += problems
                return
            self.pairs = pairs
            await asyncio.sleep(0.1)

    def _compare_headers(
        self, recorded: dict[str, Any], headers: dict[str, list[str]], step: str, problems: list[Any]
    ) -> None:
        wanted = (recorded.get("headers") or {}).get("warning") or []
        if sorted(wanted) != sorted(headers.get("warning") or []):
            problems.append((step, "header.warning", f"recorded {wanted}, got {headers.get('warning')}"))
        kind = (recorded.get("content_type") or "").replace(" ", "")
        got = headers.get("content-type", [""])[0].replace(" ", "")
        if kind and kind != got:
            problems.append((step, "header.content-type", f"recorded {kind}, got {got}"))

    def _compare(self, recorded: Any, actual: Any, path: str, step: str, problems: list[Any]) -> None:
        if isinstance(recorded, dict) and isinstance(actual, dict):
            if "=watch" in recorded:
                return  # an object shown in full by a watch of the recording
            actual = _without_access(recorded, actual)
            for key in [*recorded, *(key for key in actual if key not in recorded)]:
                here = f"{path}.{key}"
                if key == "managedFields" and self.scenario != "17-server-side-apply":
                    continue
                if key == "managedFields" and key in recorded and key in actual:
                    # Their order goes by whole seconds, so it hangs on when in a second the scenario began.
                    self._compare(_by_manager(recorded[key]), _by_manager(actual[key]), here, step, problems)
                elif key not in actual:
                    problems.append((step, here, f"recorded {_short(recorded[key])}, got nothing"))
                elif key not in recorded:
                    problems.append((step, here, f"recorded nothing, got {_short(actual[key])}"))
                else:
                    self._compare(recorded[key], actual[key], here, step, problems)
            return
        if isinstance(recorded, list) and isinstance(actual, list):
            if len(recorded) != len(actual):
                problems.append((step, path, f"recorded {_short(recorded)}, got {_short(actual)}"))
                return
            for index, (left, right) in enumerate(zip(recorded, actual, strict=True)):
                self._compare(left, right, f"{path}[{index}]", step, problems)
            return
        if recorded != actual and not self._matches(recorded, actual, path):
            problems.append((step, path, f"recorded {_short(recorded)}, got {_short(actual)}"))

    def _matches(self, recorded: Any, actual: Any, path: str) -> bool:
        if _PLACE.search(path) and type(recorded) is type(actual):
            return True
        if not isinstance(recorded, str) or not isinstance(actual, str):
            return False
        key = path.rsplit(".", 1)[-1]
        if self.pairs.get(recorded) == actual:
            return True
        if key in _PAIRED_KEYS or _UID.match(recorded):
            if recorded in self.pairs and key == "uid":
                return False  # one object of the recording, two of this cluster
            self.pairs[recorded] = actual
            return bool(actual)
        if _TIME.match(recorded):
            return _TIME.match(actual) is not None
        if self.expand(recorded) == actual:
            return True
        return self._same_text(recorded, actual)

    def _same_text(self, recorded: str, actual: str) -> bool:
        """Texts that differ in addresses, versions, ages and generated names only."""
        return volatile(self.expand(recorded)) == volatile(actual)


def _by_manager(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda one: (one["operation"], one["manager"], one.get("subresource", "")))


def _without_access(recorded: dict[str, Any], actual: dict[str, Any]) -> dict[str, Any]:
    """A pod spec or container without the volume of the service account, unless it was recorded."""
    for key in ("volumes", "volumeMounts"):
        if any(one["name"].startswith(_ACCESS) for one in recorded.get(key) or ()):
            continue
        left = [one for one in actual.get(key) or () if not one["name"].startswith(_ACCESS)]
        if len(left) != len(actual.get(key) or ()):
            actual = {**actual, key: left}
            if not left and key not in recorded:
                del actual[key]
    return actual


def _settled(body: Any) -> bool:
    """Whether controllers are through with a workload, so that a following write meets the version just read."""
    if not isinstance(body, dict) or body.get("kind") not in ("Deployment", "ReplicaSet"):
        return True
    return body.get("status", {}).get("observedGeneration") == body["metadata"].get("generation")


def volatile(text: str) -> str:
    """A text with what differs from run to run taken out."""
    text = re.sub(r"\b10\.\d+\.\d+\.\d+\b|\b127\.\d+\.\d+\.\d+\b", "<address>", text)
    text = re.sub(r"<address>:\d+", "<address>", text)
    text = re.sub(r"in record \(\d+\)", "in record (<version>)", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>", text)
    text = re.sub(r"resource version: \d+(, current: \d+)?( \(\d+\))?", "resource version: <version>", text)
    text = re.sub(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5}\b", "<suffix>", text)
    text = re.sub(r"(?<=-)[0-9a-z]{7,10}(?=-<suffix>|-$|\"|$)", "<hash>", text)
    return _VOLATILE_TEXT.sub("<span>", text)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 400 else text[:400] + "..."
