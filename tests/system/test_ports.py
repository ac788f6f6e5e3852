"""Published ports, as hulld has them: who is served, until when, and by UDP. hull-ingress and the agent are real; the machine is this host, so
that none has to boot (test_hulld_kvm.py has one that does)."""
import json
import os
import signal
import socket
import struct
import time

import pytest

from free_ports import free_port
from hulld_fixtures import DEADLINE, wait_until
from test_exec import finished, hull, start_alone
from test_orders import run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("hulld"))
    yield daemon
    daemon.stop()


def patch(hulld, changes, name="gated"):
    return hulld.request("PATCH", f"/v1/machines/{name}", json.dumps(changes), headers={"Content-Type": "application/merge-patch+json"})


def ingress_of(hulld):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(hulld.run / "ingress.sock"))
        pid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        client.sendall(b'{"op":"list"}\n')
        return pid, json.loads(client.makefile().readline())["ports"]


def gate_is(hulld, gate):
    def look():
        try:
            return [port["gate"] for port in ingress_of(hulld)[1]] == [gate]
        except (OSError, ValueError):
            return False
    wait_until(look, f"the gate is {gate}")


def test_only_the_healthy_are_served(hulld, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as program, socket.create_server(("127.0.0.1", 0)) as other:
        program.settimeout(DEADLINE)
        host, guest = free_port(), program.getsockname()[1]

        def connect():
            return socket.create_connection(("127.0.0.1", host), timeout=DEADLINE)

        def served(client):
            with program.accept()[0] as inside:
                inside.sendall(b"x")
                return client.recv(1) == b"x"

        check = {"exec": {"command": ["sh", "-c", f"echo not yet; test -e {tmp_path}/up"]}, "interval_s": 600, "retries": 1,
                 "grace_s": 3600}
        run(hulld, "gated", health=check, ports=[{"host": host, "guest": guest}])
        with connect() as early:
            assert hulld.get("/v1/machines/gated/wait?state=healthy&timeout_s=0").json["code"] == "timeout"
            wait_until(lambda: ingress_of(hulld)[1][0]["connections"] == 1, "the connection waits")
            (tmp_path / "up").touch()  # and is looked for each second
            assert hulld.wait("gated", "healthy")["health"]["state"] == "healthy"
            assert served(early)
        assert finished(hull(hulld, "wait", "--healthy", "gated"))[::2] == (b"", 0)
        assert [m["name"] for m in hulld.get("/v1/machines?state=healthy&name=gated").json["items"]] == ["gated"]
        (tmp_path / "up").unlink()
        assert patch(hulld, {"health": {"interval_s": 1, "retries": 1}}).status == 200  # a check anew
        assert hulld.wait("gated", "unhealthy")["health"]["reason"] == "exit status 1: not yet"
        assert hulld.get("/v1/machines/gated/wait?state=healthy&timeout_s=0").json["code"] == "timeout"
        said = finished(hull(hulld, "wait", "--healthy", "gated"))
        assert said[2] == 1 and b"gated: the machine is unhealthy: exit status 1: not yet" in said[1], said
        gate_is(hulld, "closed")
        with connect() as late:
            assert late.recv(1) == b""
        # Whoever is started anew hears of it, and a port that comes later is told.
        os.kill(ingress_of(hulld)[0], signal.SIGKILL)
        gate_is(hulld, "closed")
        hulld.restart()
        gate_is(hulld, "closed")
        assert patch(hulld, {"ports": [{"host": free_port(), "guest": guest}]}).status == 200
        gate_is(hulld, "closed")
        assert patch(hulld, {"health": None, "ports": [{"host": host, "guest": guest}]}).status == 200
        gate_is(hulld, "open")
        with connect() as client:
            assert served(client)
        assert hulld.get("/v1/machines/gated/wait?state=healthy").json["state"] == "running"
        assert patch(hulld, {"health": {"tcp": {"port": other.getsockname()[1]}}}).status == 200
        assert hulld.wait("gated", "healthy")
        assert hulld.post("/v1/machines/gated/kill").json["health"]["state"] == "unknown"
        gate_is(hulld, "closed")
    hulld.delete("/v1/machines/gated")


def test_who_comes_waits_only_where_something_will_come(hulld):
    with socket.create_server(("127.0.0.1", 0)) as program:
        program.settimeout(DEADLINE)
        host = free_port()

        def connect():
            return socket.create_connection(("127.0.0.1", host), timeout=DEADLINE)

        def is_held(client):
            wait_until(lambda: ingress_of(hulld)[1][0]["connections"] == 1, "the connection waits")
            return client

        def is_served(client):
            with client, program.accept()[0] as inside:
                inside.sendall(b"x")
                assert client.recv(1) == b"x"

        def is_closed():
            gate_is(hulld, "closed")
            with connect() as client:
                assert client.recv(1) == b""

        def fails():
            before = hulld.tip()
            os.kill(hulld.machine("some")["pid"], signal.SIGKILL)
            hulld.wait("some", "failed", after=before)

        spec = {"name": "some", "image": "any", "command": ["any"], "network": "none", "disk_mib": 16,
                "restart": {"policy": "on-failure"}, "ports": [{"host": host, "guest": program.getsockname()[1]}]}
        assert hulld.post("/v1/machines", spec).status == 201
        with is_held(connect()) as early:  # it is there to be started
            assert hulld.post("/v1/machines/some/start").status == 200
            is_served(early)
        for _ in range(5):
            assert hulld.post("/v1/machines/some/kill").status == 200
            hulld.wait("some", "stopped")
            is_closed()
            # Whoever was told that it starts, waits.
            assert hulld.post("/v1/machines/some/start").status == 200
            is_served(connect())
        assert hulld.wait("some", "running")
        for failures in (1, 2):  # the second has a second to wait, at least
            fails()
            gate_is(hulld, "open")
            is_served(connect())
            assert hulld.wait("some", "running")["restarts"] == failures
        fails()
        with is_held(connect()) as late:  # what it waits for comes no more
            assert patch(hulld, {"restart": {"policy": "never"}}, "some").status == 200
            assert late.recv(1) == b""
        is_closed()
        os.kill(ingress_of(hulld)[0], signal.SIGKILL)
        is_closed()
        hulld.restart()
        is_closed()
    hulld.delete("/v1/machines/some")


class Served:
    """A connection to the machine's port, and the program's end of it."""

    def __init__(self, program, client):
        self.client, self.inside = client, program.accept()[0]

    def close(self):
        self.client.close()
        self.inside.close()

    def says(self, text):
        self.inside.sendall(text)
        return self.client.recv(100) == text


@pytest.fixture
def web(hulld):
    """A machine, and what listens in it; it ends at once when it is told to."""
    host = free_port()
    with socket.create_server(("127.0.0.1", 0)) as program:
        program.settimeout(DEADLINE)
        run(hulld, "web", ports=[{"host": host, "guest": program.getsockname()[1]}], stop={"timeout_s": 60, "drain_s": 30})
        yield lambda client=None: Served(program, client or socket.create_connection(("127.0.0.1", host), timeout=DEADLINE))
    hulld.delete("/v1/machines/web?force=1")


def stop(hulld, verb="stop", **body):
    assert hulld.post(f"/v1/machines/web/{verb}", body).json["state"] == "stopping"


def test_what_is_under_way_ends_before_the_machine_does(hulld, web):
    slow, other = web(), web()
    assert slow.says(b"begun")
    stop(hulld)
    gate_is(hulld, "closed")  # hull-ingress hears of it a moment later
    with socket.create_connection(slow.client.getpeername(), timeout=DEADLINE) as late:
        assert late.recv(1) == b""
    hulld.restart()  # and the next one waits, too
    assert hulld.machine("web")["state"] == "stopping" and slow.says(b"more")
    other.close()
    assert slow.says(b"and more") and hulld.machine("web")["state"] == "stopping"
    slow.inside.close()
    assert slow.client.recv(1) == b""
    slow.close()
    assert hulld.wait("web", "stopped")["cause"]["code"] == "poweroff"
    gate_is(hulld, "closed")


def test_who_does_not_end_holds_a_stop_no_longer_than_it_was_told(hulld, web):
    endless = web()
    before = time.monotonic()
    stop(hulld, timeout_s=6)
    assert hulld.wait("web", "stopped")["cause"]["code"] == "poweroff"  # told after half of it, not killed after all of it
    assert time.monotonic() - before >= 3 and endless.client.recv(1) == b""
    endless.close()


def test_a_second_stop_and_the_end_of_hull_ingress_end_the_waiting(hulld, web):
    for end in (lambda: hulld.post("/v1/machines/web/stop", {"timeout_s": 0}), lambda: os.kill(ingress_of(hulld)[0], signal.SIGKILL)):
        there = web()
        stop(hulld)
        assert there.says(b"x")
        end()
        hulld.wait("web", "stopped")
        there.close()
        hulld.post("/v1/machines/web/start")
        hulld.wait("web", "running")
        gate_is(hulld, "open")


def test_a_stop_takes_what_the_machine_says_unless_it_says_otherwise(hulld):
    for body, cause in ((None, "killed"), ({"timeout_s": 60}, "poweroff")):
        run(hulld, "brief", stop={"timeout_s": 0})
        assert hulld.post("/v1/machines/brief/stop", body).status == 200
        assert hulld.wait("brief", "stopped")["cause"]["code"] == cause
        hulld.delete("/v1/machines/brief")


def test_who_comes_during_a_restart_waits_for_it(hulld, web):
    there = web()
    stop(hulld, "restart")
    gate_is(hulld, "wait")
    late = socket.create_connection(there.client.getpeername(), timeout=DEADLINE)
    there.close()
    assert hulld.wait("web", "running")["restarts"] == 0
    again = web(late)
    assert again.says(b"x")
    again.close()


class Datagrams:
    """A client of a UDP port."""

    def __init__(self, port):
        self.end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.end.settimeout(DEADLINE)
        self.end.connect(("127.0.0.1", port))

    def asks(self, program, text):
        """Where the program sees it come from, having answered."""
        self.end.send(text)
        seen, source = program.recvfrom(100)
        assert seen == text
        program.sendto(b"to " + text, source)
        assert self.end.recv(100) == b"to " + text
        return source


def udp_program(port=0):
    program = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    program.settimeout(DEADLINE)
    program.bind(("127.0.0.1", port))
    return program


def test_datagrams_reach_the_program_and_their_answers_who_asked(hulld):
    program, host = udp_program(), free_port()
    guest = program.getsockname()[1]
    said = finished(hull(hulld, "run", "-d", "--name", "dns", "--network", "none", "-p", f"{host}:{guest}/udp", "-p", f"{host}:80", "any", "any"))
    assert f"  127.0.0.1:{host} -> port {guest}/udp\n".encode() in said[0], said
    assert f"127.0.0.1:{host}->{guest}/udp, 127.0.0.1:{host}->80 ".encode() in finished(hull(hulld, "ps"))[0]
    taken = hulld.post("/v1/machines", {"image": "any", "command": ["any"], "ports": [{"host": host, "guest": 1, "protocol": "udp"}]})
    assert (taken.status, taken.json["code"], taken.json["field"]) == (409, "port_taken", "ports[0].host")
    one, two = Datagrams(host), Datagrams(host)
    sources = one.asks(program, b"a"), two.asks(program, b"b")
    assert sources[0] != sources[1] and one.asks(program, b"") == sources[0]
    hulld.restart()
    assert one.asks(program, b"without hulld") == sources[0]
    # A program that goes, and comes again, costs what was sent meanwhile.
    program.close()
    one.end.send(b"again")
    program = udp_program(guest)
    program.settimeout(0.01)

    def heard():
        try:
            return one.asks(program, b"again")
        except TimeoutError:
            return None
    one.end.settimeout(0.01)
    wait_until(heard, "the program that came again is found")
    # So does a machine, and what it held goes with it.
    assert hulld.post("/v1/machines/dns/kill").json["state"] == "stopped"
    wait_until(lambda: sum(port["connections"] for port in ingress_of(hulld)[1]) == 0, "the sessions have ended")
    three = Datagrams(host)
    three.end.send(b"too early")
    assert hulld.post("/v1/machines/dns/start").status == 200
    three.end.send(b"early")
    program.settimeout(DEADLINE)
    while (got := program.recvfrom(100))[0] != b"early":
        assert got[0] == b"again"  # of the tries before
    program.sendto(b"found", got[1])
    assert three.end.recv(100) == b"found"
    assert finished(hull(hulld, "update", "dns", "-p", f"{host}/udp-"))[::2] == (b"dns\n", 0)
    assert [port["protocol"] for port in hulld.machine("dns")["ports"]] == ["tcp"]
    wait_until(lambda: [port["protocol"] for port in ingress_of(hulld)[1]] == ["tcp"], "it is given up")
    udp_program(host).close()  # anybody may have it now
    hulld.delete("/v1/machines/dns?force=1")
    program.close()


def test_a_program_may_listen_at_the_other_loopback_address(hulld):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as program:
        try:
            program.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
        host = free_port()
        run(hulld, "six", ports=[{"host": host, "guest": program.getsockname()[1], "protocol": "udp"}])
        program.setblocking(False)
        client = Datagrams(host)

        def heard():
            client.end.send(b"six")
            try:
                return program.recvfrom(100)
            except BlockingIOError:
                return None
        seen, source = wait_until(heard, "it is found")
        program.sendto(seen, source)
        assert client.end.recv(100) == b"six"
    hulld.delete("/v1/machines/six?force=1")


@pytest.mark.parametrize("port,field", [
    ({"protocol": "sctp"}, "ports[0].protocol"), ({"protocol": None}, "ports[0].protocol"), ({"protocol": 17}, "ports[0].protocol")])
def test_a_protocol_is_tcp_or_udp(hulld, port, field):
    answer = hulld.post("/v1/machines", {"image": "any", "command": ["any"], "ports": [{"host": 1, "guest": 1, **port}]})
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_field", field), answer
