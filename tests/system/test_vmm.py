"""hull-vmm as its users meet it: a configuration file goes in, a guest runs, an outcome comes out."""
import copy
import json
import os
import signal
import socket
import subprocess

import pytest

from conftest import BOOT_ARGS, BUILD

PANIC_MODULES = ["pvpanic", "pvpanic_mmio"]


@pytest.fixture
def config(vmlinux):
    return {
        "boot-source": {"kernel_image_path": str(vmlinux), "boot_args": BOOT_ARGS},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
    }


@pytest.fixture
def boot(vmm, config, initramfs):
    """boot(script, modules, **machine): a guest that runs `script`, on a machine with these sizes."""

    def start(script, modules=(), arguments=(), files=None, **machine):
        config["boot-source"]["initrd_path"] = str(initramfs(script, modules, files))
        config["machine-config"].update(machine)
        return vmm(config, *arguments)

    return start


EXIT_PORT = r"""
#include <stdlib.h>
#include <sys/io.h>

int main(int argc, char *argv[])
{
	if (argc != 2 || iopl(3))
		return 1;
	outl(0x48000000u | atoi(argv[1]), 0xb10);
	return 0;
}
"""


@pytest.fixture(scope="session")
def exit_port(tmp_path_factory):
    """A program that hands its argument over as hull-init does: one 32-bit write to a port."""
    path = tmp_path_factory.mktemp("exit-port") / "exit-port"
    subprocess.run(["cc", "-static", "-O", "-o", path, "-x", "c", "-"], input=EXIT_PORT.encode(), check=True)
    return path.read_bytes()


@pytest.mark.parametrize("program", ["hull-vmm", "hull-init"])
def test_it_needs_no_shared_library(program):
    headers = subprocess.run(["readelf", "--program-headers", "--dynamic", BUILD / program], check=True, capture_output=True, text=True).stdout
    assert "INTERP" not in headers and "(NEEDED)" not in headers


# A guest, from its first line to each of its ends.


@pytest.mark.kvm
@pytest.mark.parametrize("form", ["kernel", "vmlinux"])
def test_a_stock_kernel_boots_and_powers_off(boot, config, request, form):
    config["boot-source"]["kernel_image_path"] = str(request.getfixturevalue(form))
    machine = boot("echo guest: hello from $(uname -s); poweroff -f")
    machine.wait_for("guest: hello from Linux")
    assert machine.wait() == 0
    assert machine.status == {"cause": "poweroff", "exit_status": None, "message": "the guest powered off"}


@pytest.mark.kvm
def test_an_interactive_shell_on_the_serial_port(boot):
    machine = boot("stty -echo; echo guest: ready; exec sh")
    machine.wait_for("guest: ready")
    machine.send("echo guest: $((6 * 7))\n")
    machine.wait_for("guest: 42")
    # More than the receive FIFO holds, in one go.
    machine.send("echo guest: " + "x" * 600 + " end\n")
    machine.wait_for("guest: x{600} end")
    machine.send("poweroff -f\n")
    assert machine.wait() == 0


@pytest.mark.kvm
@pytest.mark.parametrize("mib", [128, 4096])
def test_the_guest_sees_its_memory(boot, mib):
    machine = boot("echo guest: memory $(sed -n 's/MemTotal: *//p' /proc/meminfo); poweroff -f", mem_size_mib=mib)
    seen = int(machine.wait_for(r"guest: memory (\d+) kB").group(1)) / 1024
    assert 0.6 * mib < seen < mib  # the kernel keeps its own part
    assert machine.wait() == 0


@pytest.mark.kvm
@pytest.mark.parametrize("how, by", [("k", "keyboard controller"), ("a", "ACPI"), ("t", "triple fault")])
def test_a_reboot_is_a_reset(boot, config, how, by):
    config["boot-source"]["boot_args"] = f"console=ttyS0 quiet panic=-1 reboot={how}"
    machine = boot("reboot -f")
    assert machine.wait() == 0
    assert machine.status["cause"] == "reset"
    assert by in machine.status["message"]


