"""hull-ingress, seen from outside: its control socket, and TCP connections to a machine's vsock socket.

The machine's side is a peer in this file that speaks what docs/interfaces.md and hull_guest.h say, so that it can be
late, refuse, lie and leave; tests/system/test_guest.py has the real one."""
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from free_ports import free_port

BUILD = Path(os.environ.get("HULL_BUILD", Path(__file__).resolve().parent.parent.parent / "build"))
DEADLINE_S = 20
ECONNREFUSED = 111


def wait_for(condition, what):
    """For states that announce themselves to nobody: looked at often, with a deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


class Ingress:
    def __init__(self, folder, *arguments):
        self.path = folder / "ingress.sock"
        self.process = subprocess.Popen([BUILD / "hull-ingress", "--socket", self.path, *arguments],
                                        stderr=subprocess.PIPE, text=True)
        wait_for(lambda: self.listens() or self.process.poll() is not None, "the control socket")

    def listens(self):
        """The socket's file is there before anybody listens."""
        with contextlib.suppress(OSError):
            self.connect().close()
            return True
        return False

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE_S)
        client.connect(str(self.path))
        return client

    def ask_raw(self, data):
        with self.connect() as client:
            client.sendall(data)
            return json.loads(client.makefile().readline())

    def ask(self, op, **keys):
        return self.ask_raw(json.dumps({"op": op, **keys}).encode() + b"\n")

    def connections(self):
        return sum(port["connections"] for port in self.ask("list")["ports"])

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def ingress(tmp_path):
    ingress = Ingress(tmp_path)
    yield ingress
    ingress.end()
    assert ingress.process.returncode == 0


class Machine:
    """A machine's vsock socket with an agent behind it. `refusals`: how often its port 80 has no listener yet. The agent answers while
    `answers` is set, and hangs up where `leaves` is."""

    def __init__(self, path, handle, refusals=0):
        self.path, self.handle, self.refusals, self.tries, self.asked = path, handle, refusals, 0, 0
        self.answers, self.leaves = threading.Event(), threading.Event()
        self.answers.set()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(512)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.stream, args=(connection,), daemon=True).start()

    def stream(self, connection):
        with connection:
            self.tries += 1
            line = b""
            while not line.endswith(b"\n"):
                line += connection.recv(1) or b"\n"
            if line != b"CONNECT 1024\n":
                return
            connection.sendall(b"OK 1073741824\n")
            request = connection.recv(12, socket.MSG_WAITALL)
            if len(request) < 12:
                return
            assert struct.unpack("<IHHI", request) == (0x4c4c5548, 1, 2, 80)
            self.asked += 1
            assert self.answers.wait(DEADLINE_S)
            if self.leaves.is_set():
                return
            status = ECONNREFUSED if self.tries <= self.refusals else 0
            reply = struct.pack("<II", 0x4c4c5548, status)
            connection.sendall(reply)
            if status == 0:
                self.handle(connection)

    def close(self):
        self.listener.close()
        self.path.unlink()


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def answer_after_end(connection):
    """Reads to the client's end, then answers: only works when half-close is passed on both ways."""
    total = 0
    while data := connection.recv(65536):
        total += len(data)
    connection.sendall(b"%d" % total)


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)


def publication(tmp_path, host, machine="m1"):
    return {"machine": machine, "address": "127.0.0.1", "host": host, "guest": 80, "vsock": str(tmp_path / "v.sock")}


def publish(ingress, tmp_path):
    port = free_port()
    assert ingress.ask("publish", **publication(tmp_path, port)) == {"ok": True}
    return port


def test_bytes_go_both_ways(ingress, tmp_path):
    Machine(tmp_path / "v.sock", echo)
    with connect(publish(ingress, tmp_path)) as client:
        for message in (b"hello", b"again"):
            client.sendall(message)
            assert client.recv(100) == message


