"""What holds on every page: the security policy, no inline code, names for controls, one title, valid parts."""

import gzip
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from tests.app.pages.conftest import Site
from tests.app.pages.routes import PAGES, address

VOID = {"meta", "link", "input", "br", "hr", "img", "path", "rect", "progress-void"}
GLOBAL_PAGES = ["/projects/", "/account/", "/projects/nope/deployments/", "/no-such-page/"]


class Page(HTMLParser):
    """Collects what the checks below look at."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.inline: list[str] = []
        self.unbalanced: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(f"</{tag}> at {self.getpos()}")

    def ids(self) -> list[str]:
        return [attrs["id"] or "" for _, attrs in self.tags if "id" in attrs]


def _pages(site: Site, client: Client) -> dict[str, str]:
    urls = {name: address(site, name) for name in PAGES if not name.endswith("-file")}
    urls |= {url: url for url in GLOBAL_PAGES}
    answers = {name: client.get(url) for name, url in urls.items()} | {"sign-in": Client().get("/sign-in/")}
    return {name: answer.content.decode() for name, answer in answers.items()}


def test_every_page_has_the_policy_and_no_inline_code(site: Site, admin: Client):
    for name, html in _pages(site, admin).items():
        page = Page(html)
        for tag, attrs in page.tags:
            assert "style" not in attrs, (name, tag)
            assert not [key for key in attrs if key.startswith("on") or key.startswith("hx-on")], (name, tag)
            if tag == "script":
                assert attrs.get("src", "").startswith("/static/") or attrs.get("type") == "application/json", name
            assert tag != "style", name
            for link in ("href", "src", "action"):
                assert not (attrs.get(link) or "").startswith(("javascript:", "http:", "https:", "//")), (name, attrs)


def test_the_policy_allows_own_files_only(site: Site, admin: Client):
    policy = admin.get(site.url("version"))["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_every_page_is_well_formed(site: Site, admin: Client):
    for name, html in _pages(site, admin).items():
        page = Page(html)
        assert page.unbalanced == [], name
        assert page.open == [], name
        ids = page.ids()
        assert sorted(set(ids)) == sorted(ids), (name, [one for one in ids if ids.count(one) > 1])


def test_every_page_has_a_title_a_heading_and_named_controls(site: Site, admin: Client):
    for name, html in _pages(site, admin).items():
        page = Page(html)
        assert re.search(r"<title>\S.* · Pilothouse</title>", html), name
        assert [tag for tag, _ in page.tags].count("h1") == 1, name
        labelled = {attrs.get("for") for tag, attrs in page.tags if tag == "label"}
        for tag, attrs in page.tags:
            if tag not in ("input", "select", "textarea") or attrs.get("type") in ("hidden", "radio", "checkbox"):
                continue
            named = attrs.get("id") in labelled or "aria-label" in attrs or "aria-hidden" in attrs
            assert named, (name, attrs)
        for tag, attrs in page.tags:
            for key in ("aria-controls", "aria-labelledby"):
                if attrs.get(key):
                    assert attrs[key] in page.ids(), (name, tag, attrs)


def test_pages_are_not_kept_in_caches(site: Site, admin: Client):
    answer = admin.get(site.url("version"))
    assert answer["Cache-Control"] == "no-store"
    assert "HX-Request" in answer["Vary"]


@pytest.mark.parametrize(
    ("page", "parts"),
    [
        ("version", {"version-status", "rollout", "instances"}),
        ("version-logs", {"version-status", "events"}),
        ("version-revisions", {"version-status", "revision-list"}),
    ],
)
def test_fragments_hold_only_parts_that_the_page_has(site: Site, admin: Client, page: str, parts: set[str]):
    whole = Page(admin.get(address(site, page)).content.decode())
    fragment = Page(admin.get(address(site, page), headers={"HX-Request": "true"}).content.decode())
    assert "html" not in [tag for tag, _ in fragment.tags]
    swapped = {attrs["id"] for _, attrs in fragment.tags if "hx-swap-oob" in attrs}
    assert swapped == parts
    assert parts <= set(whole.ids())
    assert not [attrs for _, attrs in whole.tags if "hx-swap-oob" in attrs]


def test_ordinary_pages_load_little_script(site: Site, admin: Client):
    """35 KB of compressed scripts, 60 with charts, with all modules that a page imports when it is opened."""
    root = settings.BASE_DIR / "static"
    for name, html in _pages(site, admin).items():
        wanted = [root / url.removeprefix("/static/") for url in re.findall(r'<script src="(/static/[^"]+)"', html)]
        loaded: set[Path] = set()
        while wanted:
            path = wanted.pop()
            if path not in loaded:
                loaded.add(path)
                wanted += [(path.parent / one).resolve() for one in _imports(path)]
        most = 60_000 if name == "version-metrics" else 35_000
        assert sum(len(gzip.compress(path.read_bytes(), 6)) for path in loaded) <= most, name


def _imports(path: Path) -> list[str]:
    if "vendor" in path.parts:
        return []
    return re.findall(r'^import (?:[^"]+ from )?"(\./[^"]+)";', path.read_text(), re.MULTILINE)


def test_vendored_files_are_what_their_sums_say():
    for sums in (settings.BASE_DIR / "static/vendor").glob("*/SHA256SUMS"):
        for line in sums.read_text().splitlines():
            digest, name = line.split()
            assert hashlib.sha256((sums.parent / name).read_bytes()).hexdigest() == digest, name
        assert (sums.parent / "LICENSE").exists()
