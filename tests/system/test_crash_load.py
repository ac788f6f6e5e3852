"""hulld under a mixed load, killed at random instants: every change that it has acknowledged is there, nothing is doubled, nothing is
stuck, what is asked again is answered as it was, and a webhook's receiver misses no event. Also with the host that it runs on.

HULL_CRASH_KILLS and HULL_CRASH_HOSTS are how often; HULL_CRASH_SEED makes another run of it."""
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import signal
import socket
import time
from urllib.parse import urlsplit

import pytest

from crash_load import IMAGE, Load
from hulld_fixtures import DEADLINE, Answer, Hulld, make_erofs, wait_until
from test_exec import make_agent_alone
from test_hulld import processes_of
from test_kvmhost import Host
from test_ports import ingress_of
from test_webhooks import FAST, HERE, Receiver

KILLS = int(os.environ.get("HULL_CRASH_KILLS", "20"))
HOSTS = int(os.environ.get("HULL_CRASH_HOSTS", "1"))
SEED = os.environ.get("HULL_CRASH_SEED", "hull")
CLIENTS = 6
PORTS = 24  # of all of them
ALIVE_MAX_S = 0.2  # from when hulld answers until it is killed
HOST_ALIVE_MAX_S = 6
MONITOR = '#!/bin/sh\nMONITOR_OF=$2 exec %s "$@"\n'


def monitors(hulld):
    """{a machine's id: the numbers of its monitors}"""
    found = {}
    for pid, words in processes_of(hulld).items():
        match = re.search(rb"MONITOR_OF=.*?/machines/(m\w+)/", words)
        if match:
            found.setdefault(match[1].decode(), []).append(pid)
    return found


def free_ports():
    """Of those that the host gives to no connection of its own."""
    first = random.randrange(20000, 30000)
    with contextlib.ExitStack() as probes:
        ports = []
        for port in range(first, first + 2000):
            probe = probes.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == PORTS:
                return ports
    raise AssertionError(f"no {PORTS} ports are free from {first} on")


def held_ports(hulld):
    return sorted(port["host"] for port in ingress_of(hulld)[1])


def settled(hulld, load):
    """Nothing moves any more, and no operation is under way; each machine has come to what it was to, and what was asked of it last has
    succeeded; who runs does by one monitor, and who does not has none; the machines' ports are held, and no other."""
    wanted = load.comes_to()

    def look():
        machines, running = hulld.get("/v1/machines").json["items"], monitors(hulld)
        if set(running) - {machine["id"] for machine in machines} or held_ports(hulld) != load.held():
            return False
        for machine in machines:
            state, has = machine["state"].replace("created", "stopped"), running.get(machine["id"], [])
            if state != wanted[machine["name"]] or len(has) != (state == "running") or has != ([machine["pid"]] if machine["pid"] else []):
                return False
        return hulld.get("/v1/operations?state=running").json["items"] == []

    try:
        wait_until(look, "all is settled")
    except AssertionError:
        pytest.fail(f"wanted {wanted}; there are {hulld.get('/v1/machines').json['items']} and monitors {monitors(hulld)}")
    load.verify_events()
    for operation in load.last_operations():
        assert (shown := hulld.get(f"/v1/operations/{operation}").json)["state"] == "succeeded", shown


def check_saved(hulld, load):
    """What is saved is that of machines that are suspended: whole, and saved once each time that one was suspended in its run."""
    saved = {}
    for path in (hulld.state / "machines").glob("*/suspended/*"):
        saved.setdefault(path.parts[-3], {})[path.name] = path.read_text()
    machines = hulld.get("/v1/machines").json["items"]
    times = {machine["id"]: f"{load.saves[machine['name']]}\n" for machine in machines if machine["state"] == "suspended"}
    assert saved == {id: {"memory": n, "state": n} for id, n in times.items()}
    for machine in machines:
        assert machine["cause"] is None or machine["cause"]["code"] in ("stopped", "killed", "poweroff"), machine


def check_told(receiver, load):
    """The receiver gets each event, and the first of each in their order."""
    wait_until(lambda: receiver.got and json.loads(receiver.got[-1][2])["id"] >= load.cursor, "the receiver has the last", DEADLINE + KILLS)
    firsts = list(dict.fromkeys(event["id"] for event in receiver.events()))
    assert firsts == list(range(firsts[0], firsts[-1] + 1))


@pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
def test_hulld_is_killed_at_random_instants(tmp_path):
    instants, receiver = random.Random(SEED), Receiver()
    hulld = Hulld(tmp_path, "--webhook-allow", HERE, "--webhook-timing", FAST)
    hulld.with_stand_in(MONITOR % make_agent_alone(tmp_path)).start()
    try:
        digest = hulld.image(IMAGE, make_erofs(tmp_path), command=["/bin/true"])
        load = Load(hulld.request, CLIENTS, SEED, digest, free_ports())
        assert hulld.post("/v1/webhooks", {"url": receiver.url}).status == 201

        def kill():
            time.sleep(instants.uniform(0, ALIVE_MAX_S))  # the instant is what this is about
            hulld.kill()

        for _ in range(KILLS):
            load.run(kill)
            hulld.start()
            load.verify()
            settled(hulld, load)
            check_saved(hulld, load)
        assert load.answered() > KILLS, "the clients have got on"
        check_told(receiver, load)
        done = [load.happened(f"machine.{state}") for state in ("suspended", "resuming")]
        assert all(done), done
        print(f"{KILLS} kills, {load.answered()} changes, {done[0]} suspends, {done[1]} resumes, {load.cursor} events, of which "
              f"{len(receiver.got)} were sent")
        for name in load.comes_to():
            assert hulld.delete(f"/v1/machines/{name}?force=1").status == 204
        assert len(os.listdir(hulld.state / "volumes")) == len(load.volumes())
        for name in load.volumes():
            assert hulld.delete(f"/v1/volumes/{name}").status == 204
        wait_until(lambda: os.listdir(hulld.state / "volumes") == [], "no volume's file is left")
        wait_until(lambda: not processes_of(hulld) and held_ports(hulld) == [], "no process and no port is left")
        assert os.listdir(hulld.state / "machines") == os.listdir(hulld.run / "machines") == []
    finally:
        hulld.stop()
        receiver.close()


