"""Volumes: made, listed, changed, attached and removed; a script stands in for the monitor, and no guest is needed."""
import json
import os
import subprocess

import pytest

from hulld_fixtures import Hulld, make_erofs, wait_until, wrap_mkfs


@pytest.fixture
def hulld(tmp_path):
    """Its mkfs.ext4 is the real one, called by a script that does first what is in `before`."""
    tools, before = wrap_mkfs(tmp_path)
    daemon = Hulld(tmp_path, env={"PATH": f"{tools}:{os.environ['PATH']}"}).with_stand_in()
    daemon.before = before
    daemon.start()
    daemon.image("hello", make_erofs(tmp_path), command=["/bin/true"])
    yield daemon
    daemon.before.write_text("")
    daemon.stop()


def create(hulld, name, size_mib=16, **spec):
    answer = hulld.post("/v1/volumes", {"name": name, "size_mib": size_mib, **spec})
    assert answer.status == 201, answer
    return answer.json


def patch(hulld, path, body, **headers):
    return hulld.request("PATCH", path, json.dumps(body), headers={"Content-Type": "application/merge-patch+json", **headers})


def machine(hulld, name, *mounts, **spec):
    mounts = [{"volume": volume, "path": f"/{volume}", "read_only": read_only} for volume, read_only in mounts]
    return hulld.post("/v1/machines", {"name": name, "image": "hello", "network": "none", "disk_mib": 16, "mounts": mounts, **spec})


def start(hulld, name):
    answer = hulld.post(f"/v1/machines/{name}/start")
    if answer.status == 200:
        wait_until(lambda: hulld.machine(name)["pid"], "there is a monitor")
    return answer


def refused(answer, status, code, field=None, detail=""):
    assert (answer.status, answer.json["code"], answer.json.get("field")) == (status, code, field) and detail in answer.json["detail"], answer
    return answer.json


def files(hulld):
    return sorted(os.listdir(hulld.state / "volumes"))


def test_a_tag_outlasts_what_a_machine_writes(hulld):
    made = hulld.post("/v1/volumes", {"name": "data", "size_mib": 16}, headers={"Idempotency-Key": "1"})
    with open(hulld.state / "volumes" / f"{made.json['id']}.ext4", "r+b") as file:
        file.seek(8 << 20)
        file.write(b"x" * (1 << 20))
    shown = hulld.get("/v1/volumes/data")
    assert shown.json["used_bytes"] > made.json["used_bytes"] and shown.headers["ETag"] == made.headers["ETag"]
    again = hulld.post("/v1/volumes", {"name": "data", "size_mib": 16}, headers={"Idempotency-Key": "1"})
    assert (again.json, again.headers["ETag"]) == (made.json, made.headers["ETag"])
    larger = patch(hulld, "/v1/volumes/data", {"size_mib": 32}, **{"If-Match": made.headers["ETag"]})
    assert larger.status == 200 and larger.headers["ETag"] != made.headers["ETag"]
    refused(patch(hulld, "/v1/volumes/data", {"size_mib": 64}, **{"If-Match": made.headers["ETag"]}), 412, "precondition_failed", "If-Match")


def test_one_is_a_sparse_file_system_of_its_own(hulld):
    made = create(hulld, "data", 2048, labels={"team": "a"})
    assert made["id"][0] == "v" and len(made["id"]) == 13
    assert {key: made[key] for key in ("name", "size_mib", "labels", "project", "state", "attached_to")} == {
        "name": "data", "size_mib": 2048, "labels": {"team": "a"}, "project": "default", "state": "available", "attached_to": []}
    assert files(hulld) == [f"{made['id']}.ext4"]
    file = hulld.state / "volumes" / f"{made['id']}.ext4"
    assert file.stat().st_size == 2 << 30 and file.stat().st_mode & 0o777 == 0o600
    assert made["used_bytes"] == file.stat().st_blocks * 512 < 4 << 20
    subprocess.run(["/sbin/e2fsck", "-fn", file], check=True, capture_output=True)
    header = subprocess.run(["/sbin/dumpe2fs", "-h", file], check=True, capture_output=True, text=True).stdout
    assert "resize_inode" in header and "Block size:               4096" in header and "Remount read-only" in header
    for key in ("data", made["id"]):
        assert hulld.get(f"/v1/volumes/{key}").json == made
    assert hulld.delete("/v1/volumes/data").status == 204
    wait_until(lambda: files(hulld) == [], "its file is removed")
    refused(hulld.get("/v1/volumes/data"), 404, "not_found")
    types = [event["type"] for event in hulld.get("/v1/events?type=volume").json["items"]]
    assert types == ["volume.created", "volume.deleted"]


