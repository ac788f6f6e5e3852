"""What benches/footprint makes of /proc, and its smallest run. No figure is looked at but for being one."""
import re
import subprocess

import pytest

from conftest import TOP


BENCH = "footprint"


def mapping(begin, kib, private=0, shared=0, inode="00:00 0"):
    return (f"{begin:x}-{begin + (kib << 10):x} rw-p 00000000 {inode}      /some/where\nSize:     {kib} kB\nKernelPageSize:   4 kB\n"
            f"Shared_Clean:  {shared} kB\nShared_Dirty:  1 kB\nPrivate_Clean:  2 kB\nPrivate_Dirty:  {private} kB\nVmFlags: rd wr\n")


RAM = mapping(0x7000000, 2048, 30) + mapping(0x7200000, 129024, 100)


def test_advice_on_a_part_of_the_memory_leaves_it_one(bench):
    own = mapping(0x1000, 8, 10, 20, "fe:00 7") + mapping(0x3000, 16, 5)
    assert bench.memory(own + RAM, 128) == (2 + 10 + 2 + 5, 20 + 1 + 1, 30 + 100 + 4 + 2)


def test_what_is_the_kernels_file_in_the_middle_of_it_is_shared(bench):
    code = mapping(0x9000000, 1024, 40, 300, "fe:00 9")
    ram = mapping(0x7000000, 32768, 100) + code + mapping(0x9100000, (96 << 10) - 1024, 50)
    assert bench.memory(mapping(0x1000, 8, 10) + ram, 128) == (2 + 10, 1 + 300 + 1, 100 + 40 + 50 + 3 * 2 + 2)


def test_memory_beside_that_is_of_a_file_is_not_the_guests(bench):
    assert bench.memory(RAM + mapping(0xf000000, 400, 7, 0, "fe:00 7"), 128)[0] == 9


@pytest.mark.parametrize("smaps", [mapping(0x1000, 8), mapping(0x1000, 140 << 10)])
def test_a_process_without_a_guests_memory_has_no_figures(bench, smaps):
    with pytest.raises(RuntimeError, match="no mapping is as large as 128 MiB"):
        bench.memory(smaps, 128)


def test_vcpus_are_told_from_the_rest_and_new_threads_count_whole(bench):
    before = {("1", "hull-vmm"): 10, ("2", "vcpu 0"): 100}
    after = {("1", "hull-vmm"): 30, ("2", "vcpu 0"): 150, ("3", "blk 0"): 4}
    assert bench.rates(before, after, 10) == (2.4, 5)
    assert bench.is_vcpu("CPU 0/KVM") and bench.is_vcpu("kvm-vcpu-0") and not bench.is_vcpu("qemu-system-x86")


def test_nothing_has_no_spread(bench):
    reading = dict.fromkeys(bench.COLUMNS, 0) | {"private": 100}
    head, line = bench.show({"Hull": [reading] * 2})
    assert head.split() == list(bench.COLUMNS) and line.split() == ["Hull", "100", "±0.0%", *["0.00"] * 5]


def test_the_smallest_run(tmp_path):
    done = subprocess.run([TOP / "benches/footprint", "-m", "Hull", "-r", "1", "-s", "1"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Hull(  +[\d,.]+( ±0\.0%)?){6}$", done.stdout, re.MULTILINE), done.stdout
