"""hull volume, and --volume of run and update; a script stands in for the monitor, which ends at once."""
import json

import pytest

from hulld_fixtures import Hulld, make_erofs
from test_cli import Cli, complete


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder).with_stand_in("#!/bin/sh\nexit 1\n").start()
    daemon.image("hello", make_erofs(folder), command=["true"])
    yield daemon
    daemon.stop()


@pytest.fixture
def hull(hulld, tmp_path):
    yield Cli(tmp_path, hulld.socket)
    for kind in ("machines", "volumes"):
        for item in hulld.get(f"/v1/{kind}").json["items"]:
            hulld.delete(f"/v1/{kind}/{item['id']}" + ("?force=1" if kind == "machines" else ""))


def test_one_is_made_shown_grown_and_removed(hull, hulld):
    assert hull("volume", "create", "data", "--size", "2g", "--label", "team=a").stdout == "data\n"
    assert json.loads(hull("volume", "create", "other", "-s", "16", "-o", "json").stdout)["size_mib"] == 16
    header, row, _ = hull("volume", "list").stdout.splitlines()
    assert header.split() == ["NAME", "STATE", "SIZE", "USED", "ATTACHED", "TO", "CREATED"] and row.split()[:4] == ["data", "available", "2", "GiB"]
    assert hull("volume", "list", "-q").stdout == "data\nother\n"
    assert json.loads(hull("volume", "inspect", "data").stdout)["labels"] == {"team": "a"}
    assert hull("volume", "resize", "data", "3g").stdout == "data\n" and hulld.get("/v1/volumes/data").json["size_mib"] == 3072
    assert complete(hull, "volume", "rm", "") == ["data", "other"] and complete(hull, "run", "-v", "da") == ["data:"]
    assert complete(hull, "run", "--network", "") == ["default", "none"]
    assert hull("volume", "rm", "data", "other").stdout == "data\nother\n" and hulld.get("/v1/volumes").json["items"] == []


@pytest.mark.parametrize("words, status, line, hint", [
    (["volume", "create", "data"], 1, 'name: a volume "data" exists already', "choose another name, or take that one away first"),
    (["volume", "create", "b", "--size", "much"], 2, '--size: "much" is no size in MiB; write 512, 512m or 2g', ""),
    (["volume", "resize", "data", "8"], 1, "size_mib: must be 16 to 8388608, not 8", ""),
    (["volume", "resize", "data", "17"], 1, "size_mib: cannot become less than the 32 MiB that it has",
     "create a smaller one, and copy what is in it with a machine that mounts both"),
    (["volume", "inspect", "dada"], 1, 'there is no volume "dada"', "did you mean data? `hull volume list` lists what there is"),
    (["run", "-v", "data", "hello"], 2, '--volume: "data" is not VOLUME:PATH[:ro] or FOLDER:PATH[:ro]', "for example -v data:/var/lib/data, or -v ./src:/srv"),
    (["run", "-v", "data:/srv:read", "hello"], 2, '--volume: "data:/srv:read" ends with "read", which is neither ro nor rw',
     "a folder of such a name is data:/srv:read:rw"),
    (["run", "-v", "./none:/srv", "hello"], 2, "--volume: ./none: No such file or directory", ""),
    (["run", "-v", "/etc:/srv", "hello"], 125, "mounts[0].host_path: machines of project default may not see /etc of the host",
     "the host's administrator allows folders: hulld --mount-allow [PROJECT=]DIR"),
    (["run", "-v", "data:/proc/x", "hello"], 125, "mounts[0].path: must not be /proc, or below it: the machine has its own there", "")])
def test_what_is_refused_says_what_to_do(hull, hulld, words, status, line, hint):
    assert hulld.post("/v1/volumes", {"name": "data", "size_mib": 32}).status == 201
    said, hinted = hull.refused(*words, status=status)
    assert said.endswith(line) and hinted == hint


def test_run_makes_what_is_not_there_and_update_changes_it(hull, hulld):
    failed = hull("run", "-d", "--network", "none", "-v", "data:/data:ro", "-v", "more:/data/more", "hello", status=125)
    lines = failed.stderr.splitlines()
    assert lines[:2] == ["hull: volume data was not there, and is made, of 1024 MiB", "hull: volume more was not there, and is made, of 1024 MiB"]
    assert [volume["name"] for volume in hulld.get("/v1/volumes").json["items"]] == ["data", "more"]
    # Of what is refused otherwise nothing is made.
    hull.refused("run", "-d", "-v", "unmade:/x", "none", status=125)
    assert hulld.get("/v1/volumes/unmade").status == 404
    assert hulld.post("/v1/machines", {"name": "m", "image": "hello", "mounts": [{"volume": "data", "path": "/d"}]}).status == 201
    hull("update", "m", "-v", "data:/e:ro", "-v", "more:/m")
    assert hulld.machine("m")["mounts"] == [{"volume": "data", "path": "/e", "read_only": True}, {"volume": "more", "path": "/m", "read_only": False}]
    said, hint = hull.refused("volume", "rm", "more")
    assert said.endswith("machine m mounts it") and hint == "delete the machine first, or take the volume from its mounts"
    assert hulld.post("/v1/volumes", {"name": "free", "size_mib": 16}).status == 201
    several = hull("volume", "rm", "more", "free", "absent", "data", status=1)  # each is tried
    assert several.stdout == "free\n" and several.stderr.splitlines() == [
        "hull: more: machine m mounts it", f"      {hint}", 'hull: absent: there is no volume "absent"', "      `hull volume list` lists what there is",
        "hull: data: machine m mounts it", f"      {hint}"]
    hull("update", "m", "-v", "more-")
    hull("volume", "rm", "more")
    said, hint = hull.refused("update", "m", "-v", "dada:/x")
    assert said.endswith('there is no volume "dada"') and hint.startswith("did you mean data?")


@pytest.mark.parametrize("words", [["image", "rm"], ["network", "rm"], ["secret", "rm"], ["project", "rm"], ["token", "rm"], ["certificate", "rm"],
                                   ["webhook", "rm"], ["webhook", "enable"], ["webhook", "disable"], ["operation", "cancel"], ["context", "rm"]])
def test_of_several_each_is_tried(hull, words):
    failed = hull(*words, "none-1", "none-2", status=1)
    told = [line for line in failed.stderr.splitlines() if line.startswith("hull: ")]
    assert failed.stdout == "" and len(told) == 2 and all(f"none-{n}: " in line for n, line in enumerate(told, 1)), failed.stderr


def test_an_image_in_use_stays_and_others_go(hull, hulld):
    for name in ("a", "b", "c"):
        assert hulld.post("/v1/images", {"name": name, "rootfs": hulld.get("/v1/images/hello").json["rootfs"], "config": {"command": ["true"]}}).status == 201
    assert hulld.post("/v1/machines", {"name": "m", "image": "b"}).status == 201
    done = hull("image", "rm", "a", "b", "c", status=1)
    assert done.stdout == "a\nc\n" and done.stderr == "hull: b: machine m was created from image b\n      `hull image rm -f` takes the name away; machines keep their content\n"
    assert hull("image", "rm", "-f", "b").stdout == "b\n"
