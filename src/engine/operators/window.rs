//! Which pixels of its input a convolution looks at.

use super::View;
use super::conv::Geometry;
use super::epilogue::Place;

/// Which pixels of its input a convolution's output pixels look at.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// The convolution's input.
    pub input: View,
    /// The kernel, over the enlarged input.
    pub geometry: Geometry,
    /// log2 of how often a pixel of the input is repeated, in both directions.
    upsample: u32,
    /// Height and width of the output.
    output: [usize; 2],
}

impl Window {
    /// That of a convolution from `input`, of which every pixel is first repeated `upsample` times, 1
    /// or 2, in both directions, to `output`.
    ///
    /// # Panics
    ///
    /// When the shapes do not fit together.
    pub fn new(input: View, geometry: Geometry, upsample: usize, output: View) -> Self {
        assert!([1, 2].contains(&upsample), "upsampling by {upsample}");
        let expected = geometry.output([input.height * upsample, input.width * upsample]);
        assert_eq!(
            [output.height, output.width],
            expected,
            "{geometry:?} of {input:?}"
        );
        assert_eq!(output.batch, input.batch, "pictures of {output:?}");
        Self {
            input,
            geometry,
            upsample: upsample.ilog2(),
            output: expected,
        }
    }

    /// Writes pointers to the pixels under every tap of `count` output pixels from `place` on, as
    /// `[tap][R]`; to `outside` where there is none. `place` moves on by `count`.
    ///
    /// # Safety
    ///
    /// `count` is at most `R`; `to` takes as many arrays as there are taps.
    #[inline(always)]
    pub unsafe fn find<T, const R: usize>(
        &self,
        input: *const T,
        outside: *const T,
        place: &mut Place,
        count: usize,
        to: *mut [*const T; R],
    ) {
        let Self {
            geometry:
                Geometry {
                    kernel,
                    stride,
                    padding,
                },
            upsample,
            ..
        } = *self;
        // In bytes, since addresses are added as integers: compilers make vectors of these, and not
        // of pointers.
        let View {
            batch_stride,
            row_stride,
            pixel_stride,
            ..
        } = self.input;
        let [batch_stride, row_stride, pixel_stride] =
            [batch_stride, row_stride, pixel_stride].map(|stride| stride * size_of::<T>());
        let (height, width) = (self.input.height << upsample, self.input.width << upsample);
        // Where the first tap may lie so that all lie inside.
        let rows = (height + 1).saturating_sub(kernel[0]);
        let columns = (width + 1).saturating_sub(kernel[1]);
        // Rows without a pixel are beyond the edge under every tap.
        let (mut ys, mut xs, mut starts) = ([usize::MAX / 2; R], [0; R], [0; R]);
        let mut inside = count == R;
        let mut row = 0;
        while row < count {
            // Beyond the upper and the left edge the coordinates wrap around to enormous ones.
            let y = (place.y * stride[0]).wrapping_sub(padding[0]);
            let mut x = (place.x * stride[1]).wrapping_sub(padding[1]);
            let line = ((y as isize >> upsample) as usize).wrapping_mul(row_stride);
            let line = input
                .cast::<u8>()
                .wrapping_add(place.picture * batch_stride)
                .wrapping_add(line);
            let run = (self.output[1] - place.x).min(count - row);
            inside &= (y < rows) & (x < columns);
            for row in row..row + run {
                let pixel = ((x as isize >> upsample) as usize).wrapping_mul(pixel_stride);
                starts[row] = line.wrapping_add(pixel).expose_provenance();
                (ys[row], xs[row]) = (y, x);
                x = x.wrapping_add(stride[1]);
            }
            inside &= x.wrapping_sub(stride[1]) < columns;
            place.x += run - 1;
            place.advance(self.output[0], self.output[1]);
            row += run;
        }
        // In an enlarged picture an odd step from an odd place reaches one pixel further.
        let odd = |at: usize| (at & upsample as usize).wrapping_neg();
        for down in 0..kernel[0] {
            for right in 0..kernel[1] {
                let step = (down >> upsample) * row_stride + (right >> upsample) * pixel_stride;
                let (odd_y, odd_x) = (odd(down) & row_stride, odd(right) & pixel_stride);
                let mut tap: [*const T; R] = std::array::from_fn(|row| {
                    let step = step + (odd(ys[row]) & odd_y) + (odd(xs[row]) & odd_x);
                    std::ptr::with_exposed_provenance(starts[row].wrapping_add(step))
                });
                if !inside {
                    for (row, pixel) in tap.iter_mut().enumerate() {
                        let (y, x) = (ys[row].wrapping_add(down), xs[row].wrapping_add(right));
                        if (y >= height) | (x >= width) {
                            *pixel = outside;
                        }
                    }
                }
                // SAFETY: the caller has room for every tap.
                unsafe { to.add(down * kernel[1] + right).write(tap) };
            }
        }
    }
}
