"""The README's first command, as a new user types it: a backend answers from inside a virtual machine."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from free_ports import free_port

TOP = Path(__file__).resolve().parent.parent.parent


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A user of their own: no host, no context, nothing cached but what Debian's packages cost to fetch."""
    home = tmp_path_factory.mktemp("home")
    return dict(os.environ, HULL_QUICKSTART_PORT=str(free_port()), HULL_QUICKSTART_HTTP=str(free_port()),
                HULL_QUICKSTART_HTTPS=str(free_port()), XDG_STATE_HOME=str(home / "state"),
                XDG_CONFIG_HOME=str(home / "config"), XDG_RUNTIME_DIR=str(home))


def quickstart(environment, *arguments, timeout=600):
    return subprocess.run([TOP / "quickstart", *arguments], env=environment, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)


def test_down_before_anything_is_up_is_fine(environment):
    assert quickstart(environment, "down", timeout=60).returncode == 0


def children(pid):
    """All below it: {pid: command line}."""
    found, parents = {}, {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
            found[int(entry)] = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: found[child] for child in below - {pid} if child in found}


def host_status(environment):
    return subprocess.run([TOP / "tools" / "kvmhost", "status"], env=environment, capture_output=True, text=True, timeout=60).stderr


@pytest.mark.parametrize("signo, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_interrupted_leaves_nothing_running(environment, signo, status):
    """Ctrl-C while the host starts; a second one meanwhile is told to wait."""
    up = subprocess.Popen([TOP / "quickstart"], env=environment, stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True)
    try:
        for line in up.stdout:
            if "… host" in line:
                break
        second = quickstart(environment, timeout=60)
        assert second.returncode == 1 and "another ./quickstart works here" in second.stdout
        deadline = time.monotonic() + 300
        while not (below := {pid for pid, words in children(up.pid).items() if b"kvmhost" in words}):
            assert time.monotonic() < deadline
        up.send_signal(signo)
        rest = up.communicate(timeout=120)[0]
        assert up.returncode == status, rest
        assert "interrupted" in rest
        while any(os.path.exists(f"/proc/{pid}") for pid in below) or "down" not in host_status(environment):
            assert time.monotonic() < deadline, (below, host_status(environment))
    finally:
        up.kill()
        up.wait()


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


def test_another_port_than_the_machine_has_is_refused_at_once(running, environment, url):
    other = quickstart(dict(environment, HULL_QUICKSTART_PORT=str(free_port())), timeout=120)
    assert other.returncode == 1 and f"on port {environment['HULL_QUICKSTART_PORT']}" in other.stdout.splitlines()[-1], other.stdout
    mine = {name: value for name, value in environment.items() if name != "HULL_QUICKSTART_PORT"}
    again = quickstart(mine, timeout=120)
    assert again.returncode == 0 and url in again.stdout, again.stdout


@pytest.mark.parametrize("port", ["", "0", "65536", "http", "8080x", "-1"])
def test_a_port_that_is_none_is_refused(environment, port):
    refused = quickstart(dict(environment, HULL_QUICKSTART_PORT=port or " "), timeout=60)
    assert refused.returncode == 1 and "is no port" in refused.stdout


def test_a_folder_that_is_none_is_refused_before_anything_is_done(environment):
    refused = quickstart(dict(environment, HULL_QUICKSTART_SHARE="./nope"), timeout=60)
    assert refused.returncode == 1 and refused.stdout == "quickstart: HULL_QUICKSTART_SHARE: './nope' is no folder\n"


def test_another_hosts_context_is_left_alone(running, environment, tmp_path):
    """It names a host that is not there: nothing is asked of it, and it is said how this one is reached."""
    context = tmp_path / "hull" / "context.json"
    context.parent.mkdir()
    context.write_text('{"url":"http://127.0.0.1:1","token":"of another"}')
    again = quickstart(dict(environment, XDG_CONFIG_HOME=str(tmp_path), HULL_HOST="http://127.0.0.1:2"), timeout=120)
    assert again.returncode == 0, again.stdout
    words = again.stdout.split("export ")[1].split()
    assert words[0].startswith("HULL_HOST=http://127.0.0.1:") and words[1].startswith("HULL_TOKEN=")
    assert "hello" in hull(dict(environment, XDG_CONFIG_HOME=str(tmp_path), **dict(word.split("=", 1) for word in words)), "ps").stdout
    assert json.loads(context.read_text())["url"] == "http://127.0.0.1:1"


REACH = """
import socket, sys
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        socket.create_connection((address, int(port)), timeout=20).close()
        print(address, "reached")
    except OSError:
        print(address, "not reached")
"""

SERVE_AT_10_99 = """
import socket, subprocess
subprocess.run(["/run/kvmhost/busybox", "ip", "addr", "add", "10.99.0.1/32", "dev", "lo"], check=True)
with socket.create_server(("10.99.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    server.accept()
"""


def test_a_machine_reaches_the_network_but_not_this_machines_loopback(running, environment):
    """10.0.2.2 is what QEMU's network calls this machine. What stands for the network is an address of the emulated host's."""
    if (Path(environment["XDG_STATE_HOME"]) / "hull" / "host" / "run" / "here").exists():
        return  # with KVM there is no host between, and no such address
    far = subprocess.Popen([TOP / "tools" / "kvmhost", "shell", "--", "python3", "-c", SERVE_AT_10_99], env=environment, text=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with far, socket.create_server(("127.0.0.1", 0)) as server:
        one_off = hull(environment, "run", "--rm", "python-hello", "--", "python3", "-c", REACH,
                       "10.99.0.1", far.stdout.readline().strip(), "10.0.2.2", str(server.getsockname()[1]))
        assert one_off.stdout == "10.99.0.1 reached\n10.0.2.2 not reached\n", one_off
        assert far.wait(60) == 0
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_readmes_next_commands_work(running, environment):
    assert "hello" in hull(environment, "ps").stdout
    assert hull(environment, "logs", "hello").returncode == 0
    one_off = hull(environment, "run", "--rm", "python-hello", "--", "uname", "-r")
    assert one_off.returncode == 0, one_off.stderr
    assert "6.12" in one_off.stdout


def get_by_name(connection):
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_the_readmes_host_names_work(running, environment, tmp_path):
    http_port, https_port = int(environment["HULL_QUICKSTART_HTTP"]), int(environment["HULL_QUICKSTART_HTTPS"])
    must(hull(environment, "update", "hello", "--hostname", "localhost:8080"))
    deadline = time.monotonic() + 60
    while (answer := get_by_name(http.client.HTTPConnection("localhost", http_port, timeout=20))) != (200, "ok\n"):
        assert answer[0] in (404, 503) and time.monotonic() < deadline, answer
    (tmp_path / "ca.pem").write_text(must(hull(environment, "ca")))
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    assert get_by_name(http.client.HTTPSConnection("localhost", https_port, timeout=20, context=trusting)) == (200, "ok\n")
    other = subprocess.run([TOP / "tools" / "kvmhost", "up", "--http", str(free_port())], env=environment, capture_output=True, text=True, timeout=60)
    assert other.returncode == 1 and "kvmhost: already up, without --http " in other.stderr, other


def test_the_readmes_second_image_is_broken_found_out_about_and_mended(running, environment):
    port = free_port()
    must(hull(environment, "image", "build", "node-hello", "--file", "examples/node-hello/IMAGE.json", timeout=400))
    must(hull(environment, "run", "-d", "--name", "web", "-p", f"{port}:8080", "-e", "PORT=-1", "node-hello"))
    assert must(hull(environment, "wait", "web")) == "1\n"
    assert "stopped (1)" in must(hull(environment, "ps", "-a"))
    assert "ERR_SOCKET_BAD_PORT" in must(hull(environment, "logs", "web"))
    assert "poweroff: the guest powered off, status 1" in must(hull(environment, "events", "-m", "web"))
    must(hull(environment, "update", "web", "-e", "PORT-", "-e", "GREETING=hi", "--restart-now"))
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        try:
            assert get(url + "/healthz") == (200, "ok\n")
            break
        except OSError:  # refused, or closed again, while Node.js starts
            assert time.monotonic() < deadline, hull(environment, "logs", "web").stdout
    status, body = get(url + "/")
    assert status == 200 and "6.12" in json.loads(body)["kernel"] and json.loads(body)["message"] == "hi"
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


def test_a_recipes_command_that_fails_without_a_word_has_said_nothing(running, environment, tmp_path):
    recipe = json.loads((TOP / "examples/python-hello/IMAGE.json").read_text())
    del recipe["copy"]
    (tmp_path / "IMAGE.json").write_text(json.dumps(dict(recipe, run=["echo of another >&2", "exit 3"])))
    refused = hull(environment, "image", "build", "bad", "--file", str(tmp_path / "IMAGE.json"))
    assert refused.returncode == 1 and "hull: run[1]: the command failed, status 3\n" in refused.stderr, refused.stderr


def test_a_step_that_fails_says_which_why_and_what_to_do(environment):
    broken = quickstart(dict(environment, HULL_QUICKSTART_PORT=str(free_port()), XDG_STATE_HOME="/dev/null"), timeout=300)
    assert broken.returncode == 1
    for said in ('quickstart: "host" failed (status 1)', "/dev/null", "What to do: ", "The whole log: "):
        assert said in broken.stdout


def test_a_taken_port_is_said_before_anything_starts(running, environment):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        taken = str(s.getsockname()[1])
        home = environment["XDG_STATE_HOME"] + "-other"
        refused = quickstart(dict(environment, HULL_QUICKSTART_PORT=taken, XDG_STATE_HOME=home), timeout=120)
    assert refused.returncode != 0
    assert taken in refused.stdout and "taken" in refused.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_a_build_of_another_user_is_not_written_to(environment, tmp_path):
    """`sudo ./quickstart`, and then without."""
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    shutil.copy(TOP / "quickstart", tmp_path)
    (tmp_path / "build").mkdir()
    refused = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", tmp_path / "quickstart"], env=environment,
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and "belongs to root" in refused.stderr, refused


def test_a_misspelt_command_is_refused(environment):
    refused = quickstart(environment, "chekc")
    assert refused.returncode != 0
    assert "chekc" in refused.stdout


def test_its_help_names_its_variables():
    told = subprocess.run([TOP / "quickstart", "--help"], capture_output=True, text=True, check=True).stdout
    read = re.findall(r"\{(HULL_QUICKSTART_[A-Z]+):-", (TOP / "quickstart").read_text())
    assert read and all(name in told or name.removeprefix("HULL_QUICKSTART") in told for name in read), (read, told)
