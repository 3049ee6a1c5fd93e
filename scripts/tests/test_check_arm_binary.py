"""What check_arm_binary reads in a program: versions, instructions, sizes.

    python -m unittest discover -s scripts/tests
"""

import struct
import tempfile
import unittest
from pathlib import Path

import needs  # noqa: F401 (makes the scripts importable)

import check_arm_binary

SDOT = (0x4E829420, 0x4F82E020)  # sdot v0.4s, v1.16b, v2.16b and v2.4b[0]
FMLA = (0x4E420C20, 0x4F021020)  # fmla v0.8h, v1.8h, v2.8h and v2.h[0]
OTHERS = (0x4E22CC20, 0x4F821020, 0x6E829420, 0xD503201F)  # fmla v0.4s twice, udot, nop


def program(words, names):
    """An ELF file with a section of code and one of names, as little as sections() needs."""
    text, dynstr = struct.pack(f"<{len(words)}I", *words), b"\0" + b"\0".join(names) + b"\0"
    shstrtab = b"\0.text\0.dynstr\0.shstrtab\0"
    parts, offset = [(1, 6, text), (7, 2, dynstr), (15, 0, shstrtab)], 64
    headers = struct.pack("<IIQQQQIIQQ", *[0] * 10)
    for name, flags, content in parts:
        headers += struct.pack("<IIQQQQIIQQ", name, 1, flags, 0, offset, len(content), 0, 0, 1, 0)
        offset += len(content)
    start = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 0, offset, 0, 64, 0, 0, 64, 4, 3)
    return start + text + dynstr + shstrtab + headers


class Binary(unittest.TestCase):
    def test_the_instructions_are_told_from_their_neighbours(self):
        found = check_arm_binary.counts(program([*SDOT, *OTHERS, *FMLA, SDOT[0]], []))
        self.assertEqual(found, {"sdot": 3, "fp16 fmla": 2})

    def test_the_newest_version_is_the_greatest_number(self):
        names = [b"GLIBC_2.9", b"memcpy", b"GLIBC_2.17", b"GLIBC_2.4"]
        self.assertEqual(check_arm_binary.glibc(program([0], names)), (2, 17))

    def test_symbols_are_no_part_of_the_size(self):
        binary = program([0] * 100, [b"GLIBC_2.17"])
        self.assertEqual(check_arm_binary.stripped_size(binary), 64 + 400 + 12)

    def test_a_program_that_asks_for_too_much_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "program"
            file.write_bytes(program([*SDOT, *FMLA], [b"GLIBC_2.36"]))
            with self.assertRaisesRegex(SystemExit, "1 of the checks failed"):
                check_arm_binary.main(["--no-run", str(file)])
            check_arm_binary.main(["--no-run", "--glibc", "2.36", str(file)])
            file.write_bytes(b"\x7fELF\x02\x01" + bytes(100))
            with self.assertRaisesRegex(SystemExit, "expected a 64-bit Arm program"):
                check_arm_binary.main(["--no-run", str(file)])


if __name__ == "__main__":
    unittest.main()