def test_a_client_that_vanished_is_asked_for(ingress, tmp_path):
    """/proc/net/tcp shows the timer that is armed for a connection: 02 is keepalive."""
    Machine(tmp_path / "v.sock", echo)
    port = publish(ingress, tmp_path)
    with connect(port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        ends = f"0100007F:{port:04X}", f"0100007F:{client.getsockname()[1]:04X}"
        wait_for(lambda: any(line.split()[1:3] == list(ends) and line.split()[5].startswith("02:")
                             for line in Path("/proc/net/tcp").read_text().splitlines()), "keepalive")


def published_by_path(ingress, tmp_path):
    place = str(tmp_path / "p.sock")
    assert ingress.ask("publish", **{**publication(tmp_path, 0), "address": place}) == {"ok": True}
    return place


def connect_to(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_S)
    client.connect(path)
    return client


def test_a_port_may_be_a_unix_socket(ingress, tmp_path):
    Machine(tmp_path / "v.sock", echo)
    path = tmp_path / "p.sock"
    place = {**publication(tmp_path, 0), "address": str(path)}
    for _ in "again", "and again":
        assert ingress.ask("publish", **place) == {"ok": True}
    assert path.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(path))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        port = ingress.ask("list")["ports"][0]
        assert (port["address"], port["host"], port["connections"]) == (str(path), 0, 1)
        assert ingress.ask("unpublish", machine="m1", address=str(path), host=0) == {"ok": True}
        assert client.recv(100) == b""
    assert not path.exists()


def test_who_comes_by_a_unix_socket_waits_for_a_program_but_not_for_a_machine(ingress, tmp_path):
    """Nor does a closed gate concern it, as hulld has said whom to take; but then nobody is waited for."""
    place = published_by_path(ingress, tmp_path)
    assert ingress.ask("gate", machine="m1", gate="closed") == {"ok": True}
    with connect_to(place) as client:
        assert client.recv(1) == b""
    machine = Machine(tmp_path / "v.sock", echo, refusals=1)
    for gate, said in ("wait", b""), ("closed", b"hello"), ("wait", b"hello"):
        assert ingress.ask("gate", machine="m1", gate=gate) == {"ok": True}
        with connect_to(place) as client:
            if said:
                client.sendall(said)
            assert client.recv(100) == said
    machine.tries, machine.refusals = 0, 2
    assert ingress.ask("gate", machine="m1", gate="open") == {"ok": True}
    with connect_to(place) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_whoever_has_come_by_a_unix_socket_is_waited_for_as_long_as_the_program_may_let_them_in(ingress, tmp_path):
    place = published_by_path(ingress, tmp_path)
    with socket.socket(socket.AF_UNIX) as mute, ingress.connect() as control:
        mute.bind(str(tmp_path / "v.sock"))
        mute.listen()
        mute.settimeout(DEADLINE_S)
        answers = control.makefile()
        with connect_to(place) as first, connect_to(place) as second:
            tries = [mute.accept()[0] for _ in range(2)]  # and not answered
            for request in {"op": "gate", "gate": "closed"}, {"op": "drain"}:
                told(control, machine="m1", **request)
                said = json.loads(answers.readline())
            assert said == {"ok": True, "machine": "m1", "connections": 2}
            for client, there in zip((first, second), tries):
                there.close()
                assert client.recv(1) == b""
            assert json.loads(answers.readline()) == {"event": "drained", "machine": "m1"}
        mute.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has tried again
            mute.accept()


def test_whoever_a_gate_holds_at_a_unix_socket_holds_no_drain(ingress, tmp_path):
    place = published_by_path(ingress, tmp_path)
    with socket.socket(socket.AF_UNIX) as mute, ingress.connect() as control, contextlib.ExitStack() as clients:
        mute.bind(str(tmp_path / "v.sock"))
        mute.listen()
        clients.enter_context(connect_to(place))
        answers = control.makefile()
        for gate, connections in ("open", 1), ("wake", 0):
            told(control, op="gate", machine="m1", gate=gate)
            said = [json.loads(answers.readline()) for _ in range(1 if connections else 3)]
            assert {"ok": True} in said and ({"event": "drained", "machine": "m1"} in said) != bool(connections), said
            with connect_to(place):
                wait_for(lambda: ingress.connections() == 2, "the other to be accepted")
                told(control, op="drain", machine="m1")
                assert json.loads(answers.readline()) == {"ok": True, "machine": "m1", "connections": 2 * connections}
            wait_for(lambda: ingress.connections() == 1, "it to be forgotten")


