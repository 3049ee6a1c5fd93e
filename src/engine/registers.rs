//! What tract's kernels leave behind in the vector registers of an x86_64 core.
//!
//! tract 0.23.9 returns from its AVX kernels with the upper halves of the registers in use. Until
//! they are cleared, the core carries them through every SSE instruction, and everything that is
//! compiled for plain x86_64 runs at a third of its speed: noise for one step of a 32×32 picture
//! took 96 µs instead of 29.

/// Clears the upper halves; to be called after everything that tract computes. They hold nothing that Rust code
/// could have put there and still wants: the calling convention says so.
#[cfg(target_arch = "x86_64")]
pub(super) fn clear_upper_halves() {
    #[target_feature(enable = "avx")]
    fn clear() {
        std::arch::x86_64::_mm256_zeroupper();
    }
    if std::is_x86_feature_detected!("avx") {
        // SAFETY: the core has AVX, as was just asked, and the instruction touches only the upper
        // halves, which no caller may rely on across a function call.
        unsafe { clear() }
    }
}

/// Other cores have no such halves.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn clear_upper_halves() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_computed_stays_as_it_was() {
        let values: Vec<f64> = (1..100).map(|i| f64::from(i).sqrt()).collect();
        let sum = |values: &[f64]| values.iter().map(|v| v * 1.5).sum::<f64>().to_bits();
        let before = sum(&values);
        clear_upper_halves();
        assert_eq!(sum(&values), before);
    }
}
