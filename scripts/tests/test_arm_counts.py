"""The table of arm_counts: written, read back, compared.

    python -m unittest discover -s scripts/tests
"""

import unittest

import needs  # noqa: F401 (makes the scripts importable)

import arm_counts

COUNTS = {
    (file, core): 1_234_567 * (1 + i) * (1 + j)
    for i, file in enumerate(arm_counts.FILES)
    for j, core in enumerate(arm_counts.CORES)
}


class Table(unittest.TestCase):
    def test_what_is_written_is_read_back_to_the_thousand(self):
        found = arm_counts.read(arm_counts.table(COUNTS), "table")
        self.assertEqual(found, {key: round(count / 1000) * 1000 for key, count in COUNTS.items()})

    def test_the_markers_are_found_or_told(self):
        text = "above\n<!-- arm: begin -->\nold\n<!-- arm: end -->\nbelow\n"
        self.assertEqual(
            arm_counts.parts(text, "file"), ("above\n<!-- arm: begin -->\n", "old\n", "<!-- arm: end -->\nbelow\n")
        )
        with self.assertRaisesRegex(SystemExit, "^file: expected a line <!-- arm: begin -->"):
            arm_counts.parts("none\n", "file")

    def test_the_documentation_has_a_table_of_every_core_and_file(self):
        _, text, _ = arm_counts.parts(arm_counts.TABLE.read_text(), arm_counts.TABLE)
        self.assertEqual(arm_counts.read(text, arm_counts.TABLE).keys(), COUNTS.keys())

    def test_three_percent_are_let_through_and_more_are_a_sentence(self):
        key = ("int8", "cortex-a72")
        for factor, told in ((1.029, 0), (0.971, 0), (1.031, 1), (0.969, 1)):
            sentences = list(arm_counts.differences({key: COUNTS[key] * factor}, COUNTS, "file"))
            self.assertEqual(len(sentences), told, factor)
        self.assertIn("int8 file as cortex-a72: expected 4,938,268 to within 3 %, counted 4,785,182 (-3.1 %)", sentences[0])

    def test_a_count_that_the_table_lacks_is_a_sentence(self):
        (sentence,) = arm_counts.differences({("fp32", "max"): 5}, COUNTS, "file")
        self.assertEqual(sentence, "file: expected a count of the fp32 file as max, found none")


if __name__ == "__main__":
    unittest.main()
