"""UDP ports of hull-ingress, seen from outside. The machine's side is a peer in this file, as in test_ingress.py; tests/system/test_hulld_kvm.py
has a real one."""
import contextlib
import json
import signal
import socket
import struct

import pytest

from free_ports import free_port
from test_ingress import DEADLINE_S, ECONNREFUSED, Forwarder, Ingress, ingress, wait_for

assert ingress  # a fixture
DATAGRAM, CLOSE = 32, 6
EPROTONOSUPPORT = 93
LARGEST = 65507


def publication(tmp_path, host, **more):
    return {"machine": "m1", "address": "127.0.0.1", "host": host, "guest": 53, "vsock": str(tmp_path / "v.sock"), "protocol": "udp", **more}


@pytest.fixture
def port(ingress, tmp_path):
    port = free_port()
    assert ingress.ask("publish", **publication(tmp_path, port)) == {"ok": True}
    return port


@pytest.fixture
def vsock(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(DEADLINE_S)
        listener.bind(str(tmp_path / "v.sock"))
        listener.listen()
        yield listener


class Agent:
    """The machine's end of the stream of a UDP port."""

    def __init__(self, listener, guest=53, status=0):
        self.stream = listener.accept()[0]
        self.stream.settimeout(DEADLINE_S)
        assert self.take(13) == b"CONNECT 1024\n"
        self.stream.sendall(b"OK 1\n")
        assert struct.unpack("<IHHI", self.take(12)) == (0x4c4c5548, 1, 10, guest)
        self.stream.sendall(struct.pack("<II", 0x4c4c5548, status))

    def take(self, size):
        data = b""
        while len(data) < size:
            part = self.stream.recv(size - len(data))
            assert part, data
            data += part
        return data

    def next(self):
        size, kind = struct.unpack("<IB3x", self.take(8))
        body = self.take(size)
        return kind, struct.unpack("<I", body[:4])[0], body[4:]

    def says(self, session, data, kind=DATAGRAM):
        self.stream.sendall(struct.pack("<IB3xI", len(data) + 4, kind, session) + data)

    def at_end(self):
        with contextlib.suppress(ConnectionResetError):
            while self.stream.recv(65536):
                pass
        return True


def client(port, data=None, address="127.0.0.1"):
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.settimeout(DEADLINE_S)
    end.connect((address, port))
    if data is not None:
        end.send(data)
    return end


def silent(end):
    """Nothing has come so far. What would have been sent before is here: loopback is as good as a call."""
    end.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        pytest.fail(f"got {end.recv(100)}")
    end.settimeout(DEADLINE_S)


def test_each_client_is_a_session_and_gets_its_own_answers(ingress, port, vsock):
    with client(port, b"one") as first, client(port, b"") as second:
        agent = Agent(vsock)
        one, two = agent.next(), agent.next()
        assert (one[::2], two[::2]) == ((DATAGRAM, b"one"), (DATAGRAM, b"")) and one[1] != two[1]
        first.send(b"more")
        assert agent.next() == (DATAGRAM, one[1], b"more")
        agent.says(two[1], b"for two")
        agent.says(one[1], b"")
        agent.says(one[1], b"x" * LARGEST)
        assert (first.recv(9), second.recv(9), first.recv(LARGEST + 1)) == (b"", b"for two", b"x" * LARGEST)
        first.send(b"y" * LARGEST)
        assert agent.next() == (DATAGRAM, one[1], b"y" * LARGEST)
        assert ingress.ask("list")["ports"][0]["connections"] == 2
        # To nobody who has not asked, and to no number that nobody has.
        for number in {0, 1, 2, 3, one[1] + 1024, 0xffffffff} - {one[1], two[1]}:
            agent.says(number, b"unasked")
        agent.says(two[1], b"last")
        assert second.recv(9) == b"last"
        silent(first)


def test_answers_come_from_the_address_that_was_asked(ingress, tmp_path, vsock):
    port = free_port()
    assert ingress.ask("publish", **publication(tmp_path, port, address="0.0.0.0")) == {"ok": True}
    with client(port, b"x", "127.0.0.2") as asked:  # which hears nobody else
        agent = Agent(vsock)
        agent.says(agent.next()[1], b"y")
        assert asked.recv(9) == b"y"


def test_what_comes_early_waits_for_the_machine(ingress, port, tmp_path):
    with client(port, b"early") as end, socket.socket(socket.AF_UNIX) as listener:
        wait_for(lambda: ingress.connections() == 1, "the datagram")
        listener.settimeout(DEADLINE_S)
        listener.bind(str(tmp_path / "v.sock"))
        listener.listen()
        Agent(listener, status=ECONNREFUSED)
        agent = Agent(listener)
        kind, session, data = agent.next()
        assert (kind, data) == (DATAGRAM, b"early")
        agent.says(session, b"late")
        assert end.recv(9) == b"late"


def test_a_flood_is_held_no_further_than_there_is_room(ingress, port, vsock):
    with client(port, b"first") as end:
        agent = Agent(vsock)
        session = agent.next()[1]
        for _ in range(400):  # 20 MB that nobody takes
            end.send(b"f" * 50000)
        assert ingress.ask("list")["ok"]
        with open(f"/proc/{ingress.process.pid}/statm", encoding="ascii") as statm:
            assert int(statm.read().split()[1]) * 4096 < 16 << 20
        taken = 0
        while (frame := agent.next()) != (DATAGRAM, session, b"on"):
            assert frame == (DATAGRAM, session, b"f" * 50000)  # whole ones only
            taken += 1
            end.send(b"on")  # which comes as soon as there is room
        assert 0 < taken < 400


def test_more_clients_than_there_is_room_for_push_out_the_one_that_was_silent_for_longest(ingress, port, vsock):
    ends = [client(port, b"0")]
    agent = Agent(vsock)
    numbers = [agent.next()[1]]
    for i in range(1, 1024):
        ends.append(client(port, b"%d" % i))
        numbers.append(agent.next()[1])
    assert len(set(numbers)) == len({number % 1024 for number in numbers}) == 1024
    ends[0].send(b"again")
    assert agent.next() == (DATAGRAM, numbers[0], b"again")
    ends.append(client(port, b"more"))
    assert agent.next() == (CLOSE, numbers[1], b"")
    kind, number, data = agent.next()
    assert (kind, data) == (DATAGRAM, b"more") and number not in numbers and number % 1024 == numbers[1] % 1024
    agent.says(numbers[1], b"too late")
    agent.says(numbers[0], b"still there")
    assert ends[0].recv(99) == b"still there"
    silent(ends[1])
    assert ingress.connections() == 1024
    for end in ends:
        end.close()


@pytest.mark.parametrize("nonsense", [
    struct.pack("<IB3x", 4, CLOSE) + b"1234", struct.pack("<IB3x", 3, DATAGRAM) + b"123", struct.pack("<IB3x", LARGEST + 5, DATAGRAM),
    struct.pack("<IBxxB", 4, DATAGRAM, 1) + b"1234", struct.pack("<IB3x", 0xffffffff, DATAGRAM), b"x" * 100, b"123"])
def test_a_machine_that_says_nonsense_is_left_and_asked_anew(ingress, port, vsock, nonsense):
    with client(port, b"x") as end:
        agent = Agent(vsock)
        agent.next()
        agent.stream.sendall(nonsense)
        if len(nonsense) < 8:
            agent.stream.close()  # in the middle of a frame
        else:
            assert agent.at_end()
        wait_for(lambda: ingress.connections() == 0, "the session to be forgotten")
        end.send(b"y")
        agent = Agent(vsock)
        kind, session, data = agent.next()
        assert (kind, data) == (DATAGRAM, b"y")
        agent.says(session, b"z")
        assert end.recv(9) == b"z"


def test_an_agent_that_is_too_old_is_not_asked_for_each_datagram_again_and_again(ingress, port, vsock):
    with client(port, b"x") as end:
        Agent(vsock, status=EPROTONOSUPPORT)
        wait_for(lambda: ingress.connections() == 0, "the session to be forgotten")
        end.send(b"y")  # by then another may run
        assert Agent(vsock).next()[::2] == (DATAGRAM, b"y")


def test_gates_are_for_new_sessions(ingress, port, vsock):
    ingress.ask("gate", machine="m1", gate="wait")
    with client(port, b"held") as first:
        wait_for(lambda: ingress.connections() == 1, "the datagram")
        ingress.ask("gate", machine="m1", gate="open")
        agent = Agent(vsock)
        session = agent.next()[1]
        for gate in "closed", "wait":
            ingress.ask("gate", machine="m1", gate=gate)
            with client(port, b"no"):
                first.send(b"on")
                assert agent.next() == (DATAGRAM, session, b"on")
                agent.says(session, b"and on")
                assert first.recv(9) == b"and on" and ingress.connections() == 1


def test_what_comes_once_the_gate_was_opened_is_not_lost_whatever_came_before(ingress, port, vsock):
    """hull-ingress stands still meanwhile, and then finds both the datagrams and the gate that is another."""
    with ingress.connect() as control:
        control.sendall(b'{"op": "gate", "machine": "m1", "gate": "closed"}\n')
        assert json.loads(control.makefile().readline()) == {"ok": True}
        ingress.process.send_signal(signal.SIGSTOP)
        try:
            before = client(port, b"before")
            control.sendall(b'{"op": "gate", "machine": "m1", "gate": "open"}\n')
            after = client(port, b"after")
        finally:
            ingress.process.send_signal(signal.SIGCONT)
        with before, after:
            agent = Agent(vsock)
            assert [agent.next()[2] for _ in range(2)] == [b"before", b"after"]


def test_a_closed_gate_drops_what_waits(ingress, port):
    with client(port, b"x"):
        wait_for(lambda: ingress.connections() == 1, "the datagram")
        ingress.ask("gate", machine="m1", gate="closed")
        assert ingress.connections() == 0
        ingress.ask("gate", machine="m1", gate="open")


def test_tcp_and_udp_of_one_number_are_two_ports(ingress, tmp_path, port, vsock):
    assert ingress.ask("publish", **publication(tmp_path, port, protocol="tcp")) == {"ok": True}
    assert sorted(p["protocol"] for p in ingress.ask("list")["ports"]) == ["tcp", "udp"]
    assert ingress.ask("publish", **publication(tmp_path, port)) == {"ok": True}
    taken = ingress.ask("publish", **publication(tmp_path, port, machine="m2"))
    assert (taken["ok"], taken["code"]) == (False, "port_taken")
    ingress.ask("unpublish", machine="m1", address="127.0.0.1", host=port)
    assert [p["protocol"] for p in ingress.ask("list")["ports"]] == ["udp"]
    with client(port, b"x") as end:
        agent = Agent(vsock)
        agent.next()
        assert ingress.ask("publish", **publication(tmp_path, port, guest=54)) == {"ok": True}
        assert agent.at_end()
        end.send(b"y")
        agent = Agent(vsock, guest=54)
        assert agent.next()[2] == b"y"
        ingress.ask("unpublish", machine="m1", address="127.0.0.1", host=port, protocol="udp")
        assert agent.at_end() and ingress.ask("list")["ports"] == []


def test_a_port_of_another_program_is_taken(ingress, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        answer = ingress.ask("publish", **publication(tmp_path, other.getsockname()[1]))
    assert (answer["ok"], answer["code"]) == (False, "port_taken")


def test_the_forwarder_is_told_what_it_is(tmp_path):
    forwarder = Forwarder(tmp_path / "f.sock", ["ok\n"])
    ingress = Ingress(tmp_path, "--forwarder", tmp_path / "f.sock")
    port = free_port()
    assert ingress.ask("publish", **publication(tmp_path, port)) == {"ok": True}
    assert ingress.ask("shutdown")["ok"]
    assert ingress.process.wait(timeout=DEADLINE_S) == 0
    assert forwarder.lines == [f"add 127.0.0.1 {port} udp\n", f"remove 127.0.0.1 {port} udp\n"]
    ingress.end()


def test_a_client_of_before_wakes_a_machine_that_sleeps(ingress, port, vsock):
    with client(port, b"first") as end, ingress.connect() as control:
        agent = Agent(vsock)
        agent.says(agent.next()[1], b"answer")
        assert end.recv(9) == b"answer"
        assert ingress.ask("sleep", machine="m1", idle_ms=60_000)["held"] is False
        answers = control.makefile()
        control.sendall(b'{"op":"sleep","machine":"m1","idle_ms":0}\n')
        assert json.loads(answers.readline())["held"] is True and agent.at_end()
        end.send(b"second")
        assert json.loads(answers.readline()) == {"event": "wanted", "machine": "m1"}
        end.send(b"third")
        assert ingress.ask("gate", machine="m1", gate="open") == {"ok": True}
        agent = Agent(vsock)
        assert [agent.next()[2] for _ in range(2)] == [b"second", b"third"]
