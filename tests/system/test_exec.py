"""Programs executed by the agent: by the API as JSON and as hull-exec, and by hull exec. The agent is real; the machine
is this host, so that none has to boot (test_exec_kvm.py has one that does)."""
import base64
import contextlib
import json
import os
import pty
import selectors
import signal
import socket
import struct
import subprocess
import termios
from pathlib import Path

import fcntl
import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, DEADLINE, Hulld, make_erofs, wait_until
from test_tenants import In, token

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
BOOT = 60  # seconds: nothing lasts longer
HULL = BUILD / "hull"
STDIN, STDIN_EOF, RESIZE, SIGNAL, STDOUT, STDERR, CREDIT, EXIT = 2, 3, 4, 5, 18, 19, 20, 21
WINDOW = 65536
TOP = Path(__file__).resolve().parents[2]


def make_agent_alone(folder):
    """The monitor of machines that are this host."""
    alone = folder / "agent-alone"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-I", TOP, "-o", alone, TOP / "tests/system/agent_alone.c", BUILD / "libhull-guest.a",
                    BUILD / "libhull-vmm.a", BUILD / "libhull-devices.a", BUILD / "libhull-common.a", "-ljansson", "-Wl,--wrap=order_carry_out"], check=True)
    return alone


def start_alone(folder, *options, **env):
    """A hulld whose machines are this host."""
    listen = f"127.0.0.1:{free_port()}"
    daemon = Hulld(folder, *options, "--listen", listen, "--token-file", folder / "token",
                   env={"HULL_START_TIMEOUT_S": str(BOOT), **env})
    (folder / "token").write_text("0123456789abcdef\n")
    daemon.options["--vmm"] = make_agent_alone(folder)
    for name in ("kernel", "initrd"):
        (folder / name).touch()
        daemon.options[f"--{name}"] = folder / name
    daemon.listen = f"http://{listen}"
    daemon.start()
    daemon.image("any", make_erofs(folder))
    return daemon


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("hulld"))
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def box(hulld):
    hulld.post("/v1/machines", {"name": "box", "image": "any", "command": ["any"], "network": "none", "disk_mib": 16})
    hulld.post("/v1/machines/box/start")
    assert hulld.wait("box", "running,failed")["state"] == "running", hulld.machine("box")
    return "box"


def execute(hulld, name, *command, timeout=BOOT, **spec):
    return hulld.post(f"/v1/machines/{name}/exec", {"command": list(command), **spec}, timeout=timeout)


def ran(answer, status=0):
    assert answer.status == 200, answer
    assert answer.json["exit_status"] == status, answer
    return answer.json["stdout"], answer.json["stderr"]


