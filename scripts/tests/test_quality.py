"""From pictures to the page of figures: painting with a program that stands in for driftglass, resuming, measuring,
tables, plots and cards. The stand-in paints flat pictures whose level is their seed's, and writes what it was asked."""

import json
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from needs import EXPORT, FEATURES, demand

demand((*EXPORT, *FEATURES))

import numpy as np
from PIL import Image

import data
import features
import kid
import model_card
import neighbours
import package
import painting
import quality
import quality_page
from painting import Order, Way

SCENES = Path(__file__).resolve().parents[2] / "models/scenes-32"
STAND_IN = """#!{python}
import json, os, sys
from pathlib import Path
from PIL import Image, PngImagePlugin

with open(os.environ["CALLS"], "a") as calls:
    print(*sys.argv[1:], file=calls)
if sys.argv[1] == "bench":
    sys.exit(print(json.dumps({{"median_ms": 2.5}})))
words = [word for word in sys.argv[2:] if word != "--quiet"]
asked = dict(zip(words[::2], words[1::2]))
for seed in range(int(asked["--seed"]), int(asked["--seed"]) + int(asked["--count"])):
    recipe = {{"model": "small", "sha256": {sha256!r}, "seed": seed, "steps": int(asked["--steps"])}}
    recipe |= {{key: asked["--" + key] for key in ("precision", "sampler", "variance", "class") if "--" + key in asked}}
    recipe |= {{"spacing": asked.get("--spacing", "trailing")}}
    recipe |= {{"guidance": float(asked["--guidance"])}} if "--guidance" in asked else {{}}
    recipe |= json.loads(os.environ.get("LIES", "{{}}"))
    text = PngImagePlugin.PngInfo()
    text.add_text("driftglass", json.dumps(recipe))
    shade = (seed * 7 + (asked["--precision"] == "int8")) % 256
    Image.new("RGB", (8, 8), (shade, 255 - shade, seed % 64)).save(Path(asked["--out"]) / f"small-{{seed}}.png", pnginfo=text)
"""


