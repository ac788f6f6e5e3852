"""The README's first command, as a new user types it: a backend answers from inside a virtual machine."""
import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A user of their own: no host, no context, nothing cached but what Debian's packages cost to fetch."""
    home = tmp_path_factory.mktemp("home")
    return dict(os.environ, HULL_QUICKSTART_PORT=str(free_port()), XDG_STATE_HOME=str(home / "state"),
                XDG_CONFIG_HOME=str(home / "config"), XDG_RUNTIME_DIR=str(home))


def quickstart(environment, *arguments, timeout=600):
    return subprocess.run([TOP / "quickstart", *arguments], env=environment, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)


@pytest.fixture(scope="module")
def running(environment):
    up = quickstart(environment)
    try:
        assert up.returncode == 0, up.stdout
        yield up.stdout
    finally:
        down = quickstart(environment, "down", timeout=120)
    assert down.returncode == 0, down.stdout


@pytest.fixture
def url(environment):
    return f"http://127.0.0.1:{environment['HULL_QUICKSTART_PORT']}"


def hull(environment, *arguments, timeout=120):
    return subprocess.run([TOP / "build" / "hull", *arguments], cwd=TOP, env=environment, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=timeout)


def must(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def put_and_get(url, note):
    request = urllib.request.Request(url, data=note, method="PUT")
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 201
    assert get(url) == (200, note.decode())


def test_it_prints_the_url_and_what_to_try(running, url):
    assert url in running
    assert "build/hull logs -f hello" in running


def test_the_backend_answers_from_its_own_kernel(running, url):
    status, body = get(url + "/")
    assert status == 200
    assert os.uname().release not in body
    assert "6.12" in body


def test_it_writes_and_reads_a_file(running, url):
    put_and_get(url + "/notes/first", b"remember me")


def test_a_second_quickstart_finds_everything_running(running, environment, url):
    again = quickstart(environment, timeout=120)
    assert again.returncode == 0, again.stdout
    listed = json.loads(hull(environment, "ps", "-a", "-o", "json").stdout)
    machines = listed["items"] if isinstance(listed, dict) else listed
    assert [m["name"] for m in machines] == ["hello"]
    assert get(url + "/healthz")[0] == 200


def test_the_readmes_next_commands_work(running, environment):
    assert "hello" in hull(environment, "ps").stdout
    assert hull(environment, "logs", "hello").returncode == 0
    one_off = hull(environment, "run", "--rm", "python-hello", "--", "uname", "-r")
    assert one_off.returncode == 0, one_off.stderr
    assert "6.12" in one_off.stdout


def test_the_readmes_second_image_answers_too(running, environment):
    port = free_port()
    must(hull(environment, "image", "build", "node-hello", "--file", "examples/node-hello/IMAGE.json", timeout=400))
    must(hull(environment, "run", "-d", "--name", "web", "-p", f"{port}:8080", "node-hello"))
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        try:
            assert get(url + "/healthz") == (200, "ok\n")
            break
        except OSError:  # refused, or closed again, while Node.js starts
            assert time.monotonic() < deadline, hull(environment, "logs", "web").stdout
    status, body = get(url + "/")
    assert status == 200 and "6.12" in json.loads(body)["kernel"]
    put_and_get(url + "/notes/second", b"me too")
    must(hull(environment, "stop", "web"))
    must(hull(environment, "rm", "web"))


def test_an_image_is_the_same_each_time_and_its_bytecode_is_good(running, environment, tmp_path):
    first, second, tree = tmp_path / "first", tmp_path / "second", tmp_path / "tree"
    for output in first, second:
        must(hull(environment, "image", "build", "again", "--file", "examples/python-hello/IMAGE.json", "--output", str(output)))
    assert first.read_bytes() == second.read_bytes()
    subprocess.run(["fsck.erofs", f"--extract={tree}", "--preserve", first], check=True, capture_output=True)
    compiled = list(tree.glob("usr/lib/python3.11/**/*.pyc"))
    assert len(compiled) > 100
    for path in compiled:  # Python takes a compiled file that names its source's time (PEP 552), and compiles anew otherwise
        source = path.parent.parent / (path.name.split(".")[0] + ".py")
        if source.is_symlink():  # one of them is, and absolute
            source = tree / os.readlink(source).lstrip("/")
        assert int.from_bytes(path.read_bytes()[8:12], "little") == int(source.stat().st_mtime), path


def test_a_taken_port_is_said_before_anything_starts(running, environment):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        taken = str(s.getsockname()[1])
        home = environment["XDG_STATE_HOME"] + "-other"
        refused = quickstart(dict(environment, HULL_QUICKSTART_PORT=taken, XDG_STATE_HOME=home), timeout=120)
    assert refused.returncode != 0
    assert taken in refused.stdout and "taken" in refused.stdout


def test_a_misspelt_command_is_refused(environment):
    refused = quickstart(environment, "chekc")
    assert refused.returncode != 0
    assert "chekc" in refused.stdout