class Stream:
    """A hull-exec connection, as any tool may make one."""

    def __init__(self, hulld, name, *command, **spec):
        body = json.dumps({"command": list(command), **spec}).encode()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(BOOT)
        self.sock.connect(str(hulld.socket))
        self.sock.sendall(b"POST /v1/machines/%s/exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                          b"Content-Length: %d\r\nConnection: Upgrade\r\nUpgrade: hull-exec\r\n\r\n" % (name.encode(), len(body)) + body)
        self.head, self.have = None, b""

    def switch(self):
        while b"\r\n\r\n" not in self.have:
            data = self.sock.recv(65536)
            assert data, self.have
            self.have += data
        self.head, _, self.have = self.have.partition(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 101 ") and b"\r\nUpgrade: hull-exec" in self.head, self.head
        return self

    def send(self, kind, payload=b""):
        self.sock.sendall(struct.pack("<IB3x", len(payload), kind) + payload)

    def frames(self):
        """Those that are there whole; what is left stays."""
        while len(self.have) >= 8:
            size, kind = struct.unpack("<IB3x", self.have[:8])
            if len(self.have) < 8 + size:
                return
            payload, self.have = self.have[8:8 + size], self.have[8 + size:]
            yield kind, payload

    def next(self):
        while True:
            for frame in self.frames():
                return frame
            data = self.sock.recv(65536)
            assert data, "the connection ended"
            self.have += data

    def rest(self):
        """Everything up to the end: output, errors, exit status."""
        out, err = b"", b""
        while True:
            kind, payload = self.next()
            if kind == STDOUT:
                out += payload
            elif kind == STDERR:
                err += payload
            elif kind == EXIT:
                assert self.sock.recv(1) == b""
                self.sock.close()
                return out, err, struct.unpack("<I", payload)[0]


# As JSON.

def test_a_program_is_answered_with_what_it_wrote(hulld, box):
    out, err = ran(execute(hulld, box, "sh", "-c", "echo $WHO $AND $OWN; id -un; pwd; cat; echo oops >&2; exit 7",
                           env={"OWN": "own"}, user="daemon", workdir="/srv"), 7)
    assert (out, err) == ("image machine own\ndaemon\n/srv\n", "oops\n")
    assert ran(execute(hulld, box, "sh", "-c", "kill -9 $$"), 137) == ("", "")
    answer = execute(hulld, box, "printf", "a\\0b\\377").json
    assert answer["encoding"] == "base64" and base64.b64decode(answer["stdout"]) == b"a\0b\xff"
    answer = execute(hulld, box, "sh", "-c", "head -c 1500000 /dev/zero | tr '\\0' x; echo end >&2").json
    assert answer["truncated"] and answer["stdout"] == "x" * (1 << 20) and answer["stderr"] == "end\n"
    long = "x" * 100000  # an argument may be as long as Linux takes
    assert ran(execute(hulld, box, "sh", "-c", f"# {long}\necho done"))[0] == "done\n"


def test_what_cannot_be_executed_ends_as_in_a_shell(hulld, box):
    assert "no-such-program: not found in PATH" in ran(execute(hulld, box, "no-such-program"), 127)[1]
    assert "Permission denied" in ran(execute(hulld, box, "/etc/passwd"), 126)[1]


def test_refusals_name_field_and_reason(hulld, box):
    for spec, code, field, detail in [
            ({"command": ["true"], "user": "no-such-user"}, "invalid_field", "user", 'no user "no-such-user" in the image'),
            ({"command": ["true"], "workdir": "/nowhere"}, "invalid_field", "workdir", "/nowhere: No such file"),
            ({"command": ["true"], "workdir": "srv"}, "invalid_field", "workdir", "must be an absolute path"),
            ({"command": ["true"], "tty": True}, "invalid_field", "tty", "needs a connection that streams"),
            ({"command": []}, "invalid_field", "command", "must not be empty"),
            ({"user": "root"}, "missing_field", "command", "is required"),
            ({"command": ["true"], "envs": {}}, "unknown_field", "envs", "unknown field"),
            ({"command": ["x" * 131072]}, "invalid_field", "command[0]", "at most 131071 bytes")]:
        answer = hulld.post(f"/v1/machines/{box}/exec", spec)
        assert (answer.status, answer.json["code"], answer.json.get("field")) == (400, code, field), answer
        assert detail in answer.json["detail"], answer
    assert execute(hulld, "nosuch", "true").json["code"] == "not_found"
    hulld.post("/v1/machines", {"name": "cold", "image": "any", "command": ["any"]})
    answer = execute(hulld, "cold", "true")
    assert (answer.status, answer.json["code"]) == (409, "wrong_state") and "cold is created" in answer.json["detail"]
    hulld.delete("/v1/machines/cold")


# As hull-exec.

def keyed(hulld, box, key, *command):
    return hulld.post(f"/v1/machines/{box}/exec", {"command": list(command)}, headers={"Idempotency-Key": key})


def test_a_program_with_a_key_is_executed_once(hulld, box, tmp_path):
    """Its answer is kept; one that was cut short is not executed again, as nobody knows how far it came."""
    command = ("sh", "-c", f"echo run >> {tmp_path}/runs; wc -l < {tmp_path}/runs")
    answers = [keyed(hulld, box, "once", *command) for _ in range(3)]
    assert {ran(answer) for answer in answers} == {("1\n", "")}
    assert [answer.headers["Idempotent-Replayed"] for answer in answers] == [None, "true", "true"]
    long = ("sh", "-c", f"echo run >> {tmp_path}/long; head -c 70000 /dev/zero | tr '\\0' x")
    assert len(ran(keyed(hulld, box, "long", *long))[0]) == 70000
    answer = keyed(hulld, box, "long", *long)
    assert (answer.status, answer.json["code"]) == (409, "outcome_unknown") and (tmp_path / "long").read_text() == "run\n"
    slow = ("sh", "-c", f"echo run >> {tmp_path}/slow; exec sleep 600")
    waiting = execute_and_leave(hulld, box, *slow, key="slow")
    wait_until(lambda: (tmp_path / "slow").exists() and (tmp_path / "slow").read_text(), "it runs")
    answer = keyed(hulld, box, "slow", *slow)
    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (409, "request_in_progress", True)
    hulld.restart()
    waiting.close()
    answer = keyed(hulld, box, "slow", *slow)
    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (409, "outcome_unknown", False)
    assert (tmp_path / "slow").read_text() == "run\n"


def test_a_stream_has_no_answer_to_be_kept(hulld, box):
    answer = hulld.post(f"/v1/machines/{box}/exec", {"command": ["true"]}, headers={
        "Idempotency-Key": "stream", "Connection": "Upgrade", "Upgrade": "hull-exec"})
    assert (answer.status, answer.json["field"]) == (400, "Idempotency-Key")
    assert answer.json["detail"] == "a connection that is upgraded has no answer to be kept"


def test_input_output_and_signals_are_streamed(hulld, box):
    stream = Stream(hulld, box, "sh", "-c", "cat; echo bye >&2; sleep 1000").switch()
    stream.send(STDIN, b"hello")
    assert stream.next() == (STDOUT, b"hello")
    stream.send(STDIN_EOF)
    assert stream.next() == (STDERR, b"bye\n")
    stream.send(SIGNAL, struct.pack("<I", signal.SIGTERM))
    assert stream.rest() == (b"", b"", 143)


def many_at_once(hulld, box, n, each=1 << 20):
    """Nobody reads a byte until all have begun."""
    streams = [Stream(hulld, box, "sh", "-c", f"head -c {each} /dev/zero; echo {i} >&2; exit {i}") for i in range(n)]
    selector, seen = selectors.DefaultSelector(), {}
    for i, stream in enumerate(streams):
        stream.switch()
        seen[stream] = [0, b"", None]
        selector.register(stream.sock, selectors.EVENT_READ, (i, stream))
    while selector.get_map():
        for key, _ in selector.select(BOOT):
            i, stream = key.data
            data = stream.sock.recv(1 << 18)
            stream.have += data
            for kind, payload in stream.frames():
                if kind == STDOUT:
                    assert not payload.strip(b"\0")
                    seen[stream][0] += len(payload)
                elif kind == STDERR:
                    seen[stream][1] += payload
                else:
                    seen[stream][2] = struct.unpack("<I", payload)[0]
            if not data:
                selector.unregister(stream.sock)
                stream.sock.close()
    for i, stream in enumerate(streams):
        assert seen[stream] == [each, b"%d\n" % i, i], i


def test_two_hundred_at_once_lose_nothing(hulld, box):
    many_at_once(hulld, box, 200)


def test_output_takes_no_memory_that_the_project_has_not(hulld, box):
    """A program's output is dropped, and that is said, where too much of the project's answers has not been read."""
    by = token(In(hulld, "default"), "read", "exec", "admin")[0]
    labels = {str(n): "x" * 1000 for n in range(900)}
    hook = by.post("/v1/webhooks", {"url": "https://receiver.example/", "enabled": False, "labels": labels}).json["id"]
    seq = lambda: by.post(f"/v1/machines/{box}/exec", {"command": ["seq", "165000"]}).json  # noqa: E731
    with contextlib.ExitStack() as clients:
        status = b"200"
        while status == b"200":
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(hulld.socket))
            client.sendall(f"GET /v1/webhooks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {by.token}\r\n\r\n".encode())
            status = client.recv(12)[9:]
        cut = seq()
        assert cut["truncated"] and cut["exit_status"] == 0 and len(cut["stdout"]) < 1 << 20
        assert not execute(hulld, box, "seq", "165000").json["truncated"], "of others"
    wait_until(lambda: not seq()["truncated"], "there is room again")
    assert by.delete(f"/v1/webhooks/{hook}").status == 204


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_a_client_started_ends_with_it(hulld, box, tmp_path):
    stream = Stream(hulld, box, "sh", "-c", "sleep 77777 & echo $$ $!; wait").switch()
    pids = stream.next()[1].split()
    assert len(pids) == 2 and all(runs(int(pid)) for pid in pids)
    stream.sock.close()
    wait_until(lambda: not any(runs(int(pid)) for pid in pids), "both have ended")
    waiting = execute_and_leave(hulld, box, "sh", "-c", f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 66666")
    pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it runs"))
    waiting.close()
    wait_until(lambda: not runs(pid), "it has ended")


def test_a_program_is_lost_with_its_machine(hulld, box):
    process = hull(hulld, "exec", box, "sh", "-c", "echo ready; sleep 1000")
    waiting = execute_and_leave(hulld, box, "sleep", "1000")
    assert process.stdout.readline() == b"ready\n"
    hulld.post(f"/v1/machines/{box}/kill")
    out, err, status = finished(process)
    assert (out, status) == (b"", 125) and b"the connection ended before the program did" in err
    assert waiting.recv(12) == b"HTTP/1.1 409" and b"the program was lost" in waiting.recv(4096)
    hulld.post(f"/v1/machines/{box}/start")
    hulld.wait(box, "running")


def test_programs_end_with_hulld_and_it_ends_in_order(hulld, box):
    process = hull(hulld, "exec", box, "sh", "-c", "echo $$; sleep 1000")
    pid = int(process.stdout.readline())
    hulld.kill(signal.SIGTERM)
    assert hulld.process.returncode == 0
    assert finished(process)[2] == 125
    wait_until(lambda: not runs(pid), "it has ended")
    hulld.start()
    assert ran(execute(hulld, box, "echo", "again"))[0] == "again\n"


def execute_and_leave(hulld, name, *command, key=None):
    body = json.dumps({"command": command}).encode()
    more = f"Idempotency-Key: {key}\r\n".encode() if key else b""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(hulld.socket))
    sock.sendall(b"POST /v1/machines/%s/exec HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (name.encode(), more, len(body)) + body)
    return sock


# hull exec.

def hull(hulld, *words, env=None, **options):
    return subprocess.Popen([HULL, *words], env={"PATH": os.environ["PATH"], "HULL_HOST": f"unix://{hulld.socket}", **(env or {})},
                            stdin=options.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finished(process, data=None):
    out, err = process.communicate(data, timeout=BOOT)
    return out, err, process.returncode


def test_hull_exec_is_a_process_like_any(hulld, box):
    sent = bytes(i * 7 % 256 for i in range(300000))
    over_tcp = {"HULL_HOST": hulld.listen, "HULL_TOKEN": "0123456789abcdef"}
    assert finished(hull(hulld, "exec", "-i", box, "cat", stdin=subprocess.PIPE, env=over_tcp), sent) == (sent, b"", 0)
    assert finished(hull(hulld, "exec", box, "cat")) == (b"", b"", 0)
    assert finished(hull(hulld, "exec", "-u", "daemon", "-w", "/srv", "-e", "A=b", box, "--", "sh", "-c",
                         "echo out $A; id -un >&2; pwd; exit 7")) == (b"out b\n/srv\n", b"daemon\n", 7)
    out, err, status = finished(hull(hulld, "exec", box, "nosuch"))
    assert (out, status) == (b"", 127) and b"nosuch: not found" in err
    process = hull(hulld, "exec", box, "sh", "-c", "trap 'echo caught; exit 4' INT; echo ready; while true; do sleep 0.1; done")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert finished(process) == (b"caught\n", b"", 4)
    process = hull(hulld, "exec", box, "seq", "10000000")  # its reader goes away
    assert process.stdout.readline() == b"1\n"
    process.stdout.close()
    assert process.wait(BOOT) == 125 and b"cannot write the output" in process.stderr.read()
    process.stderr.close()


def test_hull_exec_says_why_not(hulld, box):
    for words, status, line in [
            (["nosuch", "true"], 125, 'hull: there is no machine "nosuch"'),
            (["-u", "no-such-user", box, "true"], 125, 'hull: user: no user "no-such-user" in the image\'s /etc/passwd'),
            ([box], 2, "hull: COMMAND: is missing"),
            (["-t", box, "sh"], 2, "hull: --tty: this command's input is no terminal")]:
        out, err, code = finished(hull(hulld, "exec", *words))
        assert (out, code, err.decode().splitlines()[0]) == (b"", status, line), err
    out, err, code = finished(hull(hulld, "exec", box, "true", env={"HULL_HOST": hulld.listen, "HULL_TOKEN": "no"}))
    assert code == 125 and err.startswith(b"hull: the token is wrong\n")


def test_hull_exec_has_the_terminal_it_is_called_at(hulld, box):
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen([HULL, "exec", "-t", box, "sh", "-c", "tty; stty size; read x; stty size; exec cat"], stdin=theirs,
                               stdout=theirs, stderr=theirs, start_new_session=True, env={"HULL_HOST": f"unix://{hulld.socket}"},
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    shown = b""

    def until(text):
        nonlocal shown
        while text not in shown:
            shown += os.read(ours, 4096)

    until(b"33 101\r\n")
    assert b"/dev/pts/" in shown
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
    os.write(ours, b"go\n")
    until(b"50 132\r\n")
    os.write(ours, b"echoed\n")
    until(b"echoed\r\nechoed\r\n")
    os.write(ours, b"\x03")
    assert process.wait(BOOT) == 130
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