class Case(unittest.TestCase):
    """Each test in an empty folder with a package `small`, a stand-in for the program, and nothing printed."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.package = package.folder(self.folder / "small")
        for precision in ("fp16", "int8"):
            (self.package / f"{precision}.onnx").write_bytes(b"the same bytes")
        entry = package.file_entry(self.package / "fp16.onnx")
        files = {name: entry | {"file": f"{name}.onnx", "max-error": 0.1, "final-psnr-db": 40.0} for name in ("fp16", "int8")}
        self.manifest = package.read_manifest(SCENES) | {"name": "small", "files": files}
        self.manifest |= {"image": {"channels": 3, "height": 8, "width": 8}, "classes": {"names": ["dark", "bright"], "null": 2}}
        del self.manifest["analytic-variance"]
        package.write_manifest(self.package, self.manifest)
        self.program = self.folder / "driftglass"
        self.program.write_text(STAND_IN.format(python=os.sys.executable, sha256=entry["sha256"]))
        self.program.chmod(0o755)
        environment = mock.patch.dict(os.environ, {"CALLS": str(self.folder / "calls")})
        environment.start()
        self.addCleanup(environment.stop)
        printed = mock.patch("builtins.print")
        printed.start()
        self.addCleanup(printed.stop)

    def calls(self):
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def paint(self, way, order):
        return painting.paint(self.package, self.manifest, way, order, self.folder / "kept", self.program, 2)


class Painting(Case):
    def test_runs_of_seeds_are_of_one_class_and_not_too_long(self):
        order = Order(7, (0,) * 150 + (1,) * 30)
        self.assertEqual(list(order.parts()), [(7, 100, 0), (107, 50, 0), (157, 30, 1)])

    def test_pictures_come_in_the_order_of_their_seeds_and_are_painted_once(self):
        way, order = Way("fp16", "ddpm", 10, "fixed-small"), Order(30, (0,) * 120 + (1,) * 20)
        pictures = self.paint(way, order)
        self.assertEqual((pictures.shape, pictures.dtype), ((140, 8, 8, 3), np.uint8))
        np.testing.assert_array_equal(pictures[:, 0, 0, 0], np.arange(30, 170) * 7 % 256)
        self.assertEqual(len(self.calls()), 3)
        self.assertTrue(all("--guidance 1.0" in call for call in self.calls()))  # a model may have another of its own
        self.assertEqual(sum("--class bright" in call and "--seed 150 " in call for call in self.calls()), 1)
        np.testing.assert_array_equal(self.paint(way, order), pictures)
        self.assertEqual(len(self.calls()), 3)
        self.paint(way, Order(31, order.labels))
        self.assertEqual(len(self.calls()), 6)

    def test_a_run_that_was_stopped_goes_on_with_what_is_missing(self):
        way, order = Way("fp16", "ddim", 10), Order(0, (0,) * 100 + (1,) * 100)
        with mock.patch.dict(os.environ, {"LIES": '{"class": "dark"}'}), self.assertRaises(SystemExit):
            painting.paint(self.package, self.manifest, way, order, self.folder / "kept", self.program, 1)
        before = len(self.calls())
        self.assertEqual(len(self.paint(way, order)), 200)
        self.assertEqual([call for call in self.calls()[before:] if "--seed 0 " in call], [])
        self.assertFalse(list((self.folder / "kept").glob("*.parts")))

    def test_a_picture_of_another_recipe_is_refused(self):
        lies = [
            ({"steps": 11}, "asked for steps 10, and its recipe says 11"),
            ({"sha256": "0"}, "asked for sha256"),
            ({"seed": 1}, "seed"),
            ({"guidance": 2}, "asked for guidance 1.0, and its recipe says 2"),
            ({"prior": "1"}, "asked for prior None, and its recipe says 1"),
        ]
        for lie, sentence in lies:
            with mock.patch.dict(os.environ, {"LIES": json.dumps(lie)}), self.assertRaisesRegex(SystemExit, sentence):
                self.paint(Way("fp16", "ddim", 10), Order(5, (0,)))

    def test_what_cannot_be_painted_is_told(self):
        with self.assertRaisesRegex(SystemExit, "no analytic variance for 10 steps"):
            self.paint(Way("fp16", "ddpm", 10, "analytic"), Order(0, (0,)))
        (self.package / "int8.onnx").write_bytes(b"other bytes")
        with self.assertRaisesRegex(SystemExit, "int8.onnx: its sha256 is not that of model.toml"):
            self.paint(Way("int8", "ddim", 10), Order(0, (0,)))


class PyTorch(unittest.TestCase):
    def test_it_paints_the_picture_of_the_reference(self):
        manifest, reference = package.read_manifest(SCENES), package.read_reference(SCENES)
        steps, label = len(reference["timesteps"]), int(reference["class"][0])
        way = Way("fp16", "ddpm", steps, "fixed-small", "pytorch", spacing="linspace")  # as the reference was walked
        painter = painting.PyTorch(SCENES, manifest, way)
        pictures = painter.part((0, 2, label))  # export.py draws the reference's noise from seed 0
        self.assertEqual(pictures.shape, (2, 32, 32, 3))
        own = pictures[0] / 127.5 - 1
        psnr = package.psnr_db(own.transpose(2, 0, 1)[None], reference["final"])
        self.assertGreater(psnr, manifest["files"]["fp16"]["final-psnr-db"] - 6)  # and rounded to 8 bits
        self.assertLess(kid.psnrs_db(pictures[:1], pictures[1:])[0], 20)


class Eyes:
    """Stands in for the feature extractor: the pixels themselves."""

    def of(self, pictures):
        return pictures.reshape(len(pictures), -1).astype(np.float32)[:, :24] / 255


class Quality(Case):
    def setUp(self):
        super().setUp()
        eyes = mock.patch.object(features, "Extractor", Eyes)
        eyes.start()
        self.addCleanup(eyes.stop)
        rng = np.random.default_rng(0)
        self.real = self.folder / "real.npz"
        shades = rng.integers(0, 256, (240, 1, 1, 1))
        pictures = np.concatenate([shades, 255 - shades, shades // 4], 3) + np.zeros((240, 8, 8, 3))
        data.save(self.real, pictures, np.arange(240) % 2, ["dark", "bright"], "CC0-1.0")
        self.ways = [Way("fp16", "ddpm", 50, "fixed-small"), Way("int8", "ddpm", 50, "fixed-small"), Way("fp16", "ddim", 10)]
        known = mock.patch.object(quality, "WAYS", [*quality.WAYS, Way("fp16", "ddim", 10), Way("fp16", "ddim", 10, guidance=3.0)])
        known.start()
        self.addCleanup(known.stop)
        self.page = self.folder / "docs" / "quality.md"
        self.page.parent.mkdir()
        self.page.write_text("Before.\n<!-- small: begin -->\nan earlier table\n<!-- small: end -->\nAfter.\n")
        page = mock.patch.object(quality_page, "PAGE", self.page)
        page.start()
        self.addCleanup(page.stop)

    def measure(self, *more):
        options = {"--package": self.package, "--program": self.program, "--real": self.real, "--work": self.folder / "kept"}
        words = [str(word) for pair in options.items() for word in pair]
        quality.main([*words, "--ways", *(way.name for way in self.ways), *more])

    def test_figures_are_measured_and_written_into_page_and_card(self):
        self.measure()
        found = json.loads((self.package / "quality.json").read_text())
        self.assertEqual([way["name"] for way in found["ways"]], [way.name for way in self.ways])
        self.assertTrue(all(way["pictures"] == 120 for way in found["ways"]))
        self.assertEqual(found["milliseconds"], {"fp16": 2.5, "int8": 2.5})
        self.assertEqual([(pair["way"], pair["other"]) for pair in found["pairs"]], [(self.ways[1].name, self.ways[0].name)])
        self.assertEqual((found["pairs"][0]["same"], found["pairs"][0]["largest"]), (0, 255))
        self.assertTrue(all(len(one["mean"]) == 3 and one["kid"][1] > 0 for one in [found["floor"], *found["ways"]]))
        quality_page.main([str(self.package)])
        text = self.page.read_text()
        self.assertTrue(text.startswith("Before.\n<!-- small: begin -->\n120 pictures of each way"))
        self.assertTrue(text.endswith("<!-- small: end -->\nAfter.\n"))
        self.assertNotIn("an earlier table", text)
        self.assertIn("| ddim, 10 steps | fp16 | 25 |", text)
        self.assertEqual([one["levels"] for one in found["noise"]], [1, 2])
        self.assertIn("| real pictures, noise of 2 levels |", text)
        self.assertIn("| int8 − fp16 | ddpm, fixed-small, 50 steps |", text)
        self.assertIn("| int8 − fp16, ddpm, fixed-small, 50 steps: PSNR at least 30 dB |", text)
        for plot in ("steps", "time"):
            with Image.open(self.page.parent / f"quality-small-{plot}.png") as image:
                self.assertEqual(image.size, (800, 500))
        card = (self.package / "README.md").read_text()
        self.assertIn("| ddim, 10 steps | fp16 |", card)
        self.assertNotIn("before the present one", card)

    def test_guided_pictures_cost_two_evaluations_and_have_a_plot_of_their_own(self):
        self.ways = [Way("fp16", "ddim", 10), Way("fp16", "ddim", 10, guidance=3.0)]
        self.measure()
        self.assertEqual(["--guidance 3.0" in call for call in self.calls()], [False] * 2 + [True] * 2 + [False])
        quality_page.main([str(self.package)])
        self.assertIn("| ddim, 10 steps, guidance 3 | fp16 | 50 |", self.page.read_text())
        self.assertTrue((self.page.parent / "quality-small-guidance.png").exists())
        self.assertFalse((self.page.parent / "quality-small-steps.png").exists(), "all have the same steps")

    def test_a_bar_holds_or_does_not(self):
        ways = [*self.ways[:2], Way("fp16", "ddpm", 50, "fixed-small", "pytorch"), Way("fp16", "ddpm", 25, "analytic")]
        figures = {name: kid.Figure(0.01, np.linspace(0.009, 0.011, kid.GROUPS)) for name in ("kid", "precision", "recall")}
        found = {"ways": [quality.entry(way, figures, 120) for way in ways], "pairs": []}
        error = found["ways"][0]["kid"][1]
        for way, other in quality.pairs(ways):
            found["pairs"].append({"way": way.name, "other": other.name, "kid": [0.0011, 0], "psnr-db": [31, 0.1]})
        holds = [line.split(" | ")[-1] for line in quality_page.bars(found)[2:-1]]
        self.assertGreater(2 * error, 0.0011)
        self.assertEqual(holds, ["yes |", "no |", "yes |", "no |"])
        for pair in found["pairs"]:
            pair |= {"kid": [-0.5, 0], "psnr-db": [29, 0.1]}
        holds = [line.split(" | ")[-1] for line in quality_page.bars(found)[2:-1]]
        self.assertEqual(holds, ["no |", "yes |", "no |", "yes |"])

    def test_the_card_says_why_the_analytic_variance_is_not_the_default(self):
        figures = {name: kid.Figure(0.01, np.full(kid.GROUPS, 0.01)) for name in ("kid", "precision", "recall")}
        ways = [Way("fp16", "ddpm", 25, "analytic"), Way("fp16", "ddpm", 50, "fixed-small")]
        names = {"way": ways[0].name, "other": ways[1].name}
        for difference, said in [(0.002, True), (-0.002, False)]:
            found = {"ways": [quality.entry(way, figures, 120) for way in ways], "pairs": [names | {"kid": [difference, 0]}]}
            found["ways"][0]["kid"][0] += difference
            text = " ".join(model_card.analytic(found))
            self.assertEqual("not better than `fixed-small` in 50 (KID 12.0 against 10.0)" in text, said)
            self.assertEqual(bool(text), said)
        for nothing in (None, found | {"pairs": []}):
            self.assertIn("has not been measured", " ".join(model_card.analytic(nothing)))

    def test_a_student_is_held_against_the_best_of_its_teacher_in_50_steps(self):
        def way(steps, value):
            figures = {name: kid.Figure(value, np.full(kid.GROUPS, value)) for name in ("kid", "precision", "recall")}
            return quality.entry(Way("fp16", "ddim", steps), figures, 120)

        teacher = {"model": "slow", "ways": [way(10, 0.001), way(50, 0.03), way(50, 0.02)]}
        for value, said in [(0.0219, ["+9 ± 0 %", "yes |"]), (0.0221, ["+10 ± 0 %", "no |"])]:
            student = {"ways": [way(8, value)], "pairs": []}
            self.assertEqual(quality_page.bars(student, teacher)[2].split(" | ")[1:], said)

    def test_the_card_says_which_file_has_changed_since(self):
        self.measure()
        self.manifest["files"]["int8"]["sha256"] = "0" * 64
        package.write_manifest(self.package, self.manifest)
        quality_page.main([str(self.package)])
        card = (self.package / "README.md").read_text()
        self.assertIn("| int8, before the present one |", card)
        self.assertNotIn("| fp16, before", card)

    def test_ways_of_before_are_kept_where_the_file_is_the_same(self):
        self.measure()
        before = json.loads((self.package / "quality.json").read_text())
        self.ways = [Way("fp16", "ddim", 10)]
        names = [self.ways[0].name, *(way["name"] for way in before["ways"][:2])]
        calls = len(self.calls())
        self.measure("--add", "--pictures", "60")
        timed = [call for call in self.calls()[calls:] if call.startswith("bench")]
        self.assertEqual(len(timed), 2, "the file that is not painted with is timed on this machine too")
        after = json.loads((self.package / "quality.json").read_text())
        self.assertEqual([way["name"] for way in after["ways"]], names)
        self.assertEqual([way["pictures"] for way in after["ways"]], [60, 120, 120])
        self.assertEqual((after["pairs"], set(after["milliseconds"])), (before["pairs"], {"fp16", "int8"}))
        text = model_card.counted(after, "painted", "real")
        self.assertEqual(text, "120 painted against 120 real (60 against 120: ddim, 10 steps)")
        after["ways"][2]["pictures"] = 80
        text = model_card.counted(after, "painted", "real")
        self.assertIn("(80 against 120: ddpm, fixed-small, 50 steps by int8) (60 against 120: ddim, 10 steps)", text)
        after["ways"][2]["pictures"] = 120
        alone = after | {"ways": after["ways"][:1], "pairs": []}
        changed = before | {"sha256": alone["sha256"] | {"fp16": "0" * 64}, "real": before["real"] | {"pictures": 70}}
        other = quality.joined(alone, changed, self.manifest)
        self.assertEqual([(way["name"], way.get("real")) for way in other["ways"]], [(names[0], None), (names[2], 70)])
        self.assertEqual((other["pairs"], other["sha256"]), ([], alone["sha256"]))
        alone["sha256"] = {"fp16": before["sha256"]["fp16"]}
        other = quality.joined(alone, before | {"sha256": alone["sha256"] | {"int8": "0" * 64}}, self.manifest)
        self.assertEqual(([way["name"] for way in other["ways"]], other["sha256"]), (names[:2], alone["sha256"]))

    def test_figures_against_other_real_pictures_are_not_joined(self):
        self.measure()
        found, before = self.package / "quality.json", len(self.calls())
        written = found.read_text()
        pictures, labels, classes, licence = data.load(self.real)
        data.save(self.real, np.roll(pictures, 2, 0), labels, classes, licence)
        with self.assertRaisesRegex(SystemExit, "quality.json: was measured against other pictures than .*real.npz has"):
            self.measure("--add")
        self.assertEqual((found.read_text(), len(self.calls())), (written, before))
        pictures[0, 0, 0, 0] ^= 1
        data.save(self.real, pictures, labels, classes, licence)
        self.measure("--add")

    def test_painting_alone_measures_nothing_and_is_not_done_again(self):
        self.measure("--paint")
        self.assertFalse((self.package / "quality.json").exists())
        before = len(self.calls())
        self.measure()
        self.assertEqual([call.split()[0] for call in self.calls()[before:]], ["bench", "bench"])

    def test_of_a_data_set_only_the_end_that_was_held_back_is_real(self):
        real = quality.Real(self.real, 40)
        pictures, labels, _, _ = data.load(self.real)
        self.assertEqual((len(real.against[0]), len(real.floor[0])), (20, 20))
        self.assertEqual(real.order().labels, (0,) * 10 + (1,) * 10)
        np.testing.assert_array_equal(np.sort(real.floor[0][:, 0, 0, 0]), np.sort(pictures[-20:, 0, 0, 0]))

    def test_where_few_are_held_back_more_are_painted_with_classes_as_frequent(self):
        real = quality.Real(self.real, 6)
        self.assertEqual(np.bincount(real.against[1]).tolist(), [2, 1])
        self.assertEqual(real.order(9).labels, (0,) * 6 + (1,) * 3)
        self.assertEqual(quality.Real(self.real, None).order(4).labels, (0, 0, 1, 1))
        self.measure("--held-out", "110", "--pictures", "140")
        found = json.loads((self.package / "quality.json").read_text())
        self.assertEqual((found["real"]["pictures"], {way["pictures"] for way in found["ways"]}), (55, {140}))
        self.assertLess(found["pairs"][0]["kid"][1], found["ways"][0]["kid"][1])

    def test_a_page_without_a_place_for_the_model_is_told(self):
        self.measure()
        self.page.write_text("nothing")
        with self.assertRaisesRegex(SystemExit, "expected <!-- small: begin -->"):
            quality_page.main([str(self.package)])

    def test_what_was_recited_is_found(self):
        self.manifest["defaults"] |= {"precision": "fp16", "variance": "fixed-small", "guidance": 2.0}
        package.write_manifest(self.package, self.manifest)
        options = {"--package": self.package, "--program": self.program, "--real": self.real, "--work": self.folder / "kept"}
        words = [str(word) for pair in options.items() for word in pair]
        self.assertEqual(quality.own_way(self.manifest).guidance, 2)
        painted = self.paint(quality.own_way(self.manifest), quality.Real(self.real, None).order())
        recited = self.folder / "recited.npz"
        data.save(recited, painted[::-1], [0] * len(painted), ["any"], "CC0-1.0", held_out=0)
        neighbours.main([*words, "--data", str(recited)])
        found = json.loads((self.package / "neighbours.json").read_text())
        self.assertEqual(found["painted"], {"pictures": 120, "levels": [0, 0]})
        self.assertGreater(found["real"]["levels"][0], 1)
        with Image.open(self.package / "neighbours.png") as image:
            sheet = np.asarray(image)
        self.assertEqual(sheet.shape, (3 * 18 + 2, 16 * 18 + 2, 3))
        np.testing.assert_array_equal(sheet[2:18], sheet[20:36])
        np.testing.assert_array_equal(sheet[2:18], sheet[38:54])
        self.assertIn("there are 120 of them", (self.package / "README.md").read_text())

    def test_what_the_training_set_holds_out_is_no_training_picture(self):
        words = ["--package", self.package, "--program", self.program, "--work", self.folder / "kept"]
        self.manifest["defaults"] |= {"precision": "fp16", "variance": "fixed-small"}
        package.write_manifest(self.package, self.manifest)
        neighbours.main([*map(str, words), "--real", str(self.real), "--data", str(self.real)])
        found = json.loads((self.package / "neighbours.json").read_text())
        self.assertEqual(found["training"], 240 - 24)

    def test_the_nearest_are_those_of_all_pairs_and_in_order(self):
        rng = np.random.default_rng(0)
        pictures, training = rng.integers(0, 256, (5, 4, 4, 3), np.uint8), rng.integers(0, 256, (90, 4, 4, 3), np.uint8)
        with mock.patch.object(neighbours, "CHUNK", 40):
            indices, levels = neighbours.nearest(pictures, training, 7)
        differences = np.sqrt(np.square(pictures[:, None].astype(float) - training).mean((2, 3, 4)))
        np.testing.assert_array_equal(indices, differences.argsort(1)[:, :7])
        np.testing.assert_allclose(levels, np.sort(differences, 1)[:, :7], rtol=1e-4)


if __name__ == "__main__":
    unittest.main()
