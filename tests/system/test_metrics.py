"""GET /metrics, read as strictly as its format says (Prometheus' text format, version 0.0.4)."""
import json
import os
import re
import struct
from pathlib import Path

import pytest

from hulld_fixtures import Connection, Hulld, make_erofs, wait_until

SAMPLE = re.compile(r'(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>-?[0-9.e+-]+)\Z')
COUNTERS = ("network_received_bytes", "network_received_packets", "network_sent_bytes", "network_sent_packets", "disk_reads", "disk_writes",
            "disk_flushes")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|\Z)')


def parse(text):
    """{name: {labels: value}}; each family is told once, with its type and help in front of its samples."""
    assert text.endswith("\n")
    families, samples, current = {}, {}, None
    for line in text[:-1].split("\n"):
        if help_ := re.match(r"# HELP (\w+) (.+)\Z", line):
            current = help_[1]
            assert current not in families
            families[current] = None
        elif type_ := re.match(r"# TYPE (\w+) (counter|gauge|histogram)\Z", line):
            assert type_[1] == current and families[current] is None
            families[current] = type_[2]
        else:
            sample = SAMPLE.match(line)
            assert sample, line
            labels = tuple(LABEL.findall(sample["labels"] or ""))
            assert "".join(f'{name}="{value}",' for name, value in labels)[:-1] == (sample["labels"] or ""), line
            base = re.sub("_(bucket|sum|count)$", "", sample["name"]) if families[current] == "histogram" else sample["name"]
            assert base == current and labels not in samples.setdefault(sample["name"], {}), line
            samples[sample["name"]][labels] = float(sample["value"])
    assert None not in families.values()
    return samples


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = Hulld(tmp_path_factory.mktemp("hulld")).with_stand_in().start()
    daemon.image("box", make_erofs(tmp_path_factory.mktemp("image")), command=["/bin/true"])
    yield daemon
    daemon.stop()


def metrics(hulld):
    answer = hulld.get("/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.body.decode())


def test_machines_are_counted_and_told(hulld):
    assert "hull_machines" not in metrics(hulld)
    for name in ("one", "two"):
        assert hulld.post("/v1/machines", {"name": name, "image": "box", "cpus": 2, "memory_mib": 128, "network": "none"}).status == 201
    hulld.post("/v1/machines/two/start")
    wait_until(lambda: "hull_machine_cpu_seconds_total" in metrics(hulld), "its monitor is there")
    pid = hulld.machine("two")["pid"]
    wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "it is executed: until then it is hulld's memory")
    told = metrics(hulld)
    assert told["hull_machines"] == {(("project", "default"), ("state", "created")): 1, (("project", "default"), ("state", "starting")): 1}
    one, two = ((("project", "default"), ("machine", name)) for name in ("one", "two"))
    assert told["hull_machine_up"] == {one: 0, two: 0} and told["hull_machine_restarts_total"] == {one: 0, two: 0}
    assert told["hull_machine_cpus"] == {one: 2, two: 2} and told["hull_machine_memory_limit_bytes"] == {one: 128 << 20, two: 128 << 20}
    assert told["hull_machine_disk_limit_bytes"] == {one: 1 << 30, two: 1 << 30}
    assert list(told["hull_machine_cpu_seconds_total"]) == [two]
    # The host's own numbers, each beside what the kernel says of that process, and of that file.
    assert list(told["hull_machine_memory_resident_bytes"]) == [two]

    def resident():
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[21]) * os.sysconf("SC_PAGESIZE")
    wait_until(lambda: metrics(hulld)["hull_machine_memory_resident_bytes"][two] == resident() > 0, "it has all that it needs, and that is told")
    for name in ("disk_read_bytes_total", "disk_written_bytes_total"):
        assert list(told[f"hull_machine_{name}"]) == [two] and told[f"hull_machine_{name}"][two] >= 0
    disk = (hulld.state / "machines" / hulld.machine("two")["id"] / "scratch.ext4").stat()
    assert told["hull_machine_disk_used_bytes"] == {two: disk.st_blocks * 512}, "a machine that never ran has no disk yet"
    assert 0 < disk.st_blocks * 512 < 1 << 30
    # What its monitor has counted, where that has begun to.
    assert "hull_machine_network_sent_bytes_total" not in told
    counts = hulld.run / "machines" / hulld.machine("two")["id"] / "accounting"
    counts.write_bytes(struct.pack("10Q", 1, *range(11, 20)) + bytes(4096 - 80))
    told = metrics(hulld)
    assert [list(told[f"hull_machine_{name}_total"].items()) for name in COUNTERS] == [[(two, value)] for value in (11, 12, 13, 14, 16, 18, 19)]
    counts.write_bytes(struct.pack("10Q", 2, *range(11, 20)))
    assert "hull_machine_network_sent_bytes_total" not in metrics(hulld), "of another version"
    hulld.post("/v1/machines/two/kill")
    told = metrics(hulld)
    assert not {"hull_machine_cpu_seconds_total", "hull_machine_memory_resident_bytes"} & set(told), "of a process that is no more"
    assert list(told["hull_machine_disk_used_bytes"]) == [two]
    for name in ("one", "two"):
        hulld.delete(f"/v1/machines/{name}?force=1")
    assert "hull_machine_up" not in metrics(hulld)


