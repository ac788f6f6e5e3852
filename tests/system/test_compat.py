"""Clients that know only Firecracker, as their makers publish them, pinned by version in tests/compat."""
import json
import subprocess

import pytest

from conftest import BUILD, DEADLINE
from test_devices import BLK, NET, ip, network  # noqa: F401 (a fixture)

GUEST = r"""
echo mac: $(cat /sys/class/net/eth0/address)
while :; do
    echo 3 > /proc/sys/vm/drop_caches
    now=$(head -c 6 /dev/vda | tr -d '\0')
    [ "$now" = "$before" ] || echo drive: $now
    before=$now
done
"""


@pytest.mark.kvm
def test_the_go_sdk_drives_it(network, initramfs, vmlinux, tmp_path):  # noqa: F811
    for name, content in (("one", b"first"), ("two", b"second")):
        (tmp_path / name).write_bytes(content + b"\0" * ((1 << 20) - len(content)))
    ip("tuntap", "add", "hull0", "mode", "tap", "vnet_hdr")
    folder = tmp_path / "machine"
    folder.mkdir()
    (folder / "metrics").touch()
    (folder / "fc.log").touch()
    done = subprocess.run([BUILD / "compat" / "go-sdk", BUILD / "firecracker", folder, vmlinux, initramfs(GUEST, BLK + NET[1:] + ["virtio_balloon"]),
                           tmp_path / "one", tmp_path / "two", "hull0"], capture_output=True, text=True, timeout=4 * DEADLINE)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{(folder / 'fc.log').read_text()}"
    assert done.stdout.splitlines()[-1] == "it has stopped"
    metrics = [json.loads(line) for line in (folder / "metrics").read_text().splitlines()]
    assert sum(line["block_data"]["read_count"] for line in metrics) > 0
    assert "Running Firecracker v1." in done.stderr  # before the SDK names a log
    assert "PATCH /drives/data: 204" in (folder / "fc.log").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["console", "fc.log", "metrics"]
