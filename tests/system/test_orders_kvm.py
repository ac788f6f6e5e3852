"""What the host tells a real machine to do (test_orders.py has what needs none): one machine, told everything."""
import json
import re
import select
import socket
import struct
import time

import pytest

from hulld_fixtures import Hulld, make_erofs, wait_until
from test_exec import STDOUT, Stream, execute, ran

pytestmark = pytest.mark.kvm
BOOT = 180  # seconds: an emulated host boots slowly
EXEC, ORDER, SPEC, STARTED, REFUSED, ANSWER = 4, 8, 1, 16, 17, 24
WORKLOAD = """trap 'exit 9' TERM
httpd -p 80 -h /srv
i=0
while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; usleep 20000; done"""
# Ends with what it has seen: of itself, of the workload, and of a program executed beside it.
BEFORE_SNAPSHOT = """#!/bin/sh
cd /sys/fs/cgroup
echo $(id -un) $WHO $(cat /tmp/count) $(cat hull.workload/cgroup.events hull.exec/cgroup.events made/cgroup.events | grep -c 'frozen 1')
exit 3
"""


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    (folder / "rootfs/etc/hull/hooks").mkdir(parents=True)
    daemon = Hulld(folder, env={"HULL_START_TIMEOUT_S": str(BOOT)}).start()
    daemon.image("orders", make_erofs(folder, {"srv/up": "up", "etc/hull/hooks/before-snapshot": BEFORE_SNAPSHOT,
                                               "etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"}))
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def box(hulld):
    answer = hulld.post("/v1/machines", {"name": "box", "image": "orders", "command": ["sh", "-c", WORKLOAD], "disk_mib": 64,
                                         "env": {"WHO": "machine"}, "health": {
                                             "http": {"port": 80, "path": "/up"}, "interval_s": 1, "timeout_s": 60, "retries": 1}})
    assert answer.status == 201, answer
    hulld.post("/v1/machines/box/start")
    machine = hulld.wait("box", "running,failed", BOOT)
    assert machine["state"] == "running", machine
    return "box"


def receive(sock, size):
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, data
        data += part
    return data