def test_volumes_are_told_by_project(hulld):
    assert "hull_volume_size_bytes" not in metrics(hulld)
    other = {"Hull-Project": "other"}
    assert hulld.post("/v1/projects", {"name": "other"}).status == 201
    for name, size_mib, headers in (("data", 64, {}), ("logs", 16, {}), ("data", 32, other)):
        assert hulld.post("/v1/volumes", {"name": name, "size_mib": size_mib}, headers=headers).status == 201
    data, logs, theirs = ((("project", project), ("volume", name)) for project, name in (("default", "data"), ("default", "logs"), ("other", "data")))
    file = hulld.state / "volumes" / f"{hulld.get('/v1/volumes/data').json['id']}.ext4"
    with file.open("r+b") as disk:
        disk.seek(32 << 20)
        disk.write(b"x" * (1 << 20))
    told = metrics(hulld)
    assert told["hull_volume_size_bytes"] == {data: 64 << 20, logs: 16 << 20, theirs: 32 << 20}
    assert told["hull_volume_used_bytes"][data] == hulld.get("/v1/volumes/data").json["used_bytes"] == file.stat().st_blocks * 512 > 1 << 20
    assert set(told["hull_volume_used_bytes"]) == {data, logs, theirs}
    file.unlink()
    told = metrics(hulld)
    assert data in told["hull_volume_size_bytes"] and set(told["hull_volume_used_bytes"]) == {logs, theirs}, "its file is missing"
    for name, headers in (("data", {}), ("logs", {}), ("data", other)):
        assert hulld.request("DELETE", f"/v1/volumes/{name}", headers=headers).status == 204
    assert hulld.delete("/v1/projects/other").status == 204


def test_who_asks_while_it_is_written_is_answered_by_the_next(hulld):
    """Sixteen at once, in any order; more than that are told to come again; who has gone is not waited for."""
    def connect():
        connection = Connection(hulld.socket)
        connection.request("GET", "/metrics")
        return connection

    connect().close()
    asked = [connect() for _ in range(40)]
    answers = [(answer := connection.getresponse()).status and (answer.status, answer.read()) for connection in asked]
    for connection in asked:
        connection.close()
    assert {status for status, _ in answers} <= {200, 503} and answers[0][0] == 200
    for status, body in answers:
        if status == 200:
            assert parse(body.decode())["hull_build_info"]
        else:
            assert json.loads(body)["code"] == "busy" and json.loads(body)["retryable"]


def test_answers_are_counted_by_route_and_status(hulld):
    def by_route(told, name, **more):
        wanted = {"method": "GET", "route": "/v1/machines/{machine}", **more}
        return told.get(name, {}).get(tuple(wanted.items()), 0)

    before = metrics(hulld)
    for _ in range(3):
        assert hulld.get("/v1/machines/none").status == 404
    assert hulld.get("/nowhere").status == 404
    after = metrics(hulld)
    assert by_route(after, "hull_http_requests_total", status="4xx") - by_route(before, "hull_http_requests_total", status="4xx") == 3
    assert after["hull_http_requests_total"][(("method", ""), ("route", ""), ("status", "4xx"))] >= 1
    name = "hull_http_request_duration_seconds"
    buckets = [by_route(after, f"{name}_bucket", le=le) for le in ("0.001", "0.005", "0.025", "0.1", "0.5", "2.5", "10", "+Inf")]
    assert buckets == sorted(buckets) and buckets[-1] == by_route(after, f"{name}_count") and 0 < by_route(after, f"{name}_sum") < 60


def test_hulld_tells_of_itself(hulld):
    told = metrics(hulld)
    assert list(told["hull_build_info"].values()) == [1]
    assert 1 << 20 < told["process_resident_memory_bytes"][()] < 1 << 30 and told["process_cpu_seconds_total"][()] >= 0
    assert 5 < told["process_open_fds"][()] < 200


def test_a_project_s_token_does_not_read_it(hulld):
    token = hulld.post("/v1/tokens", {"scopes": ["read", "write", "exec", "admin"]}).json["token"]
    answer = hulld.request("GET", "/metrics", None, {"Authorization": f"Bearer {token}"})
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