def test_half_close_is_passed_on_and_nothing_is_lost(ingress, tmp_path):
    Machine(tmp_path / "v.sock", answer_after_end)
    with connect(publish(ingress, tmp_path)) as client:
        client.sendall(b"x" * 5_000_000)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100, socket.MSG_WAITALL) == b"5000000"
    wait_for(lambda: ingress.connections() == 0, "the connection to be forgotten")


def test_a_slow_reader_holds_the_sender_back(ingress, tmp_path):
    sent = []
    held_back = threading.Event()

    def flood(connection):
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while len(sent) < 4096:
                connection.sendall(b"y" * 65536)
                sent.append(1)
        held_back.set()

    Machine(tmp_path / "v.sock", flood)
    with connect(publish(ingress, tmp_path)) as client:
        total = len(client.recv(1))
        assert held_back.wait(DEADLINE_S) and len(sent) < 4096
        memory = int(Path(f"/proc/{ingress.process.pid}/statm").read_text().split()[1]) * 4096
        assert memory < 16 << 20
        while data := client.recv(1 << 20):
            total += len(data)
        assert total >= len(sent) * 65536


def test_a_machine_that_comes_later_is_waited_for(ingress, tmp_path):
    with connect(publish(ingress, tmp_path)) as client:
        client.sendall(b"early")
        wait_for(lambda: ingress.connections() == 1, "the connection to be accepted")
        machine = Machine(tmp_path / "v.sock", echo, refusals=3)
        assert client.recv(100) == b"early"
        assert machine.tries == 4


def test_a_client_that_asked_and_closed_its_sending_side_still_waits(ingress, tmp_path):
    with connect(publish(ingress, tmp_path)) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: ingress.connections() == 1, "the connection to be accepted")
        Machine(tmp_path / "v.sock", answer_after_end)
        assert client.recv(100, socket.MSG_WAITALL) == b"8"


def test_a_client_that_leaves_while_waiting_is_dropped(ingress, tmp_path):
    client = connect(publish(ingress, tmp_path))
    wait_for(lambda: ingress.connections() == 1, "the connection to be accepted")
    client.close()
    wait_for(lambda: ingress.connections() == 0, "the connection to be dropped")


def test_one_port_cannot_hold_any_number_of_waiting_connections(ingress, tmp_path):
    port = publish(ingress, tmp_path)
    clients = [connect(port) for _ in range(1100)]
    wait_for(lambda: ingress.connections() == 1024, "the limit")
    assert clients[-1].recv(1) == b""
    for client in clients:
        client.close()
    wait_for(lambda: ingress.connections() == 0, "all to be dropped")


def test_a_peer_that_says_nonsense_is_tried_again_and_harms_nobody(ingress, tmp_path):
    path = tmp_path / "v.sock"
    with socket.socket(socket.AF_UNIX) as liar, connect(publish(ingress, tmp_path)) as client:
        liar.bind(str(path))
        liar.listen()
        for nonsense in (b"NO\n", b"OK 1\nand more", b"O" * 100):
            connection = liar.accept()[0]
            connection.sendall(nonsense)
            connection.settimeout(DEADLINE_S)
            with contextlib.suppress(ConnectionResetError):  # it closes without reading the rest
                while connection.recv(100):
                    pass
            connection.close()
        liar.close()
        path.unlink()
        Machine(path, echo)
        client.sendall(b"alive")
        assert client.recv(100) == b"alive"


