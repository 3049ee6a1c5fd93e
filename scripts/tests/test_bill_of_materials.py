"""What is counted as inside the program, and how it is written down."""

import json
import tempfile
import unittest
from pathlib import Path

import needs  # noqa: F401 (makes the scripts importable)

import bill_of_materials


def package(name, folder=Path("/nowhere"), kind="lib", licence="MIT"):
    return {
        "id": f"{name}-id",
        "name": name,
        "version": "1.2.3",
        "license": licence,
        "repository": f"https://example.org/{name}",
        "authors": [],
        "manifest_path": str(folder / name / "Cargo.toml"),
        "targets": [{"kind": [kind]}],
    }


def dependency(name, kind=None):
    return {"pkg": f"{name}-id", "dep_kinds": [{"kind": kind}]}


FOUND = {
    "packages": [
        package("driftglass", licence="MIT OR Apache-2.0"),
        package("engine", licence="MIT/Apache-2.0"),
        package("numbers"),
        package("macros", kind="proc-macro"),
        package("quoting"),
        package("compiler"),
        package("tester"),
    ],
    "resolve": {
        "root": "driftglass-id",
        "nodes": [
            {"id": "driftglass-id", "deps": [dependency("engine"), dependency("tester", "dev")]},
            {"id": "engine-id", "deps": [dependency("numbers"), dependency("macros"), dependency("compiler", "build")]},
            {"id": "numbers-id", "deps": []},
            {"id": "macros-id", "deps": [dependency("quoting")]},
        ],
    },
}


class BillOfMaterials(unittest.TestCase):
    def test_only_what_is_linked_is_inside(self):
        names = [(crate["name"], needs) for crate, needs in bill_of_materials.linked(FOUND)]
        self.assertEqual(
            names, [("driftglass", ["engine-id"]), ("engine", ["numbers-id"]), ("numbers", [])]
        )

    def test_the_bill_has_hashes_licences_and_dependencies_and_the_same_bytes(self):
        lock = {"package": [{"name": "engine", "version": "1.2.3", "checksum": "abc"}, {"name": "driftglass"}]}
        crates = bill_of_materials.linked(FOUND)
        bill = bill_of_materials.bill(crates, lock, 0)
        self.assertEqual(json.dumps(bill), json.dumps(bill_of_materials.bill(crates, lock, 0)))
        self.assertNotEqual(bill["serialNumber"], bill_of_materials.bill(crates, lock, 1)["serialNumber"])
        engine = bill["components"][0]
        self.assertEqual(engine["hashes"], [{"alg": "SHA-256", "content": "abc"}])
        self.assertEqual(engine["licenses"], [{"expression": "MIT OR Apache-2.0"}])
        self.assertEqual(bill["metadata"]["component"]["name"], "driftglass")
        self.assertIn(
            {"ref": "pkg:cargo/engine@1.2.3", "dependsOn": ["pkg:cargo/numbers@1.2.3"]}, bill["dependencies"]
        )
        models = [component for component in bill["components"] if component["type"] == "machine-learning-model"]
        self.assertIn("scenes-32", [model["name"] for model in models])

    def test_the_same_licence_is_written_once_and_a_crate_without_a_file_has_its_manifest(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            for name, text in (("one", "be kind\n"), ("two", "be kind  \r\n"), ("three", None)):
                (folder / name).mkdir()
                if text is not None:
                    (folder / name / "LICENSE-MIT").write_bytes(text.encode())
            crates = [(package(name, folder), []) for name in ("one", "two", "three")]
            texts = bill_of_materials.texts(crates)
        self.assertEqual(texts.pop("be kind"), ["one 1.2.3 (MIT)", "two 1.2.3 (MIT)"])
        ((text, carriers),) = texts.items()
        self.assertEqual(carriers, ["three 1.2.3 (MIT)"])
        self.assertIn("Copyright: the authors of three", text)


if __name__ == "__main__":
    unittest.main()
