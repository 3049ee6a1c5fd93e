"""What the machine is called that something was measured on."""

import platform
import tempfile
import unittest
from pathlib import Path

import needs  # noqa: F401 (makes the scripts importable)

import hardware


class Processor(unittest.TestCase):
    def of(self, text):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            return hardware.processor(Path(file.name))

    def test_machines_of_one_name_are_told_apart_by_their_vectors(self):
        name = "model name\t: AMD EPYC\n"
        self.assertEqual(self.of(f"{name}flags\t: fpu avx2 bmi2\n" * 2), "AMD EPYC (avx2)")
        self.assertEqual(self.of(f"{name}flags\t: avx512_vnni fpu avx2 avx512f\n"), "AMD EPYC (avx2, avx512f, avx512_vnni)")
        self.assertEqual(self.of(f"{name}flags\t: fpu avx\n"), "AMD EPYC")

    def test_a_board_without_a_name_has_its_architecture(self):
        told = self.of("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
        self.assertEqual(told, f"{platform.processor() or platform.machine()} (asimd, asimddp)")
        self.assertTrue(hardware.processor(Path("/nowhere")))


if __name__ == "__main__":
    unittest.main()