def call(hulld, name, verb):
    """A connection to the agent, which has agreed."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(BOOT)
    sock.connect(str(hulld.run / "machines" / hulld.machine(name)["id"] / "vsock.sock"))
    sock.sendall(b"CONNECT 1024\n")
    while receive(sock, 1) != b"\n":
        pass
    sock.sendall(b"HULL" + struct.pack("<HHI", 1, verb, 60000))
    assert receive(sock, 8) == b"HULL\0\0\0\0"
    return sock


def send_spec(sock, spec):
    body = json.dumps(spec).encode()
    sock.sendall(struct.pack("<IB3x", len(body), SPEC) + body)


def next_frame(sock):
    size, kind = struct.unpack("<IB3x", receive(sock, 8))
    return kind, receive(sock, size)


def order(hulld, name, verb, **more):
    """The type of the frame that came back, and what it says."""
    with call(hulld, name, ORDER) as sock:
        send_spec(sock, {"verb": verb, **more})
        kind, text = next_frame(sock)
        return kind, json.loads(text)


def shell(hulld, name, script):
    return ran(execute(hulld, name, "sh", "-c", script))[0]


def is_in(hulld, name, state):
    return wait_until(lambda: (seen := hulld.machine(name)["health"])["state"] == state and seen, f"{name} is {state}", BOOT)


def test_a_page_says_whether_it_is_healthy(hulld, box):
    is_in(hulld, box, "healthy")
    shell(hulld, box, "mv /srv/up /srv/down")
    assert is_in(hulld, box, "unhealthy")["reason"] == "GET /up is answered with 404"
    shell(hulld, box, "mv /srv/down /srv/up")
    is_in(hulld, box, "healthy")
    events = hulld.get("/v1/events?type=machine.running,machine.healthy,machine.unhealthy").json["items"]
    assert [event["type"] for event in events][-2:] == ["machine.unhealthy", "machine.healthy"]
    assert events[0]["type"] == "machine.running" and events[-2]["data"]["reason"] == "GET /up is answered with 404"


def test_a_page_may_be_longer_than_its_status(hulld, box):
    """A look does not break the connection under a program that still answers."""
    shell(hulld, box, r"(printf 'HTTP/1.1 200 OK\r\n\r\n'; usleep 300000; echo a && usleep 300000 && echo b && echo all >/tmp/said) "
          "2>/dev/null | nc -l -p 81 >/dev/null 2>&1 & until cat /proc/net/tcp* | grep -q ':0051 .* 0A '; do usleep 10000; done")
    assert order(hulld, box, "health", health={"http": {"port": 81}}) == (ANSWER, {"frozen": False, "healthy": True})
    wait_until(lambda: shell(hulld, box, "cat /tmp/said 2>/dev/null; true") == "all\n", "all of it was taken", 10)


def test_all_that_is_frozen_stands_still_until_it_is_thawed(hulld, box):
    def hooked():
        kind, answer = order(hulld, box, "hook", hook="before-snapshot")
        assert (kind, answer["field"]) == (REFUSED, "hook"), answer
        said = re.fullmatch(r"before-snapshot ended with status 3: (\w+) (\w+) (\d+) (\d)", answer["message"])
        who, of, count, frozen = said.groups()
        assert (who, of) == ("root", "machine")
        return int(count), int(frozen)

    # The workload's own, as a container engine makes them beside ours.
    shell(hulld, box, "mkdir -p /sys/fs/cgroup/made/inner; "
          "sh -c 'echo 0 > /sys/fs/cgroup/made/inner/cgroup.procs; exec sleep 100000' > /dev/null 2>&1 &")
    beside = Stream(hulld, box, "sh", "-c", "while :; do echo x; usleep 20000; done").switch()
    assert beside.next()[0] == STDOUT
    assert hooked()[1] == 0
    late = call(hulld, box, EXEC)
    assert hulld.post(f"/v1/machines/{box}/freeze").json["frozen"]
    send_spec(late, {"command": ["echo", "late"]})  # whose cgroup is frozen before it is in it
    seen = hooked()  # hooks run all the same
    assert seen[1] == 3 and hooked() == seen
    assert select.select([late], [], [], 0)[0] == []
    assert order(hulld, box, "health", health={"tcp": {"port": 80}}) == (
        REFUSED, {"errno": 16, "field": "", "message": "the workload is frozen"})
    assert order(hulld, box, "freeze") == (ANSWER, {"frozen": True})
    assert not hulld.post(f"/v1/machines/{box}/thaw").json["frozen"]
    wait_until(lambda: hooked()[0] > seen[0], "the workload runs on", BOOT)
    assert [next_frame(late)[0], next_frame(late)] == [STARTED, (STDOUT, b"late\n")]
    late.close()
    beside.have = b""
    assert beside.next()[0] == STDOUT
    beside.sock.close()
    assert order(hulld, box, "hook", hook="after-restore") == (ANSWER, {"frozen": False})  # the image has none


def skew(hulld, box):
    shell(hulld, box, "date -s '2001-09-09 01:46:40'")


def is_right(hulld, box):
    return abs(int(shell(hulld, box, "date +%s")) - time.time()) < 60


def test_the_clock_follows_the_hosts(hulld, box):
    skew(hulld, box)
    before = time.time()
    kind, answer = order(hulld, box, "clock", unix_ns=1)  # KVM knows better
    assert kind == ANSWER and before - 1e9 - 60 < answer["moved_ns"] / 1e9 < time.time() - 1e9 + 60, answer
    assert is_right(hulld, box)
    skew(hulld, box)
    hulld.restart()  # which does not know what has happened to the host
    wait_until(lambda: is_right(hulld, box), "it follows a new hulld", BOOT)
    skew(hulld, box)
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())  # a jump of nothing is one
    except PermissionError:
        pytest.skip("the host's clock may not be set here")
    wait_until(lambda: is_right(hulld, box), "it follows a host whose clock was set", BOOT)


def test_random_numbers_take_a_seed(hulld, box):
    assert order(hulld, box, "reseed", seed="5a" * 32) == (ANSWER, {"frozen": False})
    assert order(hulld, box, "reseed", seed="5a" * 8)[1]["field"] == "seed"


def test_a_machine_gets_another_name(hulld, box):
    assert order(hulld, box, "hostname", hostname="twin") == (ANSWER, {"frozen": False})
    assert shell(hulld, box, "hostname; echo $HOSTNAME; cat /etc/hostname; grep -c twin /etc/hosts") == "twin\ntwin\ntwin\n1\n"


def test_a_machine_gets_another_address_or_keeps_its_own(hulld, box):
    def network(**fields):
        return order(hulld, box, "network", network={"address": "10.0.2.77", "prefix": 24, "gateway": "10.0.2.2", **fields})

    def seen():
        return shell(hulld, box, "ip -o -4 addr show eth0 | awk '{print $4}'; cat /sys/class/net/eth0/address; ip route; "
                     "cat /etc/resolv.conf").split("\n")

    before = seen()
    assert before[0] == "10.0.2.15/24"
    kind, answer = network(gateway="192.168.7.1", mac="02:00:00:00:07:07")
    assert (kind, answer["message"]) == (REFUSED, "default route by 192.168.7.1: Network is unreachable")
    assert seen() == before
    kind, answer = network(interface="eth9")
    assert (kind, answer["message"]) == (REFUSED, "interface eth9: No such device")
    assert seen() == before
    assert network(mac="02:00:00:00:07:07", dns=["10.0.2.3", "10.0.2.4"]) == (ANSWER, {"frozen": False})
    assert seen() == ["10.0.2.77/24", "02:00:00:00:07:07",
                      "default via 10.0.2.2 dev eth0 ", "10.0.2.0/24 dev eth0 scope link  src 10.0.2.77 ",
                      "nameserver 10.0.2.3", "nameserver 10.0.2.4", ""]
    assert shell(hulld, box, "grep twin /etc/hosts") == "10.0.2.77\ttwin\n"


def test_what_is_frozen_hears_that_it_is_to_end(hulld, box):
    hulld.post(f"/v1/machines/{box}/freeze")
    hulld.post(f"/v1/machines/{box}/stop", {"timeout_s": BOOT})
    machine = hulld.wait(box, "stopped,failed", BOOT)
    assert (machine["state"], machine["exit_status"], machine["frozen"], machine["health"]["state"]) == ("stopped", 9, False, "unknown")
