"""The site is built without a warning, and not at all where a link or a name is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import graphscale
import graphscale.layers
from tests.docs.pages import ROOT


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build --strict` of the checkout, or a copy, in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(tmp_path) -> Path:
    """What the build reads, to be changed."""
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "graphscale").symlink_to(ROOT / "graphscale")
    return tmp_path


def append(page: Path, text: str) -> None:
    page.write_text(f"{page.read_text()}\n{text}\n")


def test_broken_links_and_pages_outside_the_navigation_fail_the_build(copy: Path) -> None:
    """Each is a warning of its own, so one build that counts them shows all."""
    for link in ("no_such_page.md", "limits.md#no-such-heading"):
        append(copy / "docs/index.md", f"[broken]({link})")
    (copy / "docs/lonely.md").write_text("# Lonely\n")
    done = build(copy, copy / "site")
    assert done.returncode != 0
    problems = ("no_such_page.md", "limits.md#no-such-heading", "lonely.md")
    assert [each for each in problems if each not in done.stderr] == []
    assert "Aborted with 3 warnings in strict mode" in done.stdout


def test_an_undocumented_name_fails_the_build(copy: Path) -> None:
    page = copy / "docs/reference/api.md"
    page.write_text(page.read_text().replace("::: graphscale.shrink\n", ""))
    done = build(copy, copy / "site")
    assert done.returncode != 0
    assert "graphscale.shrink: add a line" in done.stderr


def test_a_command_without_its_help_fails_the_build(copy: Path) -> None:
    page = copy / "docs/reference/command_line.md"
    page.write_text(page.read_text().replace("<!-- help: grow -->", ""))
    done = build(copy, copy / "site")
    assert done.returncode != 0
    assert "<!-- help: grow -->" in done.stderr


class _Identifiers(HTMLParser):
    """The ids of a page's elements, and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        if tag in ("script", "img", "iframe") or (tag == "link" and "stylesheet" in values["rel"]):
            self.loaded.append(values.get("src") or values.get("href") or "")


def read(page: Path) -> _Identifiers:
    parser = _Identifiers()
    parser.feed(page.read_text())
    return parser


def public_names() -> dict[str, object]:
    """Every public name with what it stands for; two packages may offer the same thing."""
    packages = [graphscale, graphscale.layers]
    for room in ("training", "distributed"):
        if importlib.util.find_spec(f"graphscale.{room}"):
            packages.append(importlib.import_module(f"graphscale.{room}"))
    return {
        f"{package.__name__}.{name}": getattr(package, name)
        for package in packages
        for name in getattr(package, "__all__", [])
        if not name.startswith("__")
    }


def test_every_public_name_is_on_a_page(site: Path) -> None:
    ids = set().union(*(read(page).ids for page in (site / "reference").glob("*.html")))
    names = public_names()
    shown = [value for name, value in names.items() if name in ids]
    missing = [n for n, value in names.items() if not any(value is each for each in shown)]
    assert not missing


def test_every_command_is_on_the_page_of_commands(site: Path) -> None:
    help_text = subprocess.run(
        [sys.executable, "-P", "-m", "graphscale", "--help"], capture_output=True, text=True
    ).stdout
    commands = re.findall(r"^    (\w+)", help_text, re.MULTILINE)
    page = (site / "reference/command_line.html").read_text()
    assert commands
    assert all(f'id="graphscale-{command}"' in page for command in commands)


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        foreign = [each for each in read(page).loaded if "//" in each]
        assert not foreign, page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", sheet.read_text()), sheet


def test_pictures_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("drawings", ROOT / "docs/drawings.py")
    drawings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawings)
    for name, draw in drawings.PICTURES.items():
        assert (drawings.IMAGES / name).read_text() == draw(), "run python docs/drawings.py"


@pytest.mark.parametrize("page", [page.name for page in sorted(ROOT.glob("*.md"))])
def test_links_of_pages_outside_the_site(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    for link in links:
        assert "://" in link or (ROOT / link).exists(), f"{page}: {link}"
