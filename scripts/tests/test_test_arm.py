"""What test-arm chooses and counts, without an emulator.

    python -m unittest discover -s scripts/tests
"""

import shutil
import subprocess
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import needs  # noqa: F401 (makes the scripts importable)

SCRIPTS = Path(__file__).parents[1]
loader = SourceFileLoader("test_arm", str(SCRIPTS / "test-arm"))
test_arm = module_from_spec(spec_from_loader("test_arm", loader))
loader.exec_module(test_arm)


class Plan(unittest.TestCase):
    def test_every_core_runs_kernels_and_numbers_and_two_run_pictures(self):
        for core in test_arm.CORES:
            names = [name for name, _, _ in test_arm.plan(core, False)]
            pictures = ["pictures"] if core in ("cortex-a53", "max") else []
            self.assertEqual(names, ["kernels", "noise and schedules", *pictures], core)

    def test_everything_leaves_no_test_out(self):
        chosen = {program: filters for _, program, filters in test_arm.plan("cortex-a72", True)}
        self.assertEqual(chosen, {"lib": (), "it": ()})

    def test_every_test_that_is_named_is_there(self):
        for path in (*test_arm.NUMBERS, *test_arm.PICTURES):
            module, test = path.split("::")
            text = (SCRIPTS.parent / f"tests/it/{module}.rs").read_text()
            self.assertIn(f"#[test]\nfn {test}()", text, path)


@unittest.skipIf(shutil.which("cargo") is None, "not installed: cargo")
class Crates(unittest.TestCase):
    def test_tests_and_program_are_built_of_the_same_crates(self):
        """A feature more that a test asks for would build all that stands on it twice, the program included."""

        def crates(edges):
            command = ("cargo", "tree", "--locked", "--edges", edges, "--prefix", "none", "--format", "{p} {f}", "--target")
            tree = subprocess.run((*command, "aarch64-unknown-linux-gnu"), cwd=SCRIPTS.parent, capture_output=True, text=True, check=True)
            return {line.removesuffix(" (*)") for line in tree.stdout.splitlines()}

        self.assertEqual(crates("normal,build") - crates("normal,build,dev"), set())


class Passed(unittest.TestCase):
    def test_the_tests_of_a_program_are_counted(self):
        output = "running 3 tests\n...\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out\n"
        self.assertEqual(test_arm.passed(output), 3)
        self.assertEqual(test_arm.passed(output.replace("ok. 3", "FAILED. 2")), 0)


if __name__ == "__main__":
    unittest.main()
