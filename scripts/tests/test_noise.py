"""Noise of many seeds side by side is the noise of each, to the last bit; test_golden.py holds the latter to the program's."""

import unittest

from needs import demand

demand(("numpy",))

import numpy as np

import noise


class Noise(unittest.TestCase):
    def test_normals_of_many_seeds_are_those_of_each(self):
        seeds, shape = [0, 5, 2**40 + 3, 2**64 - 1], (3, 5, 11)
        for stream in (0, 1, 49, 2**64 - 1):
            together = noise.normals(seeds, stream, shape)
            apart = np.stack([noise.normal(seed, stream, shape) for seed in seeds])
            np.testing.assert_array_equal(together.view(np.uint32), apart.view(np.uint32))

    def test_logarithms_are_the_same_over_the_whole_range_of_uniform_numbers(self):
        powers = 2.0 ** -np.arange(1, 34)
        numbers = np.concatenate([np.random.default_rng(0).random(2000), powers, 1 - powers])
        np.testing.assert_array_equal(noise.lns(numbers), [noise.ln(float(number)) for number in numbers])


if __name__ == "__main__":
    unittest.main()