def test_unpublish_closes_the_listener_and_the_connections(ingress, tmp_path):
    Machine(tmp_path / "v.sock", echo)
    port = publish(ingress, tmp_path)
    with connect(port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert ingress.ask("unpublish", machine="m1") == {"ok": True}
        assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    assert ingress.ask("list") == {"ok": True, "ports": []}


def test_a_gate_that_waits_holds_new_connections_until_it_is_open(ingress, tmp_path):
    machine, port = Machine(tmp_path / "v.sock", echo), free_port()
    assert ingress.ask("publish", **publication(tmp_path, port), gate="wait") == {"ok": True}
    with connect(port) as first:
        wait_for(lambda: ingress.connections() == 1, "the connection to be accepted")
        assert ingress.ask("gate", machine="m1", gate="open") == {"ok": True}
        first.sendall(b"x")
        assert first.recv(1) == b"x"
        assert ingress.ask("gate", machine="m1", gate="wait") == {"ok": True}
        with connect(port) as second:
            second.sendall(b"y")
            wait_for(lambda: ingress.connections() == 2, "the connection to be accepted")
            first.sendall(b"z")  # which goes on
            assert first.recv(1) == b"z" and machine.tries == 1
            assert ingress.ask("gate", machine="other", gate="open") == {"ok": True}
            assert ingress.ask("list")["ports"][0]["gate"] == "wait"
            assert ingress.ask("publish", **publication(tmp_path, port), gate="open") == {"ok": True}
            assert second.recv(1) == b"y"


def test_a_gate_that_waits_stops_tries_that_are_under_way(ingress, tmp_path):
    with connect(publish(ingress, tmp_path)) as client, socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "v.sock"))
        mute.listen()
        mute.settimeout(DEADLINE_S)
        with mute.accept()[0] as tried:  # and never answered
            tried.settimeout(DEADLINE_S)
            assert ingress.ask("gate", machine="m1", gate="wait") == {"ok": True}
            assert tried.recv(100) == b"CONNECT 1024\n" and tried.recv(1) == b""
        assert ingress.ask("gate", machine="m1", gate="open") == {"ok": True}
        mute.accept()[0].close()
        client.close()
        wait_for(lambda: ingress.connections() == 0, "the client to be dropped")


def test_who_comes_once_the_gate_was_opened_is_let_in_whoever_came_before(ingress, tmp_path):
    """hull-ingress stands still meanwhile, and then finds both the clients and the gate that is another."""
    machine, port = Machine(tmp_path / "v.sock", echo), free_port()
    ingress.ask("publish", **publication(tmp_path, port), gate="closed")
    with contextlib.closing(machine), ingress.connect() as control:
        told(control, op="gate", machine="m1", gate="closed")
        assert json.loads(control.makefile().readline()) == {"ok": True}
        ingress.process.send_signal(signal.SIGSTOP)
        try:
            before = connect(port)
            control.sendall(b'{"op": "gate", "machine": "m1", "gate": "open"}\n')
            after = connect(port)
        finally:
            ingress.process.send_signal(signal.SIGCONT)
        with before, after:
            after.sendall(b"hello")
            assert after.recv(100) == b"hello"
        assert ingress.ask("gate", machine="m1", gate="closed") == {"ok": True}
        with connect(port) as late:
            assert late.recv(1) == b""


def test_a_closed_gate_closes_what_is_new_and_what_waits_and_nothing_else(ingress, tmp_path):
    Machine(tmp_path / "v.sock", echo)
    port, other = publish(ingress, tmp_path), free_port()
    assert ingress.ask("publish", **{**publication(tmp_path, other), "vsock": str(tmp_path / "none.sock")}) == {"ok": True}
    with connect(port) as there, connect(other) as waits:
        there.sendall(b"x")
        assert there.recv(1) == b"x"
        wait_for(lambda: ingress.connections() == 2, "the connections to be accepted")
        assert ingress.ask("gate", machine="m1", gate="closed") == {"ok": True}
        assert waits.recv(1) == b""
        for number in port, other:
            with connect(number) as late:
                assert late.recv(1) == b""
        there.sendall(b"y")
        assert there.recv(1) == b"y"
    wait_for(lambda: ingress.connections() == 0, "all to be forgotten")


def asked_for(ingress, machine, port):
    """A client of whom the agent knows, and has not answered yet."""
    machine.answers.clear()
    before = machine.asked
    client = connect(port)
    wait_for(lambda: machine.asked == before + 1, "the agent to be asked")
    return client