class HullHost(Host):
    """With hulld in it."""

    def up(self):
        result = self("up")
        assert result.returncode == 0, result.stderr

    def post(self, path, body=None):
        return self.ask("POST", path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})

    def ask(self, method, path, body=None, headers=None):
        api = json.loads((self.state / "api.json").read_text())
        url = urlsplit(api["url"])
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, {**(headers or {}), "Authorization": f"Bearer {api['token']}"})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


class Kept:
    """A machine that the load has nothing to do with. Its host dies while it is suspended, or is being so."""
    NAME = "kept"

    def __init__(self, host):
        self.host = host
        spec = {"name": self.NAME, "image": IMAGE, "network": "none", "disk_mib": 16, "memory_mib": 128, "command": ["/bin/sleep", "100000"]}
        assert host.post("/v1/machines", spec).status == 201
        self.goes("start")
        self.run = self.which_run()

    @property
    def shown(self):
        return self.host.ask("GET", f"/v1/machines/{self.NAME}").json

    def comes_to(self, state):
        answer = self.host.ask("GET", f"/v1/machines/{self.NAME}/wait?state={state},failed&timeout_s={DEADLINE - 5}")
        assert answer.status == 200 and answer.json["state"] == state, answer

    def asks(self, verb):
        assert (answer := self.host.post(f"/v1/machines/{self.NAME}/{verb}")).status == 200, answer

    def goes(self, verb):
        self.asks(verb)
        self.comes_to("running")

    def which_run(self):
        """Of its kernel, which is all in memory."""
        answer = self.host.post(f"/v1/machines/{self.NAME}/exec", {"command": ["cat", "/proc/sys/kernel/random/boot_id"]})
        assert answer.status == 200 and answer.json["exit_status"] == 0, answer
        return answer.json["stdout"]

    def check(self, was_suspended):
        """It goes on from where it was saved; where its host died first, it has ended."""
        shown = self.shown
        if was_suspended or shown["state"] == "suspended":
            assert shown["state"] == "suspended" and shown["cause"] is None, shown
            self.goes("resume")
            assert self.shown["cause"] is None and self.which_run() == self.run
        else:
            assert shown["cause"]["code"] == "host_restarted", shown
            self.goes("start")
            self.run = self.which_run()


def saved_on(host):
    """{a machine's id: the files that are saved of it}"""
    found = {}
    for path in host.run("find", "/var/lib/hull/machines", "-path", "*/suspended/*").stdout.split():
        found.setdefault(path.split("/")[-3], []).append(path.split("/")[-1])
    return {id: sorted(names) for id, names in found.items()}


def check_host(host, load):
    def settled():
        return all(machine["state"] in ("created", "running", "suspended", "stopped", "failed") for machine in load.get("/v1/machines")["items"])

    wait_until(settled, "all is settled", 120)
    suspended = [machine["id"] for machine in load.get("/v1/machines")["items"] if machine["state"] == "suspended"]
    assert saved_on(host) == {id: ["memory", "state"] for id in suspended}
    assert load.get("/v1/operations?state=running")["items"] == []


def test_its_host_is_killed_over_its_state_disk(tmp_path):
    """As soon as a machine is said to be suspended; every second time at any instant."""
    instants, host = random.Random(SEED), HullHost(tmp_path)
    try:
        host.up()
        erofs = make_erofs(tmp_path, {})
        digest = "sha256:" + hashlib.sha256(erofs).hexdigest()
        assert host.ask("PUT", f"/v1/blobs/{digest}", erofs).status == 201
        image = {"name": IMAGE, "rootfs": digest, "config": {"command": ["/bin/true"]}}
        assert host.post("/v1/images", image).status == 201
        load = Load(host.ask, CLIENTS, SEED, digest, list(range(20000, 20000 + PORTS)), [Kept.NAME])
        kept, was_suspended = Kept(host), []

        def kill():
            if len(was_suspended) % 2:
                time.sleep(instants.uniform(0.1, HOST_ALIVE_MAX_S))  # the instant is what this is about
            else:
                kept.comes_to("suspended")
            was_suspended.append(kept.shown["state"] == "suspended")
            os.kill(host.qemu()[0], signal.SIGKILL)
            wait_until(lambda: host("status").returncode == 3, "kvmhost knows")

        for _ in range(HOSTS):
            kept.asks("suspend")
            load.run(kill)
            host.up()
            load.verify()
            check_host(host, load)
            kept.check(was_suspended[-1])
        assert load.answered() > HOSTS, "the clients have got on"
        print(f"{HOSTS} kills, {sum(was_suspended)} while one was suspended, {load.answered()} changes, {load.cursor} events")
    finally:
        host("down")
    assert not host.qemu()
