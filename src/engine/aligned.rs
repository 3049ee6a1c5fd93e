//! Zeroed memory that begins at a cache line.

use std::ops::{Deref, DerefMut};

use super::operators::ALIGNMENT;

/// Items of which the first one lies at a multiple of [`ALIGNMENT`] bytes.
///
/// They are 0 as the system hands them out: memory that nobody writes to is never touched, and
/// weights that are packed into it are written once.
#[derive(Debug)]
pub(super) struct Aligned<T> {
    /// With some items to spare, so that one of the first is aligned. Never grows: its place stays.
    items: Vec<T>,
    first: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `len` items, each [`Default`].
    pub fn zeroed(len: usize) -> Self {
        let spare = ALIGNMENT / size_of::<T>() - 1;
        let items = vec![T::default(); len + spare];
        let first = items.as_ptr().align_offset(ALIGNMENT);
        assert!(first <= spare, "an item every {} bytes", size_of::<T>());
        Self { items, first, len }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.items[self.first..][..self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[self.first..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_item_begins_a_line_and_all_are_zero() {
        for len in [0, 1, 15, 16, 17, 4097] {
            let mut bytes = Aligned::<u8>::zeroed(len);
            let floats = Aligned::<f32>::zeroed(len);
            assert_eq!((bytes.len(), floats.len()), (len, len));
            assert_eq!(bytes.as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(floats.as_ptr().addr() % ALIGNMENT, 0);
            assert!(bytes.iter().all(|&byte| byte == 0));
            assert!(floats.iter().all(|&float| float == 0.0));
            bytes.fill(255);
            assert!(bytes.iter().all(|&byte| byte == 255));
        }
    }
}
