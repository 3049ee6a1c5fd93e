"""The committed golden numbers are what golden.py writes today.

    python -m unittest discover -s scripts/tests
"""

import json
import math
import tempfile
import unittest
import warnings
from pathlib import Path

from needs import NUMBERS, SCRIPTS, needs

COMMITTED = SCRIPTS.parent / "tests" / "golden"


def differences(old, new, place="", relative=1e-9):
    """Where two JSON values differ: paths as text. What diffusers computed may change in its last float32 bits."""
    if isinstance(old, dict) and isinstance(new, dict):
        relative = 1e-6 if old.get("source") == "diffusers" else relative
        for key in sorted(old.keys() | new.keys()):
            if key not in old or key not in new:
                yield f"{place}.{key}"
            elif key != "tolerance":
                yield from differences(old[key], new[key], f"{place}.{key}", relative)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{place}: {len(old)} and {len(new)} values"
        for index, (one, other) in enumerate(zip(old, new)):
            yield from differences(one, other, f"{place}[{index}]", relative)
    elif isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=relative, abs_tol=1e-12):
            yield f"{place}: {old} and {new}"
    elif old != new:
        yield f"{place}: {old} and {new}"


@needs((*NUMBERS, "torch", "diffusers"))
class Golden(unittest.TestCase):
    def test_the_committed_files_are_what_golden_writes(self):
        import golden

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            golden.main(["--out", folder])
            written = sorted(path.name for path in Path(folder).iterdir())
            self.assertEqual(written, sorted(path.name for path in COMMITTED.glob("*.json")))
            for name in written:
                with self.subTest(name):
                    old, new = (json.loads((where / name).read_text()) for where in (COMMITTED, Path(folder)))
                    self.assertEqual(list(differences(old, new))[:5], [])


class Differences(unittest.TestCase):
    """The comparison itself would notice."""

    def test_a_changed_number_is_found(self):
        self.assertEqual(list(differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.0]})), [])
        self.assertEqual(list(differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.1]})), [".a[1]: 2.0 and 2.1"])

    def test_a_missing_row_is_found(self):
        self.assertEqual(list(differences([1, 2], [1])), [": 2 and 1 values"])
        self.assertEqual(list(differences({"a": 1}, {})), [".a"])


if __name__ == "__main__":
    unittest.main()
