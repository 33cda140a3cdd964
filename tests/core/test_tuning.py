"""Measurements: what counts of several, and their file, damaged, not writable, shared."""

import itertools
import json
import os
import threading

import pytest

from graphscale.core.tuning import Tuner, measure


def candidates() -> dict:
    return {"one": lambda: None, "other": lambda: None}


@pytest.mark.parametrize("content", ["{not json", "[]", "3", '{"p": 1}', '{"p": {"k": {}}}', ""])
def test_a_damaged_file_is_measured_anew(content, tmp_path):
    path = tmp_path / "tuning.json"
    path.write_text(content)
    assert set(Tuner("runtime", path).seconds("key", candidates)) == {"one", "other"}
    (known,) = [each for each in json.loads(path.read_text()).values() if each]
    assert set(known["key"]) == {"one", "other"}


INFINITE = float("inf")


@pytest.mark.parametrize(
    "damage", [{}, {"one": "fast"}, {"one": -1.0}, {"one": INFINITE}, {"one": True}, None]
)
def test_a_damaged_entry_is_measured_anew(damage, tmp_path):
    path = tmp_path / "tuning.json"
    Tuner("runtime", path).seconds("key", candidates)
    content = json.loads(path.read_text())
    (place,) = content
    content[place] = {"key": damage}
    path.write_text(json.dumps(content))
    assert set(Tuner("runtime", path).seconds("key", candidates)) == {"one", "other"}


def test_an_entry_without_the_default_is_measured_anew(tmp_path):
    path = tmp_path / "tuning.json"
    Tuner("runtime", path).seconds("key", lambda: {"other": lambda: None})
    assert Tuner("runtime", path, default="other").known("key")
    tuner = Tuner("runtime", path, default="one")
    assert tuner.known("key") is None
    assert set(tuner.seconds("key", candidates)) == {"one", "other"}


def test_measuring_again_replaces_what_is_kept(tmp_path):
    path = tmp_path / "tuning.json"
    old = Tuner("runtime", path)
    old.seconds("key", lambda: {"old": lambda: None})
    old.seconds("unused", candidates)
    tuner = Tuner("runtime", path, measure_again=True)
    assert tuner.known("key") is None
    tuner.seconds("another", candidates)
    assert set(tuner.seconds("key", candidates)) == {"one", "other"}
    (known,) = json.loads(path.read_text()).values()
    assert set(known) == {"key", "unused", "another"}
    assert set(known["key"]) == {"one", "other"}
    tuner.forget("key")
    assert tuner.known("key") is None


def test_a_folder_that_cannot_be_written_is_a_warning_once(tmp_path):
    (tmp_path / "file").write_text("")
    tuner = Tuner("runtime", tmp_path / "file" / "tuning.json")
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert tuner.seconds("key", candidates)
    assert tuner.seconds("other", candidates)


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("graphscale.core.tuning.Path.home", home)
    assert Tuner("runtime").seconds("key", candidates)


def test_writers_keep_what_others_wrote(tmp_path):
    path = tmp_path / "tuning.json"
    one, other = Tuner("runtime", path), Tuner("runtime", path)
    one.seconds("first", candidates)
    other.seconds("second", candidates)
    (known,) = json.loads(path.read_text()).values()
    assert set(known) == {"first", "second"}


def test_threads_measure_one_at_a_time(tmp_path):
    tuner, inside, counts = Tuner("runtime", tmp_path / "tuning.json"), [], []

    def candidate():
        inside.append(1)
        counts.append(len(inside))
        inside.pop()

    threads = [
        threading.Thread(target=lambda key=key: tuner.seconds(key, lambda: {"one": candidate}))
        for key in ("a", "b", "a", "c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(counts) == 1
    (known,) = json.loads((tmp_path / "tuning.json").read_text()).values()
    assert set(known) == {"a", "b", "c"}


class Clock:
    """Time that passes only in candidates; `runs` names them in order."""

    def __init__(self, monkeypatch):
        self.now, self.runs = 0.0, []
        monkeypatch.setattr("graphscale.core.tuning.time.perf_counter", lambda: self.now)

    def candidate(self, name, *seconds):
        """Takes the seconds in turn."""
        taken = itertools.cycle(seconds)

        def run():
            self.runs.append(name)
            self.now += next(taken)

        return run


def test_candidates_run_in_turn_and_slow_ones_are_dropped(monkeypatch):
    clock = Clock(monkeypatch)
    seconds = {"slowest": 0.0045, "slow": 0.003, "one": 0.002, "two": 0.002}
    found = measure({name: clock.candidate(name, each) for name, each in seconds.items()})
    # In each turn a call to wake up and one that counts; all have a round, the slow one has two.
    one_round = ["slowest", "slowest", "slow", "slow", "one", "one", "two", "two"]
    assert clock.runs[:18] == [*seconds, *one_round, *one_round[2:]]
    assert clock.runs[18:] == one_round[4:] * 4
    assert found == pytest.approx(seconds)


def test_hopeless_candidates_run_once(monkeypatch):
    clock = Clock(monkeypatch)
    found = measure(
        {"hopeless": clock.candidate("hopeless", 400.0), "one": clock.candidate("one", 0.01)}
    )
    assert clock.runs.count("hopeless") == 1
    assert found == pytest.approx({"hopeless": 400.0, "one": 0.01})


def test_the_fastest_run_counts_but_not_the_first(monkeypatch):
    clock = Clock(monkeypatch)
    disturbed = clock.candidate("disturbed", 0.02, 0.001)  # every other time another has the core
    steady = clock.candidate("steady", 0.003)
    found = measure({"disturbed": disturbed, "steady": steady})
    assert found == pytest.approx({"disturbed": 0.001, "steady": 0.003})
    found = measure({"cold": clock.candidate("cold", 0.001, *[0.002] * 10_000)})
    assert found == pytest.approx({"cold": 0.002})


def test_long_runs_need_no_warming_up_and_two_rounds_at_least(monkeypatch):
    clock = Clock(monkeypatch)
    measure(
        {"one": clock.candidate("one", 5.0), "two": clock.candidate("two", 6.0)}, max_seconds=10.0
    )
    assert clock.runs == ["one", "two"] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_measures_can_measure(tmp_path):
    tuner = Tuner("runtime", tmp_path / "tuning.json")
    assert tuner._measuring.acquire()  # as another thread's, which the child does not have
    child = os.fork()
    if child == 0:
        free = tuner._measuring.acquire(blocking=False)
        os._exit(0 if free else 1)
    tuner._measuring.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_known_is_told_without_measuring(tmp_path):
    tuner = Tuner("runtime", tmp_path / "tuning.json")
    assert tuner.known("key") is None
    seconds = tuner.seconds("key", candidates)
    assert tuner.known("key") == seconds