@pytest.mark.parametrize("spec, status, code, field", [
    ({}, 400, "missing_field", "name"), ({"name": "A"}, 400, "invalid_field", "name"), ({"name": "../x"}, 400, "invalid_field", "name"),
    ({"name": "a", "size_mib": 15}, 400, "invalid_field", "size_mib"), ({"name": "a", "size_mib": 1 << 24}, 400, "invalid_field", "size_mib"),
    ({"name": "a", "sise_mib": 16}, 400, "unknown_field", "sise_mib"), ({"name": "a", "id": "x"}, 400, "unknown_field", "id"),
    ({"name": "a", "labels": {"x": "y" * 4096}}, 400, "invalid_field", "labels"), ({"name": "there"}, 409, "name_taken", "name")])
def test_what_is_refused_leaves_nothing(hulld, spec, status, code, field):
    create(hulld, "there")
    refused(hulld.post("/v1/volumes", spec), status, code, field)
    assert len(files(hulld)) == 1 and [volume["name"] for volume in hulld.get("/v1/volumes").json["items"]] == ["there"]


def test_a_mkfs_that_fails_says_why_and_leaves_nothing(hulld):
    hulld.before.write_text("echo 'mke2fs: the moon is full' >&2; exit 1\n")
    answer = refused(hulld.post("/v1/volumes", {"name": "a"}), 500, "internal")
    assert answer["detail"] == "cannot make the volume: mkfs.ext4 failed: mke2fs: the moon is full"
    assert files(hulld) == [] and hulld.get("/v1/volumes").json["items"] == []
    hulld.before.write_text("")
    create(hulld, "a")


def test_they_are_listed_by_name_and_label_in_pages(hulld):
    for name in ("c", "a", "b"):
        create(hulld, name, labels={"team": name, "all": "yes"})
    page = hulld.get("/v1/volumes?limit=2").json
    assert [volume["name"] for volume in page["items"]] == ["a", "b"]
    assert [volume["name"] for volume in hulld.get(f"/v1/volumes?limit=2&cursor={page['next']}").json["items"]] == ["c"]
    assert [volume["name"] for volume in hulld.get("/v1/volumes?label=team=b").json["items"]] == ["b"]
    assert len(hulld.get("/v1/volumes?label=all").json["items"]) == 3
    assert hulld.get("/v1/volumes?label=all&label=team=z").json["items"] == []
    refused(hulld.get("/v1/volumes?label==x"), 400, "invalid_field", "label")


def test_a_key_makes_one_volume_of_many_requests(hulld):
    post = lambda: hulld.post("/v1/volumes", {"name": "a", "size_mib": 16}, headers={"Idempotency-Key": "k"})
    first, second = post(), post()
    assert first.status == second.status == 201 and first.json == second.json
    assert len(files(hulld)) == 1


