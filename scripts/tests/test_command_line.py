"""How the scripts speak: what --help teaches, and how wrong input ends.

    python -m unittest discover -s scripts/tests
"""

import argparse
import contextlib
import importlib
import io
import os
import subprocess
import sys
import unittest

from needs import EVERYTHING, SCRIPTS, needs

import command_line

COMMANDS = ("data", "procedural", "train", "export", "quantize", "quality", "quality_page", "neighbours", "from_diffusers", "golden", "foreign", "spellings")


class Sentences(unittest.TestCase):
    def test_a_missing_file_and_a_missing_package_are_told_in_a_sentence(self):
        told = command_line.sentence(FileNotFoundError(2, "No such file or directory", "scenes.npz"))
        self.assertEqual(told, "scenes.npz: no such file or directory")
        told = command_line.sentence(ModuleNotFoundError("No module named 'torch'", name="torch"))
        self.assertEqual(told, "the Python package torch is not installed: pip install -r scripts/requirements.txt")

    def test_a_fault_of_ours_keeps_its_traceback(self):
        for fault in (AssertionError("schedule"), KeyError("epsilon"), OSError("no name")):
            self.assertIsNone(command_line.sentence(fault))

    def test_a_script_without_its_packages_ends_in_one_line(self):
        bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [sys.executable, "-S", str(SCRIPTS / "data.py"), "--help"]
        ended = subprocess.run(command, capture_output=True, text=True, env=bare, timeout=60)
        if ended.returncode == 0:
            self.skipTest("numpy is part of this Python")
        self.assertEqual(ended.stderr, "data.py: the Python package numpy is not installed: pip install -r scripts/requirements.txt\n")

    def test_arguments_out_of_range_are_refused(self):
        cases = [
            (command_line.count, ("1", "40"), ("0", "-3", "1.5", "ten", "")),
            (command_line.seed, ("0", "7"), ("-1", "0x7")),
            (command_line.amount, ("0.5", "3"), ("0", "-1", "nan", "inf", "much")),
            (command_line.amount_or_none, ("0", "3"), ("-1", "nan", "inf", "much")),
            (command_line.share, ("0", "0.1", "1"), ("-0.1", "1.1", "nan", "half")),
        ]
        for parse, right, wrong in cases:
            for text in right:
                self.assertEqual(parse(text), float(text))
            for text in wrong:
                with self.subTest(text=text), self.assertRaisesRegex(argparse.ArgumentTypeError, f"expected .*, got '{text}'"):
                    parse(text)


class Spelled(unittest.TestCase):
    def test_a_command_is_spelled_as_it_can_be_typed_again(self):
        p = argparse.ArgumentParser(prog="any.py")
        p.add_argument("--out", required=True)
        p.add_argument("--lr", type=float, default=6e-4)
        p.add_argument("--min-snr", type=float, default=5.0)
        p.add_argument("--channels", type=lambda text: tuple(map(int, text.split(","))), default=(32, 64))
        p.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True)
        p.add_argument("--compile", action="store_true")
        typed = ["--lr", "0.0008", "--channels", "16,32", "--no-flip", "--compile"]
        args = p.parse_args(["--out", "somewhere", *typed])
        self.assertEqual(command_line.spelled(p, args, {"out"}).split(), ["scripts/any.py", *typed])
        self.assertEqual(command_line.spelled(p, p.parse_args(["--out", "x"]), set()), "scripts/any.py --out x")


@needs(EVERYTHING)
class Help(unittest.TestCase):
    def test_help_shows_the_command_line(self):
        for name in COMMANDS:
            with self.subTest(name), contextlib.redirect_stdout(io.StringIO()) as shown:
                with self.assertRaises(SystemExit) as ended:
                    importlib.import_module(name).main(["--help"])
                self.assertEqual(ended.exception.code, 0)
                self.assertIn(f"python scripts/{name}.py", shown.getvalue())

    def test_every_command_is_in_the_readme(self):
        readme = (SCRIPTS / "README.md").read_text()
        for name in COMMANDS:
            self.assertIn(f"scripts/{name}.py", readme)


if __name__ == "__main__":
    unittest.main()
