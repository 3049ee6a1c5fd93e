"""What is a loop, which kernel it is, and what single instructions take.

    python -m unittest discover -s scripts/tests
"""

import unittest

import needs  # noqa: F401 (makes the scripts importable)

import kernel_cycles

# As llvm-objdump writes them: a loop of four products, behind a branch that is none.
CODE = """
program:	file format elf64-littleaarch64

Disassembly of section .text:

0000000000000100 <.text>:
     100:      	b	0x104 <.text+0x4>
     104:      	ldp	q30, q31, [x0], #32
     108:      	fmla	v0.4s, v30.4s, v24.s[0]
     10c:      	fmla	v1.4s, v31.4s, v24.s[0]         // a comment
     110:      	ldr	d24, [x1], #8
     114:      	mov	v24.d[1], x2
     118:      	subs	x3, x3, #0x1
     11c:      	b.ne	0x104 <.text+0x4>
     120:      	ret
"""


class Loops(unittest.TestCase):
    def loop(self):
        (loop,) = kernel_cycles.loops(kernel_cycles.instructions(CODE))
        return loop

    def test_a_loop_ends_where_it_branches_back(self):
        loop = self.loop()
        self.assertEqual(len(loop), 7)
        self.assertEqual(loop[2], "fmla v1.4s, v31.4s, v24.s[0]")

    def test_a_loop_around_another_one_is_none(self):
        outer = CODE.replace("120:      	ret", "120:      	b.ne	0x100 <.text>")
        self.assertEqual(list(kernel_cycles.loops(kernel_cycles.instructions(outer))), [self.loop()])

    def test_a_loop_is_known_by_its_arithmetic(self):
        self.assertEqual(kernel_cycles.arithmetic(self.loop()), {"fmla.4s": 2, "mov.d": 1})
        self.assertEqual(kernel_cycles.find(kernel_cycles.instructions(CODE)), [])
        many = [f"{i:x}: fmla v0.4s, v30.4s, v24.s[0]" for i in range(0x200, 0x200 + 4 * 192, 4)]
        many.append(f"{0x200 + 4 * 192:x}: b.ne 0x200 <.text>")
        ((name, loop),) = kernel_cycles.find(kernel_cycles.instructions("\n".join(many)))
        self.assertEqual((name, len(loop)), ("f32 product, 6 × 16", 193))

    def test_a_load_takes_what_it_is_wide(self):
        # Two vectors loaded, two products, half a vector with which an insertion goes.
        self.assertEqual(kernel_cycles.published_cycles(self.loop()), 4 + 2 + 1)
        alone = ["mov v24.d[1], x2", "stp q0, q1, [x1]", "str d0, [x1]"]
        self.assertEqual(kernel_cycles.published_cycles(alone), 1 + 4 + 1)


if __name__ == "__main__":
    unittest.main()
