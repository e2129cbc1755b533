"""How the tests get their browser."""

from pathlib import Path

import pytest

from tests.support import browser, run


def program(folder: Path, status: int) -> str:
    path = folder / f"chromium-{status}"
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


def test_chrome_from_the_environment_comes_first_and_must_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROME", program(tmp_path, 0))
    assert browser.find() == program(tmp_path, 0)
    monkeypatch.setenv("CHROME", program(tmp_path, 1))
    with pytest.raises(browser.NoBrowserError, match=r"CHROME=.* does not start"):
        browser.find()


def test_ways_are_tried_in_order_until_one_gives_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def way(name: str, result: str | None) -> tuple[str, object]:
        def install() -> str | None:
            tried.append(name)
            return result

        return name, install

    monkeypatch.setattr(browser, "FINDERS", ())
    monkeypatch.setattr(browser, "INSTALLERS", (way("a", None), way("b", "/b"), way("c", "/c")))
    assert browser.find_or_install() == "/b"
    assert tried == ["a", "b"]


def test_no_browser_at_all_is_a_failure_that_lists_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "FINDERS", ())
    monkeypatch.setattr(browser, "INSTALLERS", (("a way", lambda: None),))
    with pytest.raises(browser.NoBrowserError, match=r"a way.*set CHROME to its program"):
        browser.find_or_install()


def test_the_closing_line_counts_every_process_and_a_lost_one_as_failed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="5" failures="1" errors="1" skipped="0"/></testsuites>')
    assert run.summary([run.counts(report)]) == "3 passed, 2 failed"
    assert run.summary([run.counts(report), run.counts(tmp_path / "none.xml")]) == "3 passed, 3 failed"
