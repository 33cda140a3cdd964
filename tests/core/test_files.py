"""Files appear whole or not at all, and only where a file may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.core.files import check_regular, check_writable, locked, replacing


def test_several_files_appear_together(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    with replacing(*paths) as files:
        for file in files:
            file.write(b"new")
        assert not any(path.exists() for path in paths)
    assert [path.read_bytes() for path in paths] == [b"new", b"new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_what_was_there_is_still_there(tmp_path: Path, error: type) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write() -> None:
        with replacing(path) as (file,):
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a")
    with replacing(tmp_path / "link") as (file,):
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing folder"])
def test_where_no_file_may_be_it_is_said_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / "missing" / "a"
    with pytest.raises(GraphScaleError, match=r"cannot be written .*; choose a folder"):
        check_writable(path)
    with pytest.raises(GraphScaleError, match=r"cannot be written .*; choose a folder"):
        replacing(path).__enter__()


def test_regular_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    check_regular(tmp_path / "a")
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match="it is"):
            check_regular(path)


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with locked(path) as outer:
        assert outer
        with locked(path, max_seconds=0.05) as inner:
            assert not inner  # its block runs all the same
    with locked(path) as again:
        assert again


def test_where_no_lock_can_be_had_the_block_runs(tmp_path: Path) -> None:
    (tmp_path / "a.lock").mkdir()
    with locked(tmp_path / "a") as had:
        assert not had
    os.mkfifo(tmp_path / "b.lock")
    with locked(tmp_path / "b"):  # is not waited for
        pass