def test_it_grows_and_never_shrinks(hulld):
    made = create(hulld, "a", 16)
    file = hulld.state / "volumes" / f"{made['id']}.ext4"
    tag = hulld.get("/v1/volumes/a").headers["ETag"]
    answer = patch(hulld, "/v1/volumes/a", {"size_mib": 64, "labels": {"x": "y"}}, **{"If-Match": tag})
    assert answer.status == 200 and answer.json["size_mib"] == 64 and answer.json["labels"] == {"x": "y"}
    assert file.stat().st_size == 64 << 20
    refused(patch(hulld, "/v1/volumes/a", {"size_mib": 128}, **{"If-Match": tag}), 412, "precondition_failed", "If-Match")
    refused(patch(hulld, "/v1/volumes/a", {"size_mib": 63}), 400, "invalid_field", "size_mib", "cannot become less than the 64 MiB")
    refused(patch(hulld, "/v1/volumes/a", {"name": "b"}), 400, "invalid_field", "name")
    refused(patch(hulld, "/v1/volumes/a", {"name": None}), 400, "missing_field", "name")
    assert file.stat().st_size == 64 << 20 and hulld.get("/v1/volumes/a").json["size_mib"] == 64
    refused(patch(hulld, "/v1/volumes/a", {"labels": {"z": "y" * 4096}}), 400, "invalid_field", "labels")
    assert patch(hulld, "/v1/volumes/a", {"labels": {"x": None}}).json["labels"] == {}


def test_a_machine_mounts_what_is_there(hulld):
    create(hulld, "data")
    refused(machine(hulld, "m", ("data", False), ("none", False)), 404, "not_found", "mounts[1].volume")
    by_id = hulld.get("/v1/volumes/data").json["id"]
    refused(machine(hulld, "m", (by_id, False)), 404, "not_found", "mounts[0].volume")
    refused(machine(hulld, "m", ("data", False), ("data", True)), 400, "invalid_field", "mounts[1].path")
    assert machine(hulld, "m", ("data", False)).status == 201
    assert refused(hulld.delete("/v1/volumes/data"), 409, "volume_in_use", None, "machine m mounts it")["hint"]
    assert start(hulld, "m").status == 200
    config = json.loads((hulld.state / "machines" / hulld.machine("m")["id"] / "config.json").read_text())
    assert [drive["drive_id"] for drive in config["drives"]] == ["image", "scratch", "vol0"]
    assert config["drives"][2]["path_on_host"].endswith(f"/volumes/{by_id}.ext4")
    assert (config["drives"][2]["is_read_only"], config["drives"][2]["cache_type"]) == (False, "Writeback")
    volume = hulld.get("/v1/volumes/data").json
    assert (volume["state"], volume["attached_to"]) == ("attached", ["m"])
    answer = patch(hulld, "/v1/machines/m", {"mounts": []})
    assert answer.status == 200 and answer.json["pending"] == ["mounts"]
    refused(hulld.delete("/v1/volumes/data"), 409, "volume_in_use")
    hulld.post("/v1/machines/m/kill")
    hulld.wait("m", "stopped")
    assert hulld.get("/v1/volumes/data").json["state"] == "available"
    assert hulld.delete("/v1/volumes/data").status == 204
    refused(patch(hulld, "/v1/machines/m", {"mounts": [{"volume": "data", "path": "/d"}]}), 404, "not_found", "mounts[0].volume")


def test_one_machine_has_it_or_many_that_only_read(hulld):
    create(hulld, "data")
    for name, read_only in (("w", False), ("v", False), ("r", True), ("s", True)):
        assert machine(hulld, name, ("data", read_only)).status == 201
    assert start(hulld, "w").status == 200
    for name in ("v", "r"):
        assert refused(start(hulld, name), 409, "volume_in_use", "mounts[0].volume", "volume data is attached to machine w")["hint"]
        assert hulld.machine(name)["state"] == "created"
    hulld.post("/v1/machines/w/kill")
    hulld.wait("w", "stopped")
    assert start(hulld, "r").status == start(hulld, "s").status == 200
    assert hulld.get("/v1/volumes/data").json["attached_to"] == ["r", "s"]
    refused(start(hulld, "w"), 409, "volume_in_use", "mounts[0].volume", "volume data is attached to machine r")
    hulld.restart()  # by the rows alone
    refused(start(hulld, "w"), 409, "volume_in_use", "mounts[0].volume")
    assert hulld.get("/v1/volumes/data").json["attached_to"] == ["r", "s"]


