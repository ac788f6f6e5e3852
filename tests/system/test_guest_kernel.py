"""The tuned guest kernel: how it is built (of a source that is no kernel's, which takes no minutes), and what it can do."""
import os
import re
import struct
import subprocess
import textwrap
from pathlib import Path

import pytest

from conftest import TOP
from hulld_fixtures import Hulld, make_erofs
from test_cpu import leaf
from test_exec import execute, ran

BUILDER = TOP / "guest-kernel" / "build-kernel"
RELEASE = "6.12.117-hull"

# What of a kernel's source build-kernel changes; vmlinuz shows what was made of it.
SOURCE = {
    "arch/x86/kernel/alternative.c": textwrap.dedent("""\
        #include <asm/set_memory.h>
        static int skip_nops(u8 *buf, int offset, int len)
        {
        \tfor (; offset < len; offset += insn.length) {
        }
        static int noreplace_smp;
        void __init alternative_instructions(void)
        {
        \tapply_retpolines(__retpoline_sites, __retpoline_sites_end);
        \tapply_returns(__return_sites, __return_sites_end);
        \tapply_alternatives(__alt_instructions, __alt_instructions_end);
        }
        void __init_or_module text_poke_early(void *addr, const void *opcode,
        {
        \tunsigned long flags;
        }
        \tunsigned long flags;
        """),
    "arch/x86/lib/retpoline.S": '\t\t      __stringify(ANNOTATE_RETPOLINE_SAFE; jmp *%\\reg), ALT_NOT(X86_FEATURE_RETPOLINE)\n'
                                '\t\t   "jmp warn_thunk_thunk", X86_FEATURE_ALWAYS\n',
    "arch/x86/Kconfig": "config PARAVIRT_SPINLOCKS\n\tdepends on PARAVIRT && SMP\n\tdepends on another\n",
    "kernel/Kconfig.locks": "config INLINE_SPIN_UNLOCK_IRQ\n\tdepends on !PREEMPTION\n\n\tdepends on another\n",
    "arch/x86/include/asm/runtime-const.h": "0x0123456789abcdefull\n\t*(unsigned long *)where = val;\n",
    "arch/x86/platform/pvh/head.S": "\tELFNOTE(Xen, XEN_ELFNOTE_PHYS32_ENTRY)\n",
    "arch/x86/kernel/apic/io_apic.c": textwrap.dedent("""\
        static void clear_IO_APIC_pin(unsigned int apic, unsigned int pin)
        {
        \tif (entry.delivery_mode == APIC_DELIVERY_MODE_SMI)
        \t\treturn;
        }
        \tif (entry.delivery_mode == APIC_DELIVERY_MODE_SMI)
        """),
    "arch/x86/kernel/vmlinux.lds.S": textwrap.dedent("""\
        #define ALIGN_ENTRY_TEXT_BEGIN
        \t\tALIGN_ENTRY_TEXT_BEGIN
        #define BSS_DECRYPTED
        \t\tBSS_DECRYPTED
        """),
    "drivers/net/dummy.c": "static int numdummies = 1;\n",
    "include/uapi/linux/vt.h": "#define MAX_NR_CONSOLES\t63\t/* serial lines start at 64 */\n",
    "kernel/jump_label.c": textwrap.dedent("""\
        jump_label_sort_entries(struct jump_entry *start, struct jump_entry *stop)
        {
        \tsize = 1;
        }
        \tsize = 1;
        """),
    "kernel/params.c": textwrap.dedent("""\
        kernel_add_sysfs_param()
        \tif (mk->mp)
        \t\tsysfs_remove_group(&mk->kobj, &mk->mp->grp);
        \terr = sysfs_create_group(&mk->kobj, &mk->mp->grp);
        \tfor (;;) {
        \t\tkernel_add_sysfs_param(modname, kp, name_len);
        \t}
        """),
    "lib/kobject_uevent.c": "\t/* skip the event, if the filter returns zero. */\n",
    "mm/slab.h": "#if defined(CONFIG_SYSFS) && !defined(CONFIG_SLUB_TINY)\n#endif\n",
    "scripts/link-vmlinux.sh": "\tif ! sorttable vmlinux; then\n"}