@pytest.mark.parametrize("gate", ("closed", "wait"))
def test_who_may_be_with_the_program_already_is_ended_by_no_gate(ingress, tmp_path, gate):
    machine = Machine(tmp_path / "v.sock", echo)
    with asked_for(ingress, machine, publish(ingress, tmp_path)) as client, ingress.connect() as control:
        answers = control.makefile()
        told(control, op="gate", machine="m1", gate=gate)
        assert json.loads(answers.readline()) == {"ok": True}
        told(control, op="drain", machine="m1")
        assert json.loads(answers.readline()) == {"ok": True, "machine": "m1", "connections": 1}
        machine.answers.set()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        client.close()
        assert json.loads(answers.readline()) == {"event": "drained", "machine": "m1"}


@pytest.mark.parametrize("end", ("refused", "left"))
def test_whoever_was_not_with_the_program_finds_the_gate_that_there_is_by_then(ingress, tmp_path, end):
    for gate in "closed", "wait":
        machine = Machine(tmp_path / "v.sock", echo, refusals=1 if end == "refused" else 0)
        with asked_for(ingress, machine, publish(ingress, tmp_path)) as client, ingress.connect() as control:
            answers = control.makefile()
            for request in {"op": "gate", "gate": gate}, {"op": "drain"}:
                told(control, machine="m1", **request)
                assert json.loads(answers.readline())["ok"]
            if end == "left":
                machine.leaves.set()
            machine.answers.set()
            assert json.loads(answers.readline()) == {"event": "drained", "machine": "m1"}
            if gate == "closed":
                assert client.recv(1) == b""
                wait_for(lambda: ingress.connections() == 0, "the client to be forgotten")
            else:
                assert ingress.connections() == 1 and machine.tries == 1
                machine.leaves.clear()
                assert ingress.ask("gate", machine="m1", gate="open") == {"ok": True}
                client.sendall(b"y")
                assert client.recv(1) == b"y"
        machine.close()
        assert ingress.ask("unpublish", machine="m1") == {"ok": True}


def test_who_asks_hears_when_the_last_connection_has_ended(ingress, tmp_path):
    Machine(tmp_path / "v.sock", echo)
    port, other, cold = publish(ingress, tmp_path), publish(ingress, tmp_path), free_port()
    assert ingress.ask("publish", **{**publication(tmp_path, cold), "vsock": str(tmp_path / "none.sock")})["ok"]
    assert ingress.ask("drain", machine="m1") == {"ok": True, "machine": "m1", "connections": 0}
    with connect(port) as first, connect(other) as second, connect(cold), ingress.connect() as client:  # the third has reached nobody
        for served in first, second:
            served.sendall(b"x")
            assert served.recv(1) == b"x"
        answers = client.makefile()
        for _ in range(2):
            client.sendall(b'{"op":"drain","machine":"m1"}\n')
            assert json.loads(answers.readline()) == {"ok": True, "machine": "m1", "connections": 2}
        first.close()
        wait_for(lambda: ingress.connections() == 2, "the connection to be forgotten")
        client.sendall(b'{"op":"drain","machine":"m2"}\n')
        assert json.loads(answers.readline()) == {"ok": True, "machine": "m2", "connections": 0}
        second.close()
        assert json.loads(answers.readline()) == {"event": "drained", "machine": "m1"}
        client.sendall(b'{"op":"list"}\n')
        assert json.loads(answers.readline())["ok"]  # it is told once


def told(client, **request):
    client.sendall(json.dumps(request).encode() + b"\n")


