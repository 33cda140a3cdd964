"""The runner of pages itself: what it runs, what it compares, and where it complains."""

from __future__ import annotations

import pytest

from tests.docs import pages
from tests.docs.pages import blocks, run_page


def run(text: str, folder, monkeypatch) -> None:
    monkeypatch.setattr(pages, "ROOT", folder)
    page = folder / "page.md"
    page.write_text(text)
    run_page(page, folder)


def test_blocks_know_language_title_and_line():
    page = 'Text\n\n```python title="a.py"\nx = 1\n```\n\n```sh\nmake\n```\n'
    python, shell = blocks(page)
    assert (python.language, python.title, python.line, python.text) == (
        "python",
        "a.py",
        4,
        "x = 1\n",
    )
    assert (shell.language, shell.title) == ("sh", None)


def test_python_blocks_share_names_and_output_is_compared(tmp_path, monkeypatch):
    page = "```python\nx = 2\n```\n\n```python\nprint(x, 3.14159)\n```\n\n```text\n2 3.1...\n```\n"
    run(page, tmp_path, monkeypatch)
    with pytest.raises(AssertionError, match=r"page\.md, line 6"):
        run(page.replace("2 3.1", "5 3.1"), tmp_path, monkeypatch)


def test_an_exception_carries_the_line_of_the_page(tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError) as caught:
        run("Text\n\n```python\n1 / 0\n```\n", tmp_path, monkeypatch)
    assert caught.traceback[-1].lineno == 3  # counted from 0


def test_console_runs_files_and_compares(tmp_path, monkeypatch):
    page = (
        '```python title="hello.py"\nprint("hello")\n```\n\n'
        "```console\n$ python hello.py \\\n    again\nhello\n$ cat hello.py\n```\n"
    )
    run(page, tmp_path, monkeypatch)
    with pytest.raises(AssertionError, match=r"\$ python hello\.py"):
        run(page.replace("again\nhello", "again\ngoodbye"), tmp_path, monkeypatch)


def test_a_failing_command_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(AssertionError, match=r"\$ false"):
        run("```console\n$ true\n$ false\n```\n", tmp_path, monkeypatch)


def test_other_languages_are_not_run(tmp_path, monkeypatch):
    run("```sh\nfalse\n```\n\n```text\nnothing\n```\n", tmp_path, monkeypatch)
