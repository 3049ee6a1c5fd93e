//! What operators are tested with: operands with gaps, every way to run.

use super::{Element, Memory, Operand, Operator, Quantization, Scratch, View};
use crate::engine::simd::{Isa, Simd, Work};

/// Levels as a file could have them.
pub const LEVELS: Element = Element::Levels(Quantization {
    scale: 0.02,
    zero: 117,
});

impl View {
    /// A picture without gaps.
    pub fn dense(offset: usize, [batch, height, width, channels]: [usize; 4]) -> Self {
        Self {
            offset,
            batch,
            height,
            width,
            channels,
            batch_stride: height * width * channels,
            row_stride: width * channels,
            pixel_stride: channels,
        }
    }
}

/// A sequence of numbers that look random.
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one, below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % end
    }

    /// The next one, in -1..1.
    pub fn real(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0
    }

    /// One of `values`.
    pub fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// A block of memory that begins where [`Memory`] and [`Scratch`] do. What nobody has written is
/// NaN.
#[derive(Clone, PartialEq)]
pub struct Block(Vec<Line>);

#[derive(Clone, Copy, PartialEq)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Block {
    /// `len` bytes, and those behind them that may be read.
    pub fn new(len: usize) -> Self {
        Self(vec![Line([0xff; 64]); len.div_ceil(64) + 4])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let len = size_of_val(&*self.0);
        // SAFETY: a line is 64 bytes.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    /// The number that element `at` of `operand` stands for.
    pub fn read(&mut self, isa: Isa, operand: &Operand, at: usize) -> f32 {
        let start = operand.view.offset;
        match operand.element {
            Element::Float => {
                let bytes = &self.bytes()[start + 4 * at..][..4];
                f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            Element::Levels(levels) => {
                let level = (i32::from(self.bytes()[start + at]) + isa.run(LevelBias)) & 0xff;
                levels.scale * (level - levels.zero) as f32
            }
        }
    }

    /// Fills an operand: f32 with what `number` gives, levels at random.
    pub fn fill(&mut self, operand: &Operand, numbers: &mut Numbers, number: impl Fn(f32) -> f32) {
        let start = operand.view.offset;
        for at in elements(&operand.view) {
            let real = number(numbers.real());
            match operand.element {
                Element::Float => {
                    self.bytes()[start + 4 * at..][..4].copy_from_slice(&real.to_ne_bytes());
                }
                Element::Levels(_) => self.bytes()[start + at] = numbers.below(256) as u8,
            }
        }
    }
}

/// Every element of a view, pixel by pixel.
pub fn elements(view: &View) -> Vec<usize> {
    (0..view.pixels())
        .flat_map(|pixel| (0..view.channels).map(move |channel| view.pixel(pixel) + channel))
        .collect()
}

/// Places operands one behind the other.
pub struct Places<'a> {
    /// Bytes that are taken.
    pub end: usize,
    /// Decides where there are gaps.
    pub numbers: &'a mut Numbers,
}

impl Places<'_> {
    /// An operand of this shape, perhaps with gaps between pixels, rows and pictures.
    pub fn operand(&mut self, shape: [usize; 4], element: Element) -> Operand {
        let [batch, height, width, channels] = shape;
        let pixel_stride = channels + self.numbers.of(&[0, 0, 1, 7]);
        let row_stride = width * pixel_stride + self.numbers.of(&[0, 0, 3]);
        let batch_stride = height * row_stride + self.numbers.of(&[0, 5]);
        let offset = self.end;
        self.end = (offset + 4 * batch * batch_stride).next_multiple_of(64);
        let view = View {
            offset,
            batch,
            height,
            width,
            channels,
            batch_stride,
            row_stride,
            pixel_stride,
        };
        Operand { view, element }
    }
}

/// Asks an instruction set how it stores levels.
struct LevelBias;

impl Work for LevelBias {
    type Output = i32;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> i32 {
        S::LEVEL_BIAS
    }
}

/// What `block` is after the operator that `build` makes for one, two or three threads, which has
/// to be the same, and the same as before wherever `output` is not.
pub fn outcome(
    block: &Block,
    output: &Operand,
    build: impl Fn(usize) -> Box<dyn Operator>,
) -> Block {
    let outcomes = [(1, false), (2, false), (3, true)].map(|(threads, backwards)| {
        let mut block = block.clone();
        run(&*build(threads), &mut block, backwards);
        block
    });
    let name = build(1).describe();
    assert!(outcomes[0] == outcomes[1], "{name} on two threads");
    assert!(outcomes[0] == outcomes[2], "{name} on three threads");
    let [outcome, ..] = outcomes;
    let mut others = [block.clone(), outcome.clone()];
    let size = output.element.bytes();
    for at in elements(&output.view) {
        for block in &mut others {
            block.bytes()[output.view.offset + at * size..][..size].fill(0);
        }
    }
    assert!(others[0] == others[1], "{name} writes beside its output");
    outcome
}

/// Runs an operator, in the one order of its tasks or the other.
fn run(operator: &dyn Operator, block: &mut Block, backwards: bool) {
    let mut own = Block::new(operator.own_bytes());
    let mut shared = Block::new(operator.shared_bytes());
    let memory = Memory::new(block.0.as_mut_ptr().cast());
    let scratch = Scratch {
        own: own.0.as_mut_ptr().cast(),
        shared: shared.0.as_mut_ptr().cast(),
    };
    for (phase, &tasks) in operator.phases().iter().enumerate() {
        for task in 0..tasks {
            let task = if backwards { tasks - 1 - task } else { task };
            // SAFETY: the block has all operands, the scratch memory is as large as asked for.
            unsafe { operator.run(phase, task, memory, scratch) };
        }
    }
    for (block, end) in [
        (&mut own, operator.own_bytes()),
        (&mut shared, operator.shared_bytes()),
    ] {
        let untouched = block.bytes()[end..].iter().all(|&byte| byte == 0xff);
        assert!(
            untouched,
            "{} writes behind its scratch memory",
            operator.describe()
        );
    }
}