def test_who_waits_for_another_leaves_the_volume_to_it(hulld):
    create(hulld, "data")
    assert machine(hulld, "migrate", ("data", False)).status == 201
    assert machine(hulld, "web", ("data", False), depends_on=[{"machine": "migrate", "condition": "started"}]).status == 201
    assert hulld.post("/v1/machines/web/start").status == 200
    wait_until(lambda: hulld.machine("web")["waiting_for"] == ["migrate"], "it waits")
    assert start(hulld, "migrate").status == 200
    assert hulld.get("/v1/volumes/data").json["attached_to"] == ["migrate"]
    hulld.post("/v1/machines/web/kill")


def test_one_whose_file_is_gone_is_missing_and_can_be_deleted(hulld):
    made = create(hulld, "data")
    assert machine(hulld, "m", ("data", False)).status == 201
    (hulld.state / "volumes" / f"{made['id']}.ext4").unlink()
    assert hulld.get("/v1/volumes/data").json["state"] == "missing"
    refused(start(hulld, "m"), 409, "machine_failed", "mounts[0].volume", "the file of volume data cannot be used")
    assert hulld.delete("/v1/machines/m").status == hulld.delete("/v1/volumes/data").status == 204


# Of other projects.

def test_another_projects_volume_is_not_there(hulld):
    a, b = {"Hull-Project": "a"}, {"Hull-Project": "b"}
    for project in ("a", "b"):
        assert hulld.post("/v1/projects", {"name": project}).status == 201
    made = hulld.post("/v1/volumes", {"name": "data", "size_mib": 16}, headers=a).json
    for key in ("data", made["id"]):
        for method, body in (("GET", None), ("DELETE", None), ("PATCH", "{}")):
            answer = hulld.request(method, f"/v1/volumes/{key}", body, headers={**b, "Content-Type": "application/merge-patch+json"})
            none = hulld.request(method, "/v1/volumes/none", body, headers={**b, "Content-Type": "application/merge-patch+json"})
            assert answer.status == none.status == 404 and answer.json == {**none.json, "detail": none.json["detail"].replace("none", key)}
    assert hulld.get("/v1/volumes", headers=b).json["items"] == []
    assert hulld.post("/v1/volumes", {"name": "data", "size_mib": 16}, headers=b).status == 201
    assert hulld.request("DELETE", "/v1/volumes/data", headers=b).status == 204
    refused(hulld.delete("/v1/projects/a"), 409, "project_in_use", None, "it has volumes")
    assert hulld.request("DELETE", "/v1/volumes/data", headers=a).status == 204
    assert hulld.delete("/v1/projects/a").status == hulld.delete("/v1/projects/b").status == 204


def test_they_count_for_the_quota_of_disk(hulld):
    a = {"Hull-Project": "a"}
    assert hulld.post("/v1/projects", {"name": "a", "quotas": {"disk_mib": 100}}).status == 201
    post = lambda name, size_mib: hulld.post("/v1/volumes", {"name": name, "size_mib": size_mib}, headers=a)
    assert post("x", 60).status == 201
    refused(post("y", 41), 409, "quota_exceeded", "size_mib", "60 of 100 are used, and 41 would be added")
    assert post("y", 30).status == 201
    assert hulld.get("/v1/projects/a").json["usage"]["disk_mib"] == 90
    grow = lambda size_mib: hulld.request("PATCH", "/v1/volumes/y", json.dumps({"size_mib": size_mib}),
                                          headers={**a, "Content-Type": "application/merge-patch+json"})
    refused(grow(41), 409, "quota_exceeded", "size_mib")
    assert grow(40).status == 200 and hulld.get("/v1/host").json["allocated"]["disk_mib"] == 100