QUICK = textwrap.dedent("""\
    #include <asm/set_memory.h>
    #include "quick_decode.inc"
    static int skip_nops(u8 *buf, int offset, int len)
    {
    \twhile (offset < len && buf[offset] == BYTES_NOP1)
    \t\toffset++;
    \tfor (; offset < len; offset += insn.length) {
    }
    static int noreplace_smp = 1;
    #include "patch_thunks.inc"

    void __init alternative_instructions(void)
    {
    \tapply_alternatives(__alt_instructions, __alt_instructions_end);
    \tpatch_return_thunk();
    \tpatch_indirect_thunks();
    }
    void __init_or_module text_poke_early(void *addr, const void *opcode,
    {
    \tunsigned long flags;

    \tif (!memcmp(addr, opcode, len))
    \t\treturn;
    }
    \tunsigned long flags;
    \t\t      __stringify(ANNOTATE_RETPOLINE_SAFE; jmp *%\\reg; int3), ALT_NOT(X86_FEATURE_RETPOLINE)
    \t\t   "jmp warn_thunk_thunk", ALT_NOT(X86_FEATURE_ALWAYS)
    config PARAVIRT_SPINLOCKS
    \tselect UNINLINE_SPIN_UNLOCK
    \tdepends on PARAVIRT && SMP
    \tdepends on another
    config INLINE_SPIN_UNLOCK_IRQ
    \tdepends on !PREEMPTION
    \tdepends on !UNINLINE_SPIN_UNLOCK

    \tdepends on another
    0x00007ffffffff000ull
    \tif (*(unsigned long *)where != val)
    \t\t*(unsigned long *)where = val;
    \tELFNOTE(Xen, XEN_ELFNOTE_PHYS32_ENTRY)
    \tELFNOTE(Hull, 1, .long 1)
    static void clear_IO_APIC_pin(unsigned int apic, unsigned int pin)
    {
    \tif (entry.delivery_mode == APIC_DELIVERY_MODE_SMI || (entry.w1 == 0x10000 && !entry.w2))
    \t\treturn;
    }
    \tif (entry.delivery_mode == APIC_DELIVERY_MODE_SMI)
    #define ALIGN_ENTRY_TEXT_BEGIN
    \t\tFILL(0)
    \t\tALIGN_ENTRY_TEXT_BEGIN
    #define BSS_DECRYPTED
    #ifdef CONFIG_AMD_MEM_ENCRYPT
    \t\tBSS_DECRYPTED
    #endif
    static int numdummies;
    #define MAX_NR_CONSOLES\t1\t/* serial lines start at 64 */
    jump_label_sort_entries(struct jump_entry *start, struct jump_entry *stop)
    {
    \tfor (struct jump_entry *at = start;; at++) {
    \t\tif (at + 1 >= stop)
    \t\t\treturn;
    \t\tif (jump_label_cmp(at, at + 1) > 0)
    \t\t\tbreak;
    \t}
    \tsize = 1;
    }
    \tsize = 1;
    kernel_add_sysfs_param()
    \tif (mk->mp)
    \t\t(void)0;
    \tfor (;;) {
    \t\tkernel_add_sysfs_param(modname, kp, name_len);
    \t}
    \t{
    \t\tstruct kobject *kobj;

    \t\tlist_for_each_entry(kobj, &module_kset->list, entry)
    \t\t\tif (to_module_kobject(kobj)->mp)
    \t\t\t\tBUG_ON(sysfs_create_group(kobj, &to_module_kobject(kobj)->mp->grp));
    \t}
    \tif (system_state < SYSTEM_FREEING_INITMEM) {
    \t\tkobj->state_add_uevent_sent |= action == KOBJ_ADD;
    \t\treturn 0;
    \t}
    \t/* skip the event, if the filter returns zero. */
    #if 0
    #endif
    \tif ! { sorttable vmlinux && "$SORT_JUMP_LABELS" vmlinux; }; then
    """)

# A source package's Makefile that does what build-kernel asks of a kernel's, and tells of it in $BUILT.
MAKEFILE = textwrap.dedent(f"""\
    allnoconfig:
    \tgrep -v CONFIG_UNKNOWN $(KCONFIG_ALLCONFIG) > $(O)/.config
    \t! grep -q CONFIG_NEWER $(O)/.config || echo '# CONFIG_MITIGATION_NEW is not set' >> $(O)/.config
    bzImage:
    \techo built >> $(BUILT)
    \t! grep -q CONFIG_BROKEN $(O)/.config
    \tmkdir -p $(O)/include/config $(O)/arch/x86/boot
    \techo {RELEASE} > $(O)/include/config/kernel.release
    \techo the kernel of $(KBUILD_BUILD_USER) > $(O)/vmlinux
    \tcat {' '.join(SOURCE)} > $(O)/arch/x86/boot/bzImage
    \techo kernel/drivers/virtio/virtio_mmio.ko > $(O)/modules.builtin
    \t: > $(O)/modules.builtin.modinfo
    """)

