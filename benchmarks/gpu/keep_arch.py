"""Makes a CUDA library small: python keep_arch.py IN.so OUT.so 90

Blanks the code of all GPUs but one in the fat binaries of a library, which then compresses to a
fraction. Fat binaries for that GPU alone are blanked too: in ONNX Runtime they are kernels of
language models, which are larger than all else.
"""

import struct
import sys
from pathlib import Path

HEADER, ENTRY = "<IHHQ", "<HHIQIIHHI"
MAGIC = 0xBA55ED50


def sections(data: bytearray) -> list[tuple[int, int]]:
    """Offset and size of the sections that hold fat binaries."""
    table = struct.unpack_from("<Q", data, 0x28)[0]
    size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    names = headers[names_index][4]
    found = []
    for header in headers:
        start = names + header[0]
        if bytes(data[start : data.index(0, start)]) == b".nv_fatbin":
            found.append((header[4], header[5]))
    return found


def blank_others(data: bytearray, kept_arch: int) -> tuple[int, int]:
    """Bytes of code that were kept and blanked."""
    kept = blanked = 0
    for offset, size in sections(data):
        place = offset
        while place < offset + size - 16:
            magic, _, header_size, content = struct.unpack_from(HEADER, data, place)
            if magic != MAGIC:
                place += 8
                continue
            entry, end = place + header_size, place + header_size + content
            codes = []
            while entry < end:
                fields = struct.unpack_from(ENTRY, data, entry)
                if not fields[2]:
                    break
                codes.append((fields[8], entry + fields[2], fields[3]))
                entry += fields[2] + fields[3]
            several = {arch for arch, _, _ in codes} != {kept_arch}
            for arch, start, length in codes:
                if arch == kept_arch and several:
                    kept += length
                else:
                    data[start : start + length] = bytes(length)
                    blanked += length
            place = (end + 7) & ~7
    return kept, blanked


if __name__ == "__main__":
    content = bytearray(Path(sys.argv[1]).read_bytes())
    print("kept {} bytes of code, blanked {}".format(*blank_others(content, int(sys.argv[3]))))
    Path(sys.argv[2]).write_bytes(content)
