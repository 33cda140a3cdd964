"""The file of measurements: damaged, not writable, shared by processes and threads."""

import json
import threading

import pytest

from graphscale.tuning import Tuner


def ways() -> dict:
    return {"one": lambda: None, "other": lambda: None}


@pytest.mark.parametrize("content", ["{not json", "[]", "3", '{"p": 1}', '{"p": {"k": {}}}', ""])
def test_a_damaged_file_is_measured_anew(content, tmp_path):
    path = tmp_path / "tuning.json"
    path.write_text(content)
    assert set(Tuner("runtime", path).seconds("key", ways)) == {"one", "other"}
    (known,) = [each for each in json.loads(path.read_text()).values() if each]
    assert set(known["key"]) == {"one", "other"}


@pytest.mark.parametrize("damage", [{}, {"one": "fast"}, {"one": -1.0}, None])
def test_a_damaged_entry_is_measured_anew(damage, tmp_path):
    path = tmp_path / "tuning.json"
    Tuner("runtime", path).seconds("key", ways)
    content = json.loads(path.read_text())
    (place,) = content
    content[place] = {"key": damage}
    path.write_text(json.dumps(content))
    assert set(Tuner("runtime", path).seconds("key", ways)) == {"one", "other"}


def test_a_folder_that_cannot_be_written_is_a_warning_once(tmp_path):
    (tmp_path / "file").write_text("")
    tuner = Tuner("runtime", tmp_path / "file" / "tuning.json")
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert tuner.seconds("key", ways)
    assert tuner.seconds("other", ways)


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("graphscale.tuning.Path.home", home)
    assert Tuner("runtime").seconds("key", ways)


def test_writers_keep_what_others_wrote(tmp_path):
    path = tmp_path / "tuning.json"
    one, other = Tuner("runtime", path), Tuner("runtime", path)
    one.seconds("first", ways)
    other.seconds("second", ways)
    (known,) = json.loads(path.read_text()).values()
    assert set(known) == {"first", "second"}


def test_threads_measure_one_at_a_time(tmp_path):
    tuner, inside, most = Tuner("runtime", tmp_path / "tuning.json"), [], []

    def way():
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    threads = [
        threading.Thread(target=lambda key=key: tuner.seconds(key, lambda: {"one": way}))
        for key in ("a", "b", "a", "c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    (known,) = json.loads((tmp_path / "tuning.json").read_text()).values()
    assert set(known) == {"a", "b", "c"}