@pytest.mark.kvm
def test_a_panic_is_a_panic(boot):
    machine = boot("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger", PANIC_MODULES)
    assert machine.wait() == 1
    assert machine.status == {"cause": "panic", "exit_status": None, "message": "the guest's kernel panicked"}
    assert "Kernel panic" in machine.console


@pytest.mark.kvm
@pytest.mark.parametrize("status", [0, 7, 255])
def test_the_workloads_exit_status_is_handed_over(boot, exit_port, status):
    machine = boot(f"exit-port {status}; poweroff -f", files={"bin/exit-port": exit_port})
    assert machine.wait() == status
    assert machine.status["exit_status"] == status


@pytest.mark.kvm
@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(boot, signo):
    machine = boot("echo guest: ready; while :; do :; done", arguments=["--shutdown-timeout", "0"], vcpu_count=2)
    machine.wait_for("guest: ready")
    machine.terminate(signo)
    assert machine.wait(timeout=20) == 0
    assert machine.status == {"cause": "signal", "exit_status": None, "message": signo.name}


@pytest.mark.kvm
def test_a_signal_ends_it_while_nobody_reads_its_console(boot):
    machine = boot("echo guest: ready; while :; do echo a line that fills the pipe; done")
    machine.wait_for("guest: ready")
    machine.terminate(signal.SIGINT)
    assert machine.process.wait(20) == 0


@pytest.mark.kvm
def test_the_console_and_the_log_can_be_files(boot, config, tmp_path_factory):
    console, log = tmp_path_factory.mktemp("console") / "console.log", tmp_path_factory.mktemp("log") / "vmm.log"
    config["serial"] = {"serial_out_path": str(console)}
    config["logger"] = {"log_path": str(log), "level": "Info"}
    machine = boot("echo guest: to a file; poweroff -f", arguments=["--id", "web_1"])
    assert machine.wait() == 0
    assert machine.console == machine.log == ""
    assert "guest: to a file" in console.read_text()
    assert "web_1: ended: the guest powered off" in log.read_text()


@pytest.mark.kvm
def test_an_appended_archive_is_part_of_the_initramfs_and_entropy_comes_from_the_host(boot, config, tmp_path_factory):
    from conftest import Cpio
    archive = Cpio()
    archive.folder("hull")
    archive.file("hull/word", b"appended", 0o644)
    path = tmp_path_factory.mktemp("append") / "guest.cpio"
    path.write_bytes(archive.finish())
    config["boot-source"]["initrd_append_path"] = str(path)
    config["entropy"] = {}
    machine = boot("echo guest: $(cat /hull/word); "
                   "echo guest: $(cat /sys/class/misc/hw_random/rng_current) $(head -c 64 /dev/hwrng | wc -c); poweroff -f",
                   ["virtio_mmio", "virtio_rng"])
    machine.wait_for("guest: appended")
    machine.wait_for("guest: virtio_rng.0 64")
    assert machine.wait() == 0


# Devices.

DRIVE_MODULES = ["virtio_mmio", "virtio_blk"]