def test_it_holds_who_comes_once_nobody_was_there_for_long_enough_and_says_so(ingress, tmp_path):
    Machine(tmp_path / "v.sock", echo)
    port = publish(ingress, tmp_path)
    assert ingress.ask("sleep", machine="m1", idle_ms=3_600_000)["held"] is False
    with connect(port) as first:
        first.sendall(b"x")
        assert first.recv(1) == b"x"
        answer = ingress.ask("sleep", machine="m1", idle_ms=1)
        assert answer == {"ok": True, "machine": "m1", "idle_ms": 0, "held": False}
    wait_for(lambda: ingress.connections() == 0, "the connection to be forgotten")
    with ingress.connect() as client, ingress.connect() as other, contextlib.ExitStack() as stack:
        answers = client.makefile()
        told(client, op="sleep", machine="m1", idle_ms=0)
        assert json.loads(answers.readline())["held"] is True
        held = [stack.enter_context(connect(port)) for _ in range(3)]
        assert json.loads(answers.readline()) == {"event": "wanted", "machine": "m1"}
        told(client, op="list")
        told(other, op="list")
        for each in answers, other.makefile():  # it is said once, to who has asked
            assert json.loads(each.readline())["ports"][0]["gate"] == "wake"
        told(client, op="gate", machine="m1", gate="open")
        assert json.loads(answers.readline()) == {"ok": True}
        for one in held:
            one.sendall(b"y")
            assert one.recv(1) == b"y"
    answer = ingress.ask("sleep", machine="m2", idle_ms=0)
    assert answer["code"] == "invalid" and answer["message"].startswith("machine"), answer


@pytest.mark.parametrize("again", ["gate", "publish"])
def test_who_comes_back_to_a_gate_is_told_who_waits_already(ingress, tmp_path, again):
    Machine(tmp_path / "v.sock", echo)
    place = {**publication(tmp_path, free_port()), "gate": "wake"}
    with ingress.connect() as gone:
        told(gone, op="publish", **place)
        assert json.loads(gone.makefile().readline()) == {"ok": True}
    with connect(place["host"]) as waits, ingress.connect() as client:
        wait_for(lambda: ingress.connections() == 1, "the connection to be accepted")
        told(client, op=again, **(place if again == "publish" else {"machine": "m1", "gate": "wake"}))
        answers = client.makefile()
        assert [json.loads(answers.readline()) for _ in range(2)] == [{"ok": True}, {"event": "wanted", "machine": "m1"}]
        told(client, op="gate", machine="m1", gate="closed")
        assert waits.recv(1) == b""


def test_who_comes_by_a_unix_socket_waits_for_a_machine_that_sleeps(ingress, tmp_path):
    place = {**publication(tmp_path, 0), "address": str(tmp_path / "p.sock"), "gate": "wake"}
    with ingress.connect() as client, socket.socket(socket.AF_UNIX) as waits, socket.socket(socket.AF_UNIX) as too_late:
        told(client, op="publish", **place)
        answers = client.makefile()
        assert json.loads(answers.readline()) == {"ok": True}
        waits.settimeout(DEADLINE_S)
        waits.connect(place["address"])
        assert json.loads(answers.readline()) == {"event": "wanted", "machine": "m1"}
        for _ in range(2):  # another hulld says it again
            assert ingress.ask("gate", machine="m1", gate="wait") == {"ok": True}
            assert ingress.ask("list")["ports"][0]["gate"] == "wait"
        Machine(tmp_path / "v.sock", echo)
        assert ingress.ask("gate", machine="m1", gate="open") == {"ok": True}
        waits.sendall(b"hello")
        assert waits.recv(100) == b"hello"
        (tmp_path / "v.sock").unlink()
        assert ingress.ask("gate", machine="m1", gate="wake") == {"ok": True}
        too_late.settimeout(DEADLINE_S)
        too_late.connect(place["address"])
        wait_for(lambda: ingress.connections() == 2, "the connection to be accepted")
        assert ingress.ask("gate", machine="m1", gate="closed") == {"ok": True}
        assert too_late.recv(1) == b""


def test_list_says_what_was_published(ingress, tmp_path):
    port = publish(ingress, tmp_path)
    assert ingress.ask("list")["ports"] == [{**publication(tmp_path, port), "gate": "open", "protocol": "tcp", "connections": 0}]


def test_the_same_publication_twice_is_one(ingress, tmp_path):
    port = publish(ingress, tmp_path)
    assert ingress.ask("publish", **publication(tmp_path, port)) == {"ok": True}
    assert len(ingress.ask("list")["ports"]) == 1


