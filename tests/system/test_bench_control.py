"""What benches/control asks for, and its smallest run. No figure is looked at but for being one."""
import re
import subprocess
from collections import Counter

from conftest import TOP


BENCH = "control"


def test_of_a_hundred_requests_ten_change_something(bench):
    lines = list(bench.mixture(1000, 1000))
    assert Counter(line.split()[0] for line in lines) == {"read": 800, "page": 50, "label": 50, "change": 100}
    changes = [line.split(maxsplit=3)[3] for line in lines if line.startswith("change ")]
    assert len(set(changes)) == len(changes), "what a change changes is not what it was before"


def test_each_request_is_of_a_machine_that_there_is(bench):
    made = {re.search(r'"name": "(m\d+)"', line)[1] for line in bench.creations(7)}
    assert made == {f"m{i}" for i in range(7)}
    asked = {match[1] for line in bench.mixture(7, 500) if (match := re.search(r"/v1/machines/(m\d+)", line))}
    assert asked == made


def test_load_says_what_it_needs(tmp_path):
    load = tmp_path / "load"
    subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", load, TOP / "benches/load.c"], check=True)
    done = subprocess.run([load], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: load SOCKET FOLLOWERS RATE < REQUESTS\n")
    done = subprocess.run([load, tmp_path / "none", "0", "10"], input="read GET /\n", capture_output=True, text=True)
    assert done.returncode == 1 and "none: No such file or directory" in done.stderr


def test_the_smallest_run(tmp_path):
    command = [TOP / "benches/control", "-r", "1", "-m", "40", "-f", "5", "-s", "200", "-t", "1", "-n", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for kind, count in (("create", 40), ("read", 160), ("page", 10), ("label", 10), ("change", 20)):
        assert re.search(rf"^{kind} +{count}(  +[\d,.]+ ±0\.0%){{3}}$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^none .*±0\.0%$", done.stdout, re.MULTILINE), done.stdout
