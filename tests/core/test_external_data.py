"""Tensors in data files are found in the model's folder, and refused outside it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphscale.core.errors import GraphScaleError
from graphscale.core.model_files import load_model
from tests.zoo.handmade import classic, save_with_external_data


def data_file(folder: Path) -> Path:
    (data,) = [path for path in folder.iterdir() if path.suffix != ".onnx"]
    return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return save_with_external_data(classic(17), tmp_path / "models")


def weights(path: Path) -> dict[str, np.ndarray]:
    initializers = load_model(path).graph.initializers
    return {name: value.const_value.numpy() for name, value in initializers.items()}


def check(path: Path) -> None:
    found = weights(path)
    for tensor in classic(17).graph.initializer:
        np.testing.assert_array_equal(found[tensor.name], numpy_helper.to_array(tensor))


def test_beside_the_model_also_through_links_in_the_folder(path: Path) -> None:
    check(path)
    data = data_file(path.parent)
    data.rename(path.parent / "elsewhere")
    data.symlink_to("elsewhere")
    check(path)


def test_a_link_out_of_the_folder_is_refused(path: Path, tmp_path: Path) -> None:
    data = data_file(path.parent)
    data.rename(tmp_path / "secret")
    data.symlink_to(tmp_path / "secret")
    with pytest.raises(GraphScaleError, match="stands outside the model's folder; put it beside"):
        load_model(path)


def test_caches_link_models_and_their_data_into_one_folder(path: Path, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    for file in list(path.parent.iterdir()):
        file.rename(tmp_path / "blobs" / f"hash-{file.suffix}")
        file.symlink_to(Path("..") / "blobs" / f"hash-{file.suffix}")
    check(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/../../secret"])
def test_paths_out_of_the_folder_are_refused(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    (path.parent.parent / "secret").write_bytes(bytes(100_000))
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphScaleError, match="stands outside the model's folder; put it beside"):
        load_model(path)


@pytest.mark.parametrize("location", ["a\0b", "n" * 300, "circle", "{}"])
def test_what_is_no_usable_file_name_is_one_sentence(path: Path, location: str) -> None:
    (path.parent / "circle").symlink_to("circle")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphScaleError, match=r"the external data file .* of tensor .*; \w+"):
        load_model(path)


def test_missing_and_short_files_are_named(path: Path) -> None:
    data = data_file(path.parent)
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(GraphScaleError, match=r"ends behind the end of its data file; .*copy it"):
        load_model(path)
    data.unlink()
    with pytest.raises(GraphScaleError, match="is missing; put it beside the model"):
        load_model(path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize("which", ["model", "data"])
def test_only_regular_files_are_read(path: Path, kind: str, which: str) -> None:
    file = path if which == "model" else data_file(path.parent)
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero")
    message = (
        "outside the model's folder"
        if (kind, which) == ("device", "data")
        else "it is (a folder|no regular file)"
    )
    with pytest.raises(GraphScaleError, match=f"{message}.*; "):
        load_model(path)