def test_a_port_of_another_machine_is_taken(ingress, tmp_path):
    port = publish(ingress, tmp_path)
    answer = ingress.ask("publish", **publication(tmp_path, port, "m2"))
    assert answer["code"] == "port_taken" and "m1" in answer["message"]


def test_a_port_of_another_program_is_taken(ingress, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        answer = ingress.ask("publish", **publication(tmp_path, other.getsockname()[1]))
    assert answer["ok"] is False and answer["code"] == "port_taken"
    assert ingress.ask("list")["ports"] == []


def test_an_address_that_is_not_the_hosts_is_no_port_taken(ingress, tmp_path):
    answer = ingress.ask("publish", **{**publication(tmp_path, 8080), "address": "192.0.2.1"})
    assert answer["code"] == "address_unavailable"


@pytest.mark.parametrize("change, named", [
    ({"host": 0}, "host"), ({"host": 65536}, "host"), ({"host": "80"}, "host"), ({"guest": 0}, "guest"),
    ({"machine": ""}, "machine"), ({"vsock": "v.sock"}, "vsock"), ({"vsock": "/" + "x" * 107}, "vsock"),
    ({"address": "localhost"}, "address"), ({"colour": 1}, "colour"), ({"gate": "ajar"}, "gate"), ({"protocol": "sctp"}, "protocol"),
    ({"address": "/p", "host": 0, "protocol": "udp"}, "protocol"), ({"address": "/p"}, "host")])
def test_a_wrong_publication_is_refused_by_field(ingress, tmp_path, change, named):
    answer = ingress.ask("publish", **{**publication(tmp_path, 8080), **change})
    assert answer["code"] == "invalid" and answer["message"].startswith(named), answer


@pytest.mark.parametrize("line", [b"{", b"[]", b"null", b"{}", b'{"op":1}', b'{"op":"eat"}', b"\xff", b"",
                                  b'{"op":"list","op":"list"}', b'{"op":"unpublish"}', b'{"op":"list","x":1}',
                                  b'{"op":"gate","machine":"m1"}', b'{"op":"gate","gate":"open"}', b'{"op":"gate","machine":"m1","gate":1}',
                                  b'{"op":"drain"}', b'{"op":"drain","machine":""}', b'{"op":"sleep","machine":"m1"}',
                                  b'{"op":"sleep","machine":"m1","idle_ms":-1}', b'{"op":"sleep","idle_ms":1}'])
def test_a_malformed_request_is_answered_and_the_client_stays(ingress, line):
    with ingress.connect() as client:
        client.sendall(line + b'\n{"op":"list"}\n')
        answers = client.makefile()
        first, second = json.loads(answers.readline()), json.loads(answers.readline())
    assert first["ok"] is False and first["code"] == "invalid" and first["message"]
    assert second == {"ok": True, "ports": []}


def test_a_request_has_at_most_64_kib(ingress):
    with ingress.connect() as client:
        client.sendall(b'{"op":"' + b"x" * (64 * 1024) + b'"}\n')
        assert json.loads(client.makefile().readline())["code"] == "invalid"
    assert ingress.ask("list")["ok"]


def test_shutdown_ends_it_and_removes_the_socket(ingress, tmp_path):
    port = publish(ingress, tmp_path)
    assert ingress.ask("shutdown") == {"ok": True}
    assert ingress.process.wait(timeout=DEADLINE_S) == 0
    assert not ingress.path.exists()
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def test_its_end_ends_its_clients(ingress, tmp_path):
    Machine(tmp_path / "v.sock", echo)
    with connect(publish(ingress, tmp_path)) as served, ingress.connect() as client:
        served.sendall(b"x")
        assert served.recv(1) == b"x"
        client.sendall(b'{"op":"drain","machine":"m1"}\n')
        assert json.loads(client.makefile().readline())["connections"] == 1
        ingress.end()  # with a sanitizer: and leaks nothing
        served.settimeout(DEADLINE_S)
        assert served.recv(1) == b""


def test_a_second_one_on_the_same_socket_is_refused(ingress, tmp_path):
    second = subprocess.run([BUILD / "hull-ingress", "--socket", ingress.path], capture_output=True, text=True,
                            timeout=DEADLINE_S)
    assert second.returncode == 1 and second.stderr.count("\n") == 1
    assert ingress.ask("list")["ok"]


def test_one_that_died_is_replaced(tmp_path):
    first = Ingress(tmp_path)
    first.process.kill()
    first.process.communicate()
    second = Ingress(tmp_path)
    wait_for(lambda: second.process.poll() is not None or accepts(second), "the second one to listen")
    assert second.ask("list")["ok"]
    second.end()


def accepts(ingress):
    try:
        ingress.connect().close()
        return True
    except OSError:
        return False


def test_without_ports_and_clients_it_ends(tmp_path):
    ingress = Ingress(tmp_path, "--idle-seconds", "2")
    port = free_port()
    assert ingress.ask("publish", **publication(tmp_path, port))["ok"]
    with pytest.raises(subprocess.TimeoutExpired):
        ingress.process.wait(timeout=2.5)
    assert ingress.ask("unpublish", machine="m1")["ok"]
    assert ingress.process.wait(timeout=DEADLINE_S) == 0
    ingress.end()


def test_it_has_nothing_of_its_parents_session(ingress):
    ingress.ask("list")  # it answers once it has left all that behind
    pid = ingress.process.pid
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


class Forwarder:
    """The outside of an emulated host."""

    def __init__(self, path, answers):
        self.lines, self.answers = [], list(answers)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection = self.listener.accept()[0]
            for line in connection.makefile():
                self.lines.append(line)
                answer = self.answers.pop(0) if self.answers else "ok\n"
                if answer is None:
                    break
                connection.sendall(answer.encode())
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def test_a_port_counts_once_the_forwarder_has_it(tmp_path):
    forwarder = Forwarder(tmp_path / "f.sock", ["ok\n", "error in use outside\n", None])
    ingress = Ingress(tmp_path, "--forwarder", tmp_path / "f.sock")
    port, other, third = free_port(), free_port(), free_port()
    assert ingress.ask("publish", **publication(tmp_path, port)) == {"ok": True}
    refused = ingress.ask("publish", **publication(tmp_path, other))
    assert refused["code"] == "port_taken" and refused["message"] == "in use outside"
    gone = ingress.ask("publish", **publication(tmp_path, third))
    assert gone["code"] == "internal"
    Machine(tmp_path / "v.sock", echo)
    with connect(port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    assert [p["host"] for p in ingress.ask("list")["ports"]] == [port]
    assert ingress.ask("shutdown")["ok"]
    assert ingress.process.wait(timeout=DEADLINE_S) == 0
    # What may have been added is removed; what was refused is not.
    assert forwarder.lines == [f"add 127.0.0.1 {port}\n", f"add 127.0.0.1 {other}\n", f"add 127.0.0.1 {third}\n",
                               f"remove 127.0.0.1 {third}\n", f"remove 127.0.0.1 {port}\n"]
    ingress.end()


@pytest.mark.parametrize("arguments", [[], ["--socket"], ["--socket", "/tmp/x", "more"], ["--wrong"],
                                       ["--socket", "/tmp/x", "--idle-seconds", "0"]])
def test_a_wrong_command_line_is_refused(arguments):
    result = subprocess.run([BUILD / "hull-ingress", *arguments], capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.returncode == 2 and "usage" in result.stderr


def test_what_was_asked_behind_a_port_that_is_forwarded_is_answered(tmp_path):
    """In one piece, so that nothing tells of the rest again once the forwarder has answered."""
    Forwarder(tmp_path / "f.sock", [])
    ingress = Ingress(tmp_path, "--forwarder", tmp_path / "f.sock")
    asked = [{"op": "publish", **publication(tmp_path, free_port())}, {"op": "list"}] * 2 + [{"op": "shutdown"}]
    with ingress.connect() as client:
        client.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in asked))
        answers = client.makefile()
        assert [json.loads(answers.readline())["ok"] for _ in asked] == [True] * len(asked)
    ingress.end()
