"""Cards of what is shipped: written by model_card.py, never by hand, so that they say what the package does."""

import unittest
from pathlib import Path

from needs import NUMBERS, demand

demand(NUMBERS)

import model_card
import package

MODELS = Path(__file__).resolve().parents[2] / "models"


class Cards(unittest.TestCase):
    def test_every_shipped_card_is_what_its_package_says(self):
        folders = sorted(path.parent for path in MODELS.glob("*/model.toml"))
        self.assertGreaterEqual(len(folders), 7)
        for folder in folders:
            for name in ("quality.json", "neighbours.json"):
                self.assertTrue((folder / name).exists(), f"{folder.name} is shipped without {name}")
            expected = model_card.of(folder, package.read_manifest(folder))
            self.assertEqual((folder / "README.md").read_text(), expected, folder.name)

    def test_a_caution_comes_before_the_facts(self):
        manifest = package.read_manifest(MODELS / "fashion-32")
        caution = "Its boots may be sandals."
        manifest["training"]["caution"] = caution
        text = model_card.trained(manifest)
        self.assertIn(f"not picked.\n\n{caution}\n\n", text)
        del manifest["training"]["caution"]
        self.assertEqual(text.replace(f"{caution}\n\n", ""), model_card.trained(manifest))


if __name__ == "__main__":
    unittest.main()
