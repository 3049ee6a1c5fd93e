//! Golden pictures: what a part draws, beside what it drew when a person looked.
//!
//! `DRIFTGLASS_GOLDEN=write cargo test` writes the pictures anew that differ; look at each of them
//! before it is committed.

use std::fs;
use std::path::Path;

use driftglass::picture::Picture;

use crate::fixtures::picture;

/// Holds `found` against `tests/golden/display/<name>.png`, pixel by pixel.
///
/// Where they differ, what was found is kept as a file that the message names.
///
/// # Panics
///
/// When they differ, or there is no such file.
pub fn assert(name: &str, found: &Picture) {
    hold("display", name, found, 0);
}

/// Holds `found` against `tests/golden/painted/<name>.png`, every value to within one level: sums
/// are rounded otherwise by every instruction set.
///
/// # Panics
///
/// As [`assert`].
pub fn assert_painted(name: &str, found: &Picture) {
    hold("painted", name, found, 1);
}

fn hold(folder: &str, name: &str, found: &Picture, levels: u8) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(folder)
        .join(format!("{name}.png"));
    let expected = path.exists().then(|| picture(&path));
    if expected
        .as_ref()
        .is_some_and(|expected| alike(expected, found, levels))
    {
        return;
    }
    let png = found.encode_png(&[]);
    if std::env::var_os("DRIFTGLASS_GOLDEN").is_some_and(|value| value == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, png).unwrap();
        return;
    }
    let kept =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.png", name.replace('/', "-")));
    fs::write(&kept, png).unwrap();
    let difference = expected.map_or("there is no such file".to_owned(), |expected| {
        difference(&expected, found, levels)
    });
    panic!(
        "{}: {difference}; what was drawn: {} (written anew with DRIFTGLASS_GOLDEN=write)",
        path.display(),
        kept.display()
    );
}

/// Whether two pictures have one size, and values no further apart than `levels`.
fn alike(a: &Picture, b: &Picture, levels: u8) -> bool {
    let mut values = a.rgb().iter().zip(b.rgb());
    [a.width_px(), a.height_px()] == [b.width_px(), b.height_px()]
        && values.all(|(a, b)| a.abs_diff(*b) <= levels)
}

/// How two pictures differ by more than `levels`, in words.
fn difference(expected: &Picture, found: &Picture, levels: u8) -> String {
    let size = |picture: &Picture| [picture.width_px(), picture.height_px()];
    if size(expected) != size(found) {
        return format!(
            "expected {:?} px, found {:?} px",
            size(expected),
            size(found)
        );
    }
    let [width, _] = size(found);
    let pixels = expected.rgb().chunks(3).zip(found.rgb().chunks(3));
    let apart = |a: &[u8], b: &[u8]| a.iter().zip(b).any(|(a, b)| a.abs_diff(*b) > levels);
    let differ = pixels.enumerate().filter(|(_, (a, b))| apart(a, b));
    let differ: Vec<_> = differ.collect();
    let (first, (a, b)) = differ[0];
    format!(
        "{} pixels differ, first at ({}, {}): expected {a:?}, found {b:?}",
        differ.len(),
        first % width,
        first / width
    )
}

#[test]
fn a_difference_is_told_with_its_place() {
    let a = Picture::filled(3, 2, [0, 0, 0]);
    let mut rgb = a.rgb().to_vec();
    rgb[3 * 4 + 1] = 9;
    let b = Picture::new(3, 2, rgb);
    assert_eq!(
        difference(&a, &b, 0),
        "1 pixels differ, first at (1, 1): expected [0, 0, 0], found [0, 9, 0]"
    );
    assert!(alike(&a, &b, 9) && !alike(&a, &b, 8));
    let c = Picture::filled(2, 2, [0, 0, 0]);
    assert!(!alike(&a, &c, 255));
    assert_eq!(difference(&a, &c, 0), "expected [3, 2] px, found [2, 2] px");
}