# Of crashes.

def cut_short(hulld, *before):
    """A POST with a key, while which hulld is killed."""
    started = hulld.folder / "started"
    hulld.before.write_text(f"echo >{started}; exec sleep 1000\n")
    child = os.fork()
    if child == 0:
        try:
            hulld.post("/v1/volumes", {"name": "a", "size_mib": 16}, headers={"Idempotency-Key": "k"})
        finally:
            os._exit(0)
    wait_until(started.exists, "mkfs.ext4 runs")
    assert [name.rpartition(".")[2] for name in files(hulld)] == ["new"]
    hulld.kill()
    os.waitpid(child, 0)
    hulld.before.write_text("")


def test_a_hulld_that_is_killed_leaves_no_half_of_one(hulld):
    cut_short(hulld)
    hulld.start()
    assert files(hulld) == [] and hulld.get("/v1/volumes").json["items"] == []
    answer = hulld.post("/v1/volumes", {"name": "a", "size_mib": 16}, headers={"Idempotency-Key": "k"})
    assert answer.status == 201 and len(files(hulld)) == 1


def test_each_step_is_finished_or_undone_by_the_next_hulld(hulld):
    made = create(hulld, "a", 16)
    folder, stem = hulld.state / "volumes", made["id"]
    for kind in ("new", "gone"):  # its row is there: made and not named yet, or not to be deleted yet
        hulld.kill()
        (folder / f"{stem}.ext4").rename(folder / f"{stem}.{kind}")
        hulld.start()
        assert files(hulld) == [f"{stem}.ext4"] and hulld.get("/v1/volumes/a").json["state"] == "available"
    hulld.kill()
    os.truncate(folder / f"{stem}.ext4", 8 << 20)  # what the row says was not on disk yet
    other = "v" + "a" * 12
    for kind in ("new", "gone", "ext4"):
        (folder / f"{other}.{kind}").write_text("somebody's")
    hulld.start()
    assert (folder / f"{stem}.ext4").stat().st_size == 16 << 20
    assert files(hulld) == sorted([f"{stem}.ext4", f"{other}.ext4"]), "what may be somebody's data is left"
    assert f"{other}.ext4 is of no volume" in hulld.log.read_text()


def test_a_client_that_leaves_has_its_volume_undone(hulld):
    started = hulld.folder / "started"
    hulld.before.write_text(f"echo >{started}; exec sleep 1000\n")
    with pytest.raises(TimeoutError):
        hulld.post("/v1/volumes", {"name": "a", "size_mib": 16}, timeout=1)
    wait_until(lambda: files(hulld) == [], "its file is removed")
    hulld.before.write_text("")
    create(hulld, "a")


def test_a_project_makes_some_at_a_time(hulld):
    import threading
    hulld.before.write_text(f"while [ ! -e {hulld.folder}/go ]; do sleep 0.05; done\n")
    answers = []
    threads = [threading.Thread(target=lambda i=i: answers.append(hulld.post("/v1/volumes", {"name": f"v{i}", "size_mib": 16}).status)) for i in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(files(hulld)) == 8, "eight are being made")
    refused(hulld.post("/v1/volumes", {"name": "v8", "size_mib": 16}), 503, "busy")
    (hulld.folder / "go").touch()
    for thread in threads:
        thread.join()
    assert answers == [201] * 8 and len(hulld.get("/v1/volumes").json["items"]) == 8


def test_of_two_with_one_name_that_are_made_at_once_there_is_one(hulld):
    import threading
    hulld.before.write_text(f"while [ ! -e {hulld.folder}/go ]; do sleep 0.05; done\n")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(hulld.post("/v1/volumes", {"name": "a", "size_mib": 16}).status)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(files(hulld)) == 2, "two are being made")
    (hulld.folder / "go").touch()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201, 409]
    wait_until(lambda: len(files(hulld)) == 1, "one file is left")
