#!/usr/bin/python3
"""Cuts the ELF kernel out of a bzImage: extract_vmlinux.py BZIMAGE VMLINUX

The setup header says where the compressed payload lies (Documentation/arch/x86/boot.rst, payload_offset and
payload_length). The build appends the uncompressed size, four bytes, to what the compressor wrote.
"""

import struct
import subprocess
import sys

DECOMPRESSORS = {
    b"\x28\xb5\x2f\xfd": ["zstd", "-dc"],
    b"\x1f\x8b\x08": ["gzip", "-dc"],
    b"\xfd7zXZ\x00": ["xz", "-dc"],
    b"\x02\x21\x4c\x18": ["lz4", "-dc"],
}


def payload(image):
    if image[0x202:0x206] != b"HdrS":
        raise ValueError("not a bzImage")
    setup_sects = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sects + 1) * 512 + offset
    if not length or start + length > len(image):
        raise ValueError("the payload lies beyond the end of the file")
    return image[start : start + length - 4]


def decompress(data):
    for magic, command in DECOMPRESSORS.items():
        if data.startswith(magic):
            return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    raise ValueError("unknown compression, first bytes %s" % data[:4].hex())


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    try:
        with open(sys.argv[1], "rb") as f:
            kernel = decompress(payload(f.read()))
    except (OSError, ValueError, subprocess.CalledProcessError) as e:
        sys.exit("extract_vmlinux.py: %s: %s" % (sys.argv[1], e))
    if not kernel.startswith(b"\x7fELF"):
        sys.exit("extract_vmlinux.py: %s: what was packed is no ELF file" % sys.argv[1])
    with open(sys.argv[2], "wb") as f:
        f.write(kernel)


if __name__ == "__main__":
    main()