APT_CACHE = '#!/bin/sh\n[ "${4:-$3}" = linux-source-6.12 ] && echo "Version: 6.12.117-1"\n'
APT_GET = '#!/bin/sh\n[ -e "$PACKAGE" ] && cp "$PACKAGE" .\n'


def make_package(folder, files):
    for name, text in {"Makefile": MAKEFILE, **files}.items():
        path = folder / "linux-source-6.12" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "tree/usr/src").mkdir(parents=True)
    (folder / "tree/DEBIAN").mkdir()
    (folder / "tree/DEBIAN/control").write_text("Package: linux-source-6.12\nVersion: 6.12.117-1\nArchitecture: all\n"
                                                "Maintainer: nobody\nDescription: none\n")
    subprocess.run(["tar", "-cJf", "tree/usr/src/linux-source-6.12.tar.xz", "linux-source-6.12"], cwd=folder, check=True)
    subprocess.run(["dpkg-deb", "-b", "tree", "source.deb"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "source.deb"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The package."""
    return make_package(tmp_path_factory.mktemp("source"), SOURCE)


class Builder:
    def __init__(self, folder, source):
        self.folder, self.cache, self.output, self.built = folder, folder / "cache", folder / "out", folder / "built"
        (folder / "bin").mkdir()
        for name, script in (("apt-cache", APT_CACHE), ("apt-get", APT_GET), ("flex", "#!/bin/sh\n"), ("bison", "#!/bin/sh\n"),
                             ("bc", "#!/bin/sh\n"), ("gcc", "#!/bin/sh\n[ \"$1\" != -E ] || cat >/dev/null; echo gcc 12\n")):
            (folder / "bin" / name).write_text(script)
            (folder / "bin" / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PACKAGE": str(source),
                            "BUILT": str(self.built)}

    def __call__(self, *arguments):
        return subprocess.run([BUILDER, "--cache", self.cache, "--output", self.output, *arguments], env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def addition(self, *lines):
        path = self.folder / "addition.config"
        path.write_text("\n".join(lines) + "\n")
        return path

    def builds(self):
        return len(self.built.read_text().splitlines()) if self.built.exists() else 0

    def entries(self):
        return sorted(path.name for path in self.cache.iterdir() if path.is_dir())


@pytest.fixture
def builder(tmp_path, source):
    return Builder(tmp_path, source)


def test_it_is_built_once_of_equal_input(builder):
    for _ in range(2):
        result = builder()
        assert result.returncode == 0, result.stderr
        assert (builder.output / "vmlinux").read_text() == "the kernel of hull\n"
        assert (builder.output / "release").read_text() == RELEASE + "\n"
    assert builder.builds() == 1
    assert (builder.output / "vmlinuz").exists()
    assert "CONFIG_IO_URING=y" in (builder.output / "config").read_text()
    assert "virtio_mmio" in (builder.output / "lib/modules" / RELEASE / "modules.builtin").read_text()
    assert (builder.output / "lib/modules" / RELEASE / "modules.dep").exists(), "make-initramfs asks for it"


def test_what_each_boot_pays_for_is_changed(builder):
    result = builder()
    assert result.returncode == 0 and "not as it was known" not in result.stderr
    assert (builder.output / "vmlinuz").read_text() == QUICK


def test_a_source_that_is_not_known_is_built_as_it_is(builder, tmp_path_factory):
    """Where the kernel asks for more of an instruction than quick_decode.inc knows, and where a line is another."""
    more = {**{name: "another\n" for name in SOURCE}, "arch/x86/kernel/alternative.c": "#include <asm/set_memory.h>\ninsn->attr;\n"}
    builder.environment["PACKAGE"] = str(make_package(tmp_path_factory.mktemp("other"), more))
    result = builder()
    assert result.returncode == 0
    times = {"arch/x86/kernel/alternative.c": 4, "arch/x86/kernel/vmlinux.lds.S": 2, "arch/x86/lib/retpoline.S": 0,
             "arch/x86/platform/pvh/head.S": 0}
    for name in SOURCE:
        told = result.stderr.count(f"build-kernel: {name} of this source is not as it was known")
        assert told == times.get(name, 1), name
    assert (builder.output / "vmlinuz").read_text() == "".join(more.values()), "and does not say that its code stays"


def test_another_configuration_is_another_kernel(builder):
    assert builder().returncode == 0
    assert builder("--config", builder.addition("# only a remark")).returncode == 0
    assert builder.builds() == 1, "a remark changes no kernel"
    assert builder("--config", builder.addition("CONFIG_NFS_FS=y", "CONFIG_HZ_250=n")).returncode == 0
    assert builder.builds() == 2
    config = (builder.output / "config").read_text().splitlines()
    assert "CONFIG_NFS_FS=y" in config and "CONFIG_HZ_250=n" in config and "CONFIG_HZ_250=y" not in config
    assert len(builder.entries()) == 2


@pytest.mark.parametrize("lines, reason", [(["CONFIG_UNKNOWN=y"], "does not come to have: CONFIG_UNKNOWN=y"),
                                           (["CONFIG_NEWER=y"], "left out: CONFIG_MITIGATION_NEW"),
                                           (["CONFIG_BROKEN=y"], "the kernel does not build")])
def test_a_kernel_that_cannot_be_built_leaves_nothing(builder, lines, reason):
    result = builder("--config", builder.addition(*lines))
    assert result.returncode == 1 and reason in result.stderr.splitlines()[-1]
    assert builder.entries() == [] and not builder.output.exists()


@pytest.mark.parametrize("unwanted", ["CONFIG_MITIGATION_NEW=n", "# CONFIG_MITIGATION_NEW is not set"])
def test_a_mitigation_is_left_out_when_that_is_said(builder, unwanted):
    assert builder("--config", builder.addition("CONFIG_NEWER=y", unwanted)).returncode == 0


def test_a_source_that_cannot_be_had_leaves_nothing(builder):
    builder.environment["PACKAGE"] = "/nonexistent"
    result = builder()
    assert result.returncode == 1 and "cannot download linux-source-6.12 6.12.117-1" in result.stderr
    assert builder.entries() == []
    result = builder("--package", "linux-source-0.1")
    assert result.returncode == 1 and "apt knows no package linux-source-0.1" in result.stderr


@pytest.mark.parametrize("arguments, status, reason", [
    (["--fast"], 2, "usage"), (["--fast", "yes"], 2, "usage"), (["--config"], 2, "usage"),
    (["--config", "/nonexistent"], 1, "--config: cannot read '/nonexistent'")])
def test_a_wrong_command_line_is_refused(builder, arguments, status, reason):
    result = builder(*arguments)
    assert result.returncode == status and reason in result.stderr
    assert subprocess.run([BUILDER], capture_output=True, text=True, stdin=subprocess.DEVNULL).returncode == 2


def test_a_tool_that_is_missing_is_named(builder):
    (builder.folder / "bin/gcc").write_text("#!/bin/sh\nexit 1\n")
    result = builder()
    assert result.returncode == 1 and "apt-get install libelf-dev" in result.stderr


# ---- its jump labels -----------------------------------------------------------------------------------------------

LABELS = [(24, 0, 8), (8, 64, 33), (40, 16, 8), (16, 48, 1), (8, 8, 32), (0, 72, 8)]  # code, target, key with its flag

# Prints the labels that it has, as it reads them when it runs.
LABELLED = """
    #include <stdint.h>
    #include <stdio.h>
    extern struct entry { int32_t code, target; int64_t key; } __start___jump_table[], __stop___jump_table[];
    extern char base[];
    asm(".pushsection .data; .balign 64; base: .skip 128; .popsection; .pushsection __jump_table, \\"aw\\"; .balign 8;" ENTRIES
        ".popsection");
    int main(void)
    {
        for (struct entry *at = __start___jump_table; at < __stop___jump_table; at++)
            printf("%td %td %td\\n", (char *)&at->code + at->code - base, (char *)&at->target + at->target - base,
                   (char *)&at->key + at->key - base);
    }
    """


@pytest.fixture(scope="module")
def sort_labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("sort") / "sort_jump_labels"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", path, TOP / "guest-kernel/sort_jump_labels.c"], check=True)
    return lambda file: subprocess.run([path, file], capture_output=True, text=True)


def make_labelled(folder, labels):
    entries = "".join(f".long base + {code} - ., base + {target} - .; .quad base + {key} - .;" for code, target, key in labels)
    (folder / "labelled.c").write_text(LABELLED.replace("ENTRIES", f'"{entries}"'))
    subprocess.run(["cc", "-o", folder / "labelled", folder / "labelled.c"], check=True)
    return folder / "labelled"


def labels_of(program):
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    return [tuple(map(int, line.split())) for line in lines]


def test_jump_labels_are_sorted_by_key_and_code(sort_labels, tmp_path):
    program = make_labelled(tmp_path, LABELS)
    assert labels_of(program) == LABELS
    for _ in range(2):  # and stay so
        assert sort_labels(program).returncode == 0
        assert labels_of(program) == sorted(LABELS, key=lambda label: (label[2] & ~3, label[0]))


def test_what_has_no_jump_labels_to_sort_is_refused(sort_labels, tmp_path):
    program = make_labelled(tmp_path, LABELS)
    whole = program.read_bytes()
    for content, reason in ((b"", "Invalid argument"), (b"text" * 100, "no ELF file of 64 bits"), (whole[:64], "beyond its end"),
                            (whole[:-200], "beyond its end"), (whole.replace(b"__start___jump", b"__start___jumb"), "no symbol __start___jump_table")):
        program.write_bytes(content)
        result = sort_labels(program)
        assert result.returncode == 1 and reason in result.stderr and len(result.stderr.splitlines()) == 1, (reason, result)
        assert program.read_bytes() == content
    result = sort_labels(tmp_path / "nonexistent")
    assert result.returncode == 1 and "No such file" in result.stderr


# ---- what it can do ------------------------------------------------------------------------------------------------

FILE_SYSTEMS = {"tmpfs", "overlay", "erofs", "ext4", "squashfs", "fuse", "virtiofs", "cgroup2", "bpf", "mqueue", "binder", "autofs"}
CONTROLLERS = {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}


@pytest.fixture(scope="session")
def deployed(tmp_path_factory):
    path = tmp_path_factory.mktemp("deployed") / "deployed"
    subprocess.run(["cc", "-static", "-O", "-o", path, TOP / "tests/system/deployed.c"], check=True)
    return path.read_bytes()


@pytest.mark.kvm
@pytest.mark.tuned
def test_what_people_deploy_is_there_in_64_mib(vmm, vmlinux, initramfs, deployed):
    """All of it on one processor and in 64 MiB, without a module."""
    script = f"""[ -e /proc/modules ] && echo guest: modules
        echo guest: file systems: $(cat /proc/filesystems)
        mkdir /tmp/cgroup; mount -t cgroup2 none /tmp/cgroup; echo guest: controllers: $(cat /tmp/cgroup/cgroup.controllers)
        echo guest: pressure: $(cat /proc/pressure/memory)
        cd /sys/module; echo guest: parameters: $(cat kernel/parameters/panic ipv6/parameters/disable_ipv6 loop/parameters/max_part); cd /
        for d in /sys/bus/virtio/drivers/*; do echo guest: driver $(basename $d); done
        for d in /sys/bus/acpi/drivers/*; do echo guest: driver $(basename $d); done
        deployed
        free -m; mount -t tmpfs -o size=24m tmpfs /mnt && head -c 20m /dev/zero > /mnt/file && echo guest: 20 MiB written
        poweroff -f"""
    config = {"boot-source": {"kernel_image_path": str(vmlinux), "boot_args": "console=ttyS0 quiet panic=-1",
                              "initrd_path": str(initramfs(script, files={"bin/deployed": deployed}))},
              "machine-config": {"vcpu_count": 1, "mem_size_mib": 64}, "entropy": {}, "balloon": {"amount_mib": 0, "deflate_on_oom": True}}
    machine = vmm(config)
    assert machine.wait() == 0
    said = machine.console
    assert "guest: 20 MiB written" in said and "guest: modules" not in said, said
    assert FILE_SYSTEMS <= set(said.partition("guest: file systems: ")[2].splitlines()[0].split()), said
    assert CONTROLLERS <= set(said.partition("guest: controllers: ")[2].splitlines()[0].split()), said
    assert "guest: pressure: some avg10=" in said
    assert "guest: parameters: -1 0 0\r\n" in said, said
    for driver in ("virtio_blk", "virtio_net", "virtio_rng", "virtio_balloon", "virtio_mem", "virtio_pmem", "virtio_console",
                   "vmw_vsock_virtio_transport", "virtiofs", "button"):
        assert f"guest: driver {driver}\r\n" in said, (driver, said)
    answers = [line for line in said.splitlines() if line.endswith(" yes") or " no: " in line]
    assert len(answers) == 23 and not [line for line in answers if " no: " in line], said


def boot_source(vmlinux, initramfs, script, **more):
    return {"boot-source": {"kernel_image_path": str(vmlinux), "boot_args": "console=ttyS0 quiet panic=-1",
                            "initrd_path": str(initramfs(script)), **more}, "machine-config": {"vcpu_count": 1, "mem_size_mib": 64}}


def mapped_at(machine, file):
    """Where the monitor has the beginning of the file's code in its memory, which is the guest's; None."""
    lines = Path(f"/proc/{machine.process.pid}/maps").read_text().splitlines()
    return next((int(line.partition("-")[0], 16) for line in lines if line.endswith(f" {file.resolve()}")), None)


@pytest.mark.kvm
@pytest.mark.tuned
def test_its_code_is_its_files_pages_but_where_memory_is_not_to_be_shared(vmm, vmlinux, initramfs):
    for boot, memory, is_mapped in (({}, {}, True), ({"private_kernel": True}, {}, False), ({}, {"memory_kind": "shared"}, False)):
        config = boot_source(vmlinux, initramfs, "echo guest: up; read answer; poweroff -f", **boot)
        config["machine-config"].update(memory)
        machine = vmm(config)
        machine.wait_for("guest: up")
        assert (mapped_at(machine, vmlinux) is not None) == is_mapped, (boot, memory)
        machine.send("go\n")
        assert machine.wait() == 0


# A processor's family and model, what Linux says of it, and where it has functions return.
ZEN_2 = (0x00830f10, "retbleed", "Mitigation: untrained return thunk", "srso_return_thunk")


@pytest.mark.kvm
@pytest.mark.tuned
def test_returns_have_the_mitigation_that_the_processor_wants(vmm, vmlinux, initramfs):
    """One thunk is patched for all of them. The processor only says that it is another: what it executes shows that the code works."""
    signature, bug, mitigation, wanted = ZEN_2
    script = f"""echo guest: "$(cat /sys/devices/system/cpu/vulnerabilities/{bug})"
        for s in _text __x86_return_thunk {wanted}; do echo guest: at $(grep -w $s /proc/kallsyms); done; read answer; poweroff -f"""
    for template, patched in ((None, False), ({"cpuid_modifiers": [leaf(1, eax=f"0b{signature:032b}")]}, True)):
        machine = vmm({**boot_source(vmlinux, initramfs, script), **({"cpu-config": template} if template else {})})
        said = machine.wait_for(r"guest: (.*)\r\n(?:guest: at (\w+) . .*\r\n){3}").group(0)
        text, thunk, target = (int(address, 16) for address in re.findall(r"at (\w+)", said))
        assert (mitigation in said) == patched, said
        with open(f"/proc/{machine.process.pid}/mem", "rb") as memory:
            memory.seek(mapped_at(machine, vmlinux) + thunk - text)
            code = memory.read(5)
        assert code == b"\xe9" + struct.pack("<i", target - thunk - 5) if patched else code[0] == 0xc3, code.hex()
        machine.send("go\n")
        assert machine.wait() == 0


@pytest.mark.kvm
@pytest.mark.tuned
def test_a_machine_with_64_mib_does_what_others_do(tmp_path_factory):
    """The least that the API gives: a program, files, statistics, a pause and an end, with the default network."""
    daemon = Hulld(tmp_path_factory.mktemp("hulld")).start()
    try:
        daemon.image("busybox", make_erofs(tmp_path_factory.mktemp("image"), {}))
        spec = {"name": "small", "image": "busybox", "command": ["sleep", "100000"], "memory_mib": 64}
        assert daemon.post("/v1/machines", {**spec, "memory_mib": 63}).json["field"] == "memory_mib"
        assert daemon.post("/v1/machines", spec).status == 201
        daemon.post("/v1/machines/small/start")
        machine = daemon.wait("small", "running,failed", 120)
        assert machine["state"] == "running", machine["cause"]
        assert ran(execute(daemon, "small", "sh", "-c", "head -c 8000000 /dev/zero > /eight; wc -c < /eight"))[0] == "8000000\n"
        assert len(daemon.get("/v1/machines/small/files?path=/eight").body) >= 8000000
        guest = daemon.get("/v1/machines/small/stats").json["guest"]
        assert guest["memory_total_bytes"] < 64 << 20 and guest["memory_available_bytes"] > 16 << 20
        assert [interface["name"] for interface in guest["interfaces"]] == ["eth0"]
        assert daemon.post("/v1/machines/small/freeze").status == daemon.post("/v1/machines/small/thaw").status == 200
        daemon.post("/v1/machines/small/stop", {"timeout_s": 60})
        assert daemon.wait("small", "stopped,failed", 120)["state"] == "stopped"
    finally:
        daemon.stop()