@pytest.mark.kvm
def test_drives_are_where_the_guest_looks_for_them(boot, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drives")
    for name in ("data", "system", "extra"):
        (folder / name).write_bytes(name.encode().ljust(1 << 20, b"\0"))
    config["drives"] = [
        {"drive_id": "data", "path_on_host": str(folder / "data"), "is_root_device": False},
        {"drive_id": "system", "path_on_host": str(folder / "system"), "is_root_device": True, "is_read_only": True},
        {"drive_id": "extra", "path_on_host": str(folder / "extra"), "is_root_device": False, "io_engine": "Sync",
         "cache_type": "Unsafe"},
    ]
    machine = boot("""cd /sys/block; for d in vda vdb vdc; do echo guest: $d $(cat $d/serial) $(cat $d/ro) $(head -c 6 /dev/$d); done
        cat /proc/cmdline; printf written | dd of=/dev/vdb conv=notrunc,fsync; printf written > /dev/vda || echo guest: refused
        echo guest: done; poweroff -f""", DRIVE_MODULES)
    machine.wait_for("guest: done")
    for line in ("guest: vda system 1 system", "guest: vdb data 0 data", "guest: vdc extra 0 extra", "guest: refused",
                 "root=/dev/vda ro"):
        assert line in machine.console
    assert machine.wait() == 0
    assert (folder / "data").read_bytes().startswith(b"written")
    assert (folder / "system").read_bytes().startswith(b"system")


@pytest.mark.kvm
def test_the_vsock_socket_is_there_while_the_machine_is(boot, config, tmp_path):
    path = tmp_path / "vsock.sock"
    config["vsock"] = {"guest_cid": 3, "uds_path": str(path)}
    machine = boot("echo guest: ready; read line; poweroff -f")
    machine.wait_for("guest: ready")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    machine.send("\n")
    assert machine.wait() == 0  # which looks for what was left, the socket for one


# Refusals: one line that names the field, exit status 1, a record that says the same, nothing left behind.


def refused(machine, field, reason):
    assert machine.wait(timeout=30) == 1
    assert machine.log == f"hull-vmm: {field}: {machine.status['message']}\n"
    assert machine.status["cause"] == "error" and machine.status["exit_status"] is None
    assert machine.status["field"] == field
    assert reason in machine.status["message"]


def changed(config, path, value):
    """A copy of `config` in which the value at `path` is another; None takes it away."""
    config = copy.deepcopy(config)
    place = config
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(key, str) else place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return config


DRIVE = {"drive_id": "root", "path_on_host": "/dev/null", "is_root_device": False}
NET = {"iface_id": "eth0", "host_dev_name": "tap0"}


@pytest.mark.parametrize("path, value, field, reason", [
    (["machine-config", "vcpu_count"], 0, "machine-config.vcpu_count", "must be 1 to 32, not 0"),
    (["machine-config", "vcpu_count"], 10000, "machine-config.vcpu_count", "must be 1 to 32, not 10000"),
    (["machine-config", "vcpu_count"], None, "machine-config.vcpu_count", "required"),
    (["machine-config", "vcpu_count"], "two", "machine-config.vcpu_count", "integer"),
    (["machine-config", "mem_size_mib"], 1, "machine-config.mem_size_mib", "must be 16 to"),
    (["machine-config", "mem_size_mib"], 1 << 30, "machine-config.mem_size_mib", "not 1073741824"),
    (["machine-config", "vcpu_cout"], 1, "machine-config.vcpu_cout", 'did you mean "vcpu_count"?'),
    (["machine-config", "cpu_template"], "T2", "machine-config.cpu_template", "there is None only"),
    (["machine-config", "cpu_template"], "none", "machine-config.cpu_template", 'must be None, not "none"'),
    (["machine-config", "gdb_socket_path"], "", "machine-config.gdb_socket_path", "must not be empty"),
    (["machine-config", "track_dirty_pages"], True, "machine-config.track_dirty_pages", "not supported yet"),
    (["boot-source", "boot_args"], "x" * 2048, "boot-source.boot_args", "at most 2047 bytes"),
    (["boot-source", "kernel_image_path"], None, "boot-source.kernel_image_path", "required"),
    (["boot-source"], None, "boot-source", "required"),
    (["drive"], [], "drive", 'did you mean "drives"?'),
    (["colour"], "blue", "colour", "unknown field"),
    (["balloon"], {"amount_mib": 1}, "balloon.deflate_on_oom", "required"),
    (["mmds-config"], {}, "mmds-config.network_interfaces", "required"),
    (["mmds-config"], {"network_interfaces": ["eth0"]}, "mmds-config.network_interfaces", 'names "eth0"'),
    (["pmem"], [{"id": "a"}], "pmem[0].path_on_host", "required"),
    (["memory-hotplug"], {"total_size_mib": 100}, "memory-hotplug.total_size_mib", "multiple of slot_size_mib"),
    (["cpu-config"], [], "cpu-config", "must be an object"),
    (["cpu-config"], "/missing", "cpu-config", "/missing: No such file"),
    (["cpu-config"], {"msr_modifiers": [{"addr": "x", "bitmap": "0b1"}]}, "cpu-config.msr_modifiers[0].addr", "number of 32 bits"),
    (["metrics"], {}, "metrics.metrics_path", "required"),
    (["metrics"], {"metrics_path": "/tmp/m", "properties": {"a": 1}}, "metrics.properties.a", "string"),
    (["metrics"], {"metrics_path": "/tmp"}, "metrics.metrics_path", "Is a directory"),
    (["drives"], [DRIVE, DRIVE], "drives[1].drive_id", "taken by drives[0]"),
    (["drives"], [dict(DRIVE, drive_id="a b")], "drives[0].drive_id", "letters, digits and '_'"),
    (["drives"], [dict(DRIVE, rate_limiter={"ops": {"size": 1}})], "drives[0].rate_limiter.ops.refill_time", "required"),
    (["drives"], [dict(DRIVE, rate_limiter={"bandwidth": {"size": -1, "refill_time": 1}})],
     "drives[0].rate_limiter.bandwidth.size", "must be 0 to"),
    (["network-interfaces"], [dict(NET, guest_mac="06:00:00:00:00")], "network-interfaces[0].guest_mac", "six bytes"),
    (["network-interfaces"], [dict(NET, stream_socket_path="/s")], "network-interfaces[0].stream_socket_path", "together"),
    (["vsock"], {"guest_cid": 2, "uds_path": "/s"}, "vsock.guest_cid", "must be 3 to"),
    (["logger"], {"level": "loud"}, "logger.level", "must be one of"),
])
def test_a_wrong_configuration_is_refused(vmm, config, path, value, field, reason):
    refused(vmm(changed(config, path, value)), field, reason)


@pytest.mark.parametrize("text, reason", [("{", "line 1"), ("", "line 1"), ("[]", "must be an object"), ("{}{}", "line 1"),
                                          ('{"a":1,"a":2}', "duplicate"), ("\0", "line 1"), ("[" * 5000, "JSON"),
                                          pytest.param('{"a":"' + "x" * (1 << 20) + '"}', "has more than 1048576 bytes", id="1 MiB")])
def test_a_file_that_is_no_configuration_is_refused(vmm, text, reason):
    refused(vmm(text), "--config-file", reason)


@pytest.mark.parametrize("arguments, line", [
    ([], "--api-sock: is required, or --no-api with --config-file or --restore"),
    (["--config-file", "x"], "--api-sock: is required, or --no-api with --config-file or --restore"),
    (["--no-api"], "--config-file: is required with --no-api, or --restore"),
    (["--no-api", "--config-file", "x", "--api-sock", "y"], "--no-api: and --api-sock exclude one another"),
    (["--seccomp-filter", "x"], "--seccomp-filter: filters compiled for Firecracker fit no other program"),
    (["--http-api-max-payload-size", "0"], '--http-api-max-payload-size: must be from 1 to 67108864 bytes, not "0"'),
    (["--config-file"], "--config-file: needs a value"),
    (["--config-fill", "x"], "--config-fill: unknown option; did you mean --config-file?"),
    (["--status-fd", "99"], "--status-fd: descriptor 99 is not open"),
    (["--status-fd", "0"], "--status-fd: descriptor 0 is not open for writing"),
    (["--log-fd", "1x"], '--log-fd: must be a descriptor\'s number, not "1x"'),
    (["--id", "a/b"], "--id: may hold letters, digits, '-' and '_' only"),
    (["--no-api=yes"], "--no-api: takes no value"),
])
def test_a_wrong_command_line_is_refused(arguments, line):
    done = subprocess.run([BUILD / "hull-vmm", *arguments], stdin=open("/dev/null"), capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"hull-vmm: {line}\n")


@pytest.mark.parametrize("hide, reason", [("mount -t tmpfs none /dev", "kvmhost"),
                                          ("mount -t tmpfs none /dev && touch /dev/kvm", "is not KVM")], ids=["none", "no-device"])
def test_a_host_without_kvm_is_told_what_to_do(vmm, config, hide, reason):
    wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{hide} && exec "$@"', "sh"]
    refused(vmm(config, wrapper=wrapper), "/dev/kvm", reason)


@pytest.mark.kvm
@pytest.mark.parametrize("form, content, reason", [
    ("kernel", b"", "is empty"), ("kernel", b"no kernel" * 1000, "is neither"), ("kernel", 0.5, "is cut off"),
    ("kernel", 4096, "is cut off"), ("kernel", 600, "is "), ("vmlinux", 0.5, "is cut off"), ("vmlinux", 64, "is cut off"),
    ("vmlinux", 10, "is cut off"), ("vmlinux", 3, "is too short")],
                         ids=["empty", "text", "half", "header", "half-header", "elf-half", "elf-header", "elf-begun", "elf-magic"])
def test_a_kernel_that_is_none_is_refused(vmm, config, request, tmp_path_factory, form, content, reason):
    whole = request.getfixturevalue(form).read_bytes()
    path = tmp_path_factory.mktemp("kernel") / "kernel"
    path.write_bytes(content if isinstance(content, bytes) else whole[:int(content if content > 1 else len(whole) * content)])
    config["boot-source"]["kernel_image_path"] = str(path)
    refused(vmm(config), "boot-source.kernel_image_path", reason)


@pytest.mark.kvm
@pytest.mark.parametrize("key", ["kernel_image_path", "initrd_path", "initrd_append_path"])
@pytest.mark.parametrize("path, reason", [("/nonexistent", "No such file"), ("/dev", "not a regular file"),
                                          ("/dev/zero", "not a regular file")])
def test_a_boot_file_that_cannot_be_read_is_refused(vmm, config, key, path, reason):
    config["boot-source"][key] = path
    refused(vmm(config), f"boot-source.{key}", reason)


@pytest.mark.kvm
@pytest.mark.parametrize("content, reason", [(None, "No such file"), (b"", "empty")])
def test_a_drive_that_cannot_be_used_is_refused(vmm, config, tmp_path_factory, content, reason):
    folder = tmp_path_factory.mktemp("drives")
    (folder / "good").write_bytes(b"\0" * 4096)
    if content is not None:
        (folder / "bad").write_bytes(content)
    config["drives"] = [{"drive_id": name, "path_on_host": str(folder / name), "is_root_device": name == "bad"}
                        for name in ("good", "bad")]
    refused(vmm(config), "drives[1].path_on_host", reason)


@pytest.mark.kvm
def test_nothing_is_left_when_a_later_step_fails(vmm, config, tmp_path):
    config["vsock"] = {"guest_cid": 3, "uds_path": str(tmp_path / "vsock.sock")}
    config["boot-source"]["kernel_image_path"] = "/nonexistent"
    refused(vmm(config), "boot-source.kernel_image_path", "No such file")


@pytest.mark.kvm
def test_too_little_memory_for_the_kernel_is_refused(vmm, config):
    config["machine-config"]["mem_size_mib"] = 16
    machine = vmm(config)
    assert machine.wait() == 1
    assert machine.status["field"] in ("machine-config.mem_size_mib", "boot-source.kernel_image_path")
    assert machine.log.count("\n") == 1


@pytest.mark.kvm
def test_more_memory_than_the_processor_addresses_is_refused(vmm, config):
    config["machine-config"]["mem_size_mib"] = 8 << 20
    refused(vmm(config), "machine-config.mem_size_mib", "")
