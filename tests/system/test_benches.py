"""What benches/ makes of its readings, and the smallest run of each tool. No figure is looked at but for being one."""
import re
import subprocess

import pytest

from conftest import TOP


BENCH = "io"


class Machine:
    """A guest: a run takes 70 a request and 1000 besides; the clock is looked at with it."""

    def __init__(self, runs, last):
        self.now, self.runs, self.last = 0, list(runs), last

    def send(self, line):
        self.line = line

    def answer(self, timeout):
        if self.now == 0:
            self.now = 1
        elif self.runs:
            self.now += 1000 + 70 * self.runs.pop(0)
        else:
            self.now += 500000
            return self.last
        return "mark"


def rows(bench):
    command, rows = bench.GROUPS[0]
    return command, rows[:2], [n for row in rows[:2] for n in row.runs()]


def test_what_tools_take_besides_is_in_no_figure(bench):
    command, two, runs = rows(bench)
    machine = Machine(runs, "0.1 0.5 0.1 2 ")
    assert bench.run(machine, command, two, lambda: (machine.now, 2 * machine.now)) == [
        ([70.0, 140.0], two[0].count / 0.5), ([70.0, 140.0], two[1].count / 2)]
    assert machine.line.count("--io_size=") == 5


def test_a_guest_that_fails_is_quoted(bench):
    command, two, runs = rows(bench)
    machine = Machine(runs, "fio: not found")
    with pytest.raises(RuntimeError, match="random read: the guest says 'fio: not found'"):
        bench.run(machine, command, two, lambda: (machine.now,))


def test_the_table_has_ratios(bench):
    row = bench.GROUPS[0][1][0]
    results = {"Hull": {row.name: bench.Result([200, 220, 190], [4000, 4100, 4000], [2, 2, 2])},
               "QEMU": {row.name: bench.Result([100, 100, 100], [8000, 8000, 8000], [4, 4, 5])}}
    head, line = bench.show([row], ["Hull", "QEMU"], results)
    assert head.split() == ["a", "request"] + [word for column in ("requests/s", "instructions", "exits")
                                               for word in ("Hull", column, "QEMU", column, "Hull/QEMU")]
    assert line.split() == ["random", "read", "4", "KiB", "200", "±10.0%", "100", "±0.0%", "2.00",
                            "4,000", "±2.5%", "8,000", "±0.0%", "0.50", "2.00", "±0.0%", "4.00", "±25.0%", "0.50"]


class Scene:
    """Guests whose runs end with `answers`, one after the other; None is silence."""

    def __init__(self, answers):
        self.guest, self.answers, self.closed = self, answers, False

    def send(self, line):
        self.marked = 0

    def answer(self, timeout):
        self.marked += 1
        if self.marked <= 3:
            return "mark"
        answer = self.answers.pop(0)
        if answer is None:
            raise TimeoutError
        return answer

    def close(self):
        self.closed = True


def test_a_guest_that_stands_still_is_booted_anew(bench, monkeypatch):
    monkeypatch.setattr(bench.harness, "spent", lambda: (0, 0))
    command, (row, *_) = bench.GROUPS[0]
    begun = []
    scenes = iter([["1 1", "1 4", None], ["1 1", "1 2", "1 8"]])

    def begin(monitor):
        begun.append(Scene(next(scenes)))
        return begun[-1]

    results, stalls = bench.measure("monitor", [(command, [row])], 3, begin)
    assert stalls == 1 and all(scene.closed for scene in begun)
    # The first run in each guest is for nothing.
    assert results[row.name].rates == [row.count / seconds for seconds in (4, 2, 8)]


def test_a_monitor_whose_guests_all_stand_still_is_given_up(bench, monkeypatch):
    monkeypatch.setattr(bench.harness, "spent", lambda: (0, 0))
    monkeypatch.setattr(bench, "STALLS_MAX", 2)
    command, (row, *_) = bench.GROUPS[0]
    with pytest.raises(TimeoutError):
        bench.measure("monitor", [(command, [row])], 1, lambda monitor: Scene([None]))


def test_a_row_that_is_not_there_is_refused():
    done = subprocess.run([TOP / "benches/io", "-k", "random walk"], capture_output=True, text=True)
    assert done.returncode == 2 and "no row has such a name" in done.stderr


def test_the_smallest_run(tmp_path):
    done = subprocess.run([TOP / "benches/io", "-s", "mmio", "-m", "Hull", "-r", "1", "-k", "random read, one", "-k", "to the host",
                           "-k", "response"], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    figures = r"  +[\d,.]+ ±0\.0%" * 3 + "$"
    for row in ("random read, one at a time +4 KiB", "TCP stream to the host +128 KiB", "TCP request and response +1 byte"):
        assert re.search(f"^{row}{figures}", done.stdout, re.MULTILINE), done.stdout
