"""The command `scaling`: what it measures, its arithmetic, its turns of several processes."""

import json
import os

import pytest

from experiments.benchmarks import scaling
from experiments.benchmarks.scaling import Machine, Point
from experiments.benchmarks.worker import WorkerError

FOUR_CORES = Machine("cpu", "cores", 4, [0, 1, 2, 3])


def measured(devices, processes, speed):
    return {"members": 1, "devices": devices, "processes": processes, "images_per_second": speed}


def test_efficiency_by_hand():
    points = [measured(1, 1, 200.0), measured(4, 1, 600.0), measured(1, 2, 440.0)]
    found = scaling.add_efficiency(points)
    assert [point["speedup"] for point in found] == [1.0, 3.0, 2.2]
    assert [point["efficiency"] for point in found] == [1.0, 0.75, 1.1]
    assert [point["images_per_second"] for point in found] == [200.0, 600.0, 440.0]


def test_no_efficiency_without_the_speed_of_one_device():
    (point,) = scaling.add_efficiency([measured(1, 2, 440.0)])
    assert point["speedup"] is None and point["efficiency"] is None
    ms = {"median": 1.0, "min": 1.0, "max": 1.0}
    result = {
        "members": 1,
        "rounds": 1,
        "steps_per_turn": 10,
        "points": [point | {"ms_per_step": ms}],
    }
    text = scaling.table(result | {"left_out": {"one": "it broke"}})
    assert text.splitlines()[-2].split() == ["2", "2", "1.00", "1.00", "1.00", "440", "-", "-"]
    assert text.splitlines()[-1] == "left out: one: it broke"


@pytest.mark.parametrize(
    ("most", "wanted"),
    [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])],
)
def test_counts(most, wanted):
    assert scaling.counts(most) == wanted


def test_points():
    devices = [Point(8, 1, 1), Point(8, 2, 1), Point(8, 4, 1)]
    processes = [Point(8, 1, 2), Point(8, 1, 4)]
    assert scaling.points(FOUR_CORES, 8, quick=False) == devices + processes
    quick = [Point(8, 1, 1), Point(8, 4, 1), Point(8, 1, 4)]
    assert scaling.points(FOUR_CORES, 8, quick=True) == quick
    tpu = Machine("tpu", "TPU", 4, [0])
    assert scaling.points(tpu, 8, quick=False) == devices
    assert scaling.points(FOUR_CORES._replace(devices=1), 1, quick=False) == [Point(1, 1, 1)]


def test_every_turn_is_whole_chunks():
    for platform, chunk in (("cpu", 10), ("gpu", 110)):
        for members in (1, 8):
            for quick in (False, True):
                steps = scaling.turn_steps(platform, members, quick)
                assert steps > 0 and steps % chunk == 0


def test_each_process_sees_its_own_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    several = [scaling.environment(Point(1, 1, 2), "gpu", i) for i in range(2)]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in several] == ["4", "7"]
    assert "CUDA_VISIBLE_DEVICES" not in scaling.environment(Point(1, 2, 1), "gpu", 0)
    assert scaling.environment(Point(1, 1, 2), "cpu", 1) == {"JAX_PLATFORMS": "cpu"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
def test_on_cores():
    before = os.sched_getaffinity(0)
    first = min(before)
    with scaling.on_cores([first]):
        assert os.sched_getaffinity(0) == {first}
    assert os.sched_getaffinity(0) == before


class Fake:
    """A worker that notes what it is sent; `slowness` seconds a step."""

    def __init__(self, slowness, calls):
        self.slowness, self.calls = slowness, calls

    def send(self, request, steps):
        self.calls.append("send")
        self.steps = steps

    def receive(self):
        self.calls.append("receive")
        if self.slowness is None:
            raise WorkerError("it is gone")
        return {"seconds": self.slowness * self.steps}


def running(*slownesses):
    calls = []
    point = object.__new__(scaling.Running)
    point._workers = [Fake(slowness, calls) for slowness in slownesses]
    return point, calls


def test_all_processes_work_at_once_and_the_slowest_counts():
    point, calls = running(0.1, 0.3, 0.2)
    assert point.run(10) == {"seconds": pytest.approx(3.0)}
    assert calls == 3 * ["send"] + 3 * ["receive"]
    point, _ = running(0.1, None)
    with pytest.raises(WorkerError, match="gone"):
        point.run(10)


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["--quik"], "--quik is no flag of this command", "--quick"),
        (["--output", "/nowhere/results.json"], "--output /nowhere/results.json", "folder"),
    ],
)
def test_a_mistake_is_two_lines_and_code_2(argv, message, hint, capsys):
    with pytest.raises(SystemExit) as exit_:
        scaling.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 2, error
    assert message in error.splitlines()[0] and hint in error.splitlines()[1]


@pytest.mark.slow
def test_a_run(tmp_path, monkeypatch, capsys):
    """Real processes: one device, two devices, two processes; two rounds."""
    monkeypatch.setattr(scaling, "find_machine", lambda: Machine("cpu", "cores", 2, []))
    monkeypatch.setattr(scaling, "MEMBERS", (1,))
    file = tmp_path / "results.json"
    assert scaling.main(["--quick", "--output", str(file)]) == 0
    (result,) = json.loads(file.read_text())["tables"]
    assert not result["left_out"]
    assert [(p["devices"], p["processes"]) for p in result["points"]] == [(1, 1), (2, 1), (1, 2)]
    one = result["points"][0]
    for point in result["points"]:
        ratio = point["images_per_second"] / one["images_per_second"]
        assert point["speedup"] == pytest.approx(ratio)
        used = point["devices"] * point["processes"]
        assert point["efficiency"] == pytest.approx(ratio / used)
        assert point["images_per_second"] == pytest.approx(
            1e5 / point["ms_per_step"]["median"], 1e-3
        )
    assert "1 x deep, all devices share each batch" in capsys.readouterr().out
