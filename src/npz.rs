//! numpy's archives of named arrays, `.npz`: a zip file of `.npy` files.
//!
//! Reference trajectories and start noise travel in them. The format is numpy's NEP 1; arrays are
//! little-endian and in C order, of the plain types of [`Dtype`]. An archive comes from outside:
//! nothing is allocated on its word alone, and whatever is wrong with it is an error that names
//! the archive and the array.

use std::fmt;
use std::io::{Cursor, Read, Write};

use half::f16;
use ndarray::{ArrayD, ArrayView, Dimension, IntoDimension, IxDyn};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::error::{Error, Result};

/// The most arrays an archive may hold.
const MAX_ARRAYS: usize = 1024;

/// The most axes an array may have, as in numpy.
const MAX_AXES: usize = 64;

const MAGIC: &[u8] = b"\x93NUMPY";

/// The type of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE half precision, `<f2`.
    F16,
    /// IEEE single precision, `<f4`.
    F32,
    /// IEEE double precision, `<f8`.
    F64,
    /// Signed byte, `|i1`.
    I8,
    /// `<i2`.
    I16,
    /// `<i4`.
    I32,
    /// `<i8`.
    I64,
    /// Unsigned byte, `|u1`.
    U8,
    /// `<u2`.
    U16,
    /// One byte, 0 or 1, `|b1`.
    Bool,
}

impl Dtype {
    const ALL: [Self; 10] = [
        Self::F16,
        Self::F32,
        Self::F64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::U8,
        Self::U16,
        Self::Bool,
    ];

    /// The size of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// numpy's `descr`.
    fn descr(self) -> &'static str {
        match self {
            Self::F16 => "<f2",
            Self::F32 => "<f4",
            Self::F64 => "<f8",
            Self::I8 => "|i1",
            Self::I16 => "<i2",
            Self::I32 => "<i4",
            Self::I64 => "<i8",
            Self::U8 => "|u1",
            Self::U16 => "<u2",
            Self::Bool => "|b1",
        }
    }
}

impl fmt::Display for Dtype {
    /// numpy's name of the type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::Bool => "bool",
        })
    }
}

/// An array of any of the [`Dtype`]s, as its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Array {
    /// An array from its little-endian bytes in C order. The empty shape is a single number.
    ///
    /// # Panics
    ///
    /// When `data` does not hold exactly the elements that `shape` says.
    pub fn new(dtype: Dtype, shape: Vec<usize>, data: Vec<u8>) -> Self {
        assert_eq!(
            byte_len(dtype, &shape),
            Some(data.len()),
            "bytes of {dtype} {shape:?}"
        );
        Self { dtype, shape, data }
    }

    /// All zero, or all false.
    ///
    /// # Panics
    ///
    /// When the shape has more elements than can be addressed.
    pub fn zeros(dtype: Dtype, shape: &[usize]) -> Self {
        let bytes = byte_len(dtype, shape).expect("the shape fits into memory");
        Self::new(dtype, shape.to_vec(), vec![0; bytes])
    }

    /// float32 from any view.
    pub fn from_f32<D: Dimension>(values: ArrayView<f32, D>) -> Self {
        Self::from_elements(Dtype::F32, &values, f32::to_le_bytes)
    }

    /// float16, each value rounded to the nearest.
    pub fn from_f16<D: Dimension>(values: ArrayView<f32, D>) -> Self {
        Self::from_elements(Dtype::F16, &values, |value| {
            f16::from_f32(value).to_le_bytes()
        })
    }

    /// float64 from any view.
    pub fn from_f64<D: Dimension>(values: ArrayView<f64, D>) -> Self {
        Self::from_elements(Dtype::F64, &values, f64::to_le_bytes)
    }

    /// int64 from any view.
    pub fn from_i64<D: Dimension>(values: ArrayView<i64, D>) -> Self {
        Self::from_elements(Dtype::I64, &values, i64::to_le_bytes)
    }

    /// uint8 from any view.
    pub fn from_u8<D: Dimension>(values: ArrayView<u8, D>) -> Self {
        Self::from_elements(Dtype::U8, &values, u8::to_le_bytes)
    }

    /// What the elements are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, little-endian and in C order.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.bytes()
    }

    /// Whether there is no element, because an axis has length 0.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements as float32, rounded where they do not fit.
    pub fn to_f32(&self) -> ArrayD<f32> {
        match self.dtype {
            Dtype::F16 => self.elements(|bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::F32 => self.elements(f32::from_le_bytes),
            Dtype::F64 => self.elements(|bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::I8 => self.elements(|bytes| f32::from(i8::from_le_bytes(bytes))),
            Dtype::I16 => self.elements(|bytes| f32::from(i16::from_le_bytes(bytes))),
            Dtype::I32 => self.elements(|bytes| i32::from_le_bytes(bytes) as f32),
            Dtype::I64 => self.elements(|bytes| i64::from_le_bytes(bytes) as f32),
            Dtype::U8 | Dtype::Bool => self.elements(|[byte]| f32::from(byte)),
            Dtype::U16 => self.elements(|bytes| f32::from(u16::from_le_bytes(bytes))),
        }
    }

    /// The elements as float64; only int64 beyond 2^53 is rounded.
    pub fn to_f64(&self) -> ArrayD<f64> {
        match self.dtype {
            Dtype::F64 => self.elements(f64::from_le_bytes),
            Dtype::I32 => self.elements(|bytes| f64::from(i32::from_le_bytes(bytes))),
            Dtype::I64 => self.elements(|bytes| i64::from_le_bytes(bytes) as f64),
            Dtype::F16
            | Dtype::F32
            | Dtype::I8
            | Dtype::I16
            | Dtype::U8
            | Dtype::U16
            | Dtype::Bool => self.to_f32().mapv(f64::from),
        }
    }

    /// The elements as int64; `None` when they are floating-point numbers.
    pub fn to_i64(&self) -> Option<ArrayD<i64>> {
        Some(match self.dtype {
            Dtype::I8 => self.elements(|bytes| i64::from(i8::from_le_bytes(bytes))),
            Dtype::I16 => self.elements(|bytes| i64::from(i16::from_le_bytes(bytes))),
            Dtype::I32 => self.elements(|bytes| i64::from(i32::from_le_bytes(bytes))),
            Dtype::I64 => self.elements(i64::from_le_bytes),
            Dtype::U8 | Dtype::Bool => self.elements(|[byte]| i64::from(byte)),
            Dtype::U16 => self.elements(|bytes| i64::from(u16::from_le_bytes(bytes))),
            Dtype::F16 | Dtype::F32 | Dtype::F64 => return None,
        })
    }

    fn from_elements<T: Copy, D: Dimension, const N: usize>(
        dtype: Dtype,
        values: &ArrayView<T, D>,
        to_bytes: impl Fn(T) -> [u8; N],
    ) -> Self {
        let data = values.iter().flat_map(|value| to_bytes(*value)).collect();
        Self::new(dtype, values.shape().to_vec(), data)
    }

    fn elements<T, const N: usize>(&self, from_bytes: impl Fn([u8; N]) -> T) -> ArrayD<T> {
        let (chunks, rest) = self.data.as_chunks();
        assert!(N == self.dtype.bytes() && rest.is_empty());
        let values = chunks.iter().map(|bytes| from_bytes(*bytes)).collect();
        ArrayD::from_shape_vec(IxDyn(&self.shape), values)
            .expect("the shape was checked against the bytes")
    }

    /// Reads a `.npy` file; the error says what was expected and what was found.
    fn from_npy(npy: &[u8]) -> Result<Self, (String, String)> {
        let fail = |expected: &str, found: String| Err((expected.to_owned(), found));
        let Some((header, data)) = split_header(npy) else {
            return fail("a numpy array (.npy)", "something else".to_owned());
        };
        let Some(Header {
            descr,
            fortran_order,
            shape,
        }) = Header::parse(header)
        else {
            return fail("a header that numpy writes", format!("{header:?}"));
        };
        let Some(dtype) = Dtype::ALL.into_iter().find(|dtype| dtype.descr() == descr) else {
            return fail(
                "little-endian numbers of a plain type",
                format!("dtype {descr:?}"),
            );
        };
        if fortran_order == "True" && shape.len() > 1 {
            return fail(
                "C order (numpy.ascontiguousarray makes it)",
                "Fortran order".to_owned(),
            );
        }
        if shape.len() > MAX_AXES || byte_len(dtype, &shape) != Some(data.len()) {
            let found = format!("{} bytes", data.len());
            return fail(&format!("the bytes of {dtype} {shape:?}"), found);
        }
        // A Rust bool of another byte would be undefined behaviour further on.
        if let Some(byte) = data.iter().find(|&&byte| dtype == Dtype::Bool && byte > 1) {
            return fail("booleans of 0 and 1", byte.to_string());
        }
        Ok(Self {
            dtype,
            shape,
            data: data.to_vec(),
        })
    }

    /// Writes a `.npy` file of version 1.0, as `numpy.save` does.
    fn write_npy(&self, out: &mut impl Write) -> std::io::Result<()> {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let comma = if shape.len() == 1 { "," } else { "" };
        let mut header = format!(
            "{{'descr': '{}', 'fortran_order': False, 'shape': ({}{comma}), }}",
            self.dtype.descr(),
            shape.join(", ")
        );
        // The data begins at a multiple of 64, after the magic, the version and the length.
        let unpadded = MAGIC.len() + 4 + header.len() + 1;
        header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
        header.push('\n');
        let length = u16::try_from(header.len()).expect("64 axes fill less than 64 KiB");
        out.write_all(MAGIC)?;
        out.write_all(&[1, 0])?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        out.write_all(&self.data)
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} {:?})", self.dtype, self.shape)
    }
}

/// Whether the arrays of an archive are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are, like `numpy.savez`.
    Stored,
    /// With deflate, like `numpy.savez_compressed`.
    Deflated,
}

/// Named arrays, in the order of the file.
///
/// # Example
///
/// ```
/// use driftglass::npz::{Archive, Array, Compression};
///
/// let mut archive = Archive::default();
/// archive.insert("timesteps", Array::from_i64(ndarray::array![999, 500, 0].view()));
/// let bytes = archive.write(Compression::Deflated);
///
/// let archive = Archive::read("reference.npz", &bytes, 1 << 20)?;
/// assert_eq!(archive.require_i64("timesteps", &[3])?[[1]], 500);
/// # Ok::<(), driftglass::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    place: String,
    arrays: Vec<(String, Array)>,
}

impl Archive {
    /// The archive in `bytes`, whose arrays together fill at most `limit_bytes` once unpacked.
    ///
    /// `place` names the file in errors.
    ///
    /// # Errors
    ///
    /// When the bytes are no whole archive, an array is not of a [`Dtype`] or in Fortran order,
    /// two have one name, or a limit is passed.
    pub fn read(place: impl fmt::Display, bytes: &[u8], limit_bytes: usize) -> Result<Self> {
        let place = place.to_string();
        let wrong = |expected: &str, found: &dyn fmt::Display| {
            Error::unexpected(&place, expected, found.to_string().trim_end_matches('.'))
        };
        let mut zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|error| wrong("a numpy archive (.npz)", &error))?;
        if zip.len() > MAX_ARRAYS {
            return Err(wrong(&format!("at most {MAX_ARRAYS} arrays"), &zip.len()));
        }
        if zip.has_duplicate_names() {
            return Err(wrong("names that differ", &"two arrays of one name"));
        }
        let mut archive = Self::default();
        let mut left_bytes = limit_bytes;
        for index in 0..zip.len() {
            let entry = zip
                .by_index(index)
                .map_err(|error| wrong("readable arrays", &error))?;
            let name = entry
                .name()
                .map_err(|error| wrong("array names in UTF-8", &error))?;
            let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
            let wrong_here = |expected: &str, found: &dyn fmt::Display| {
                Error::unexpected(format!("{place}: array {name:?}"), expected, found)
            };
            // One byte more than may come also makes the reader check the sum of the last.
            let mut npy = Vec::new();
            entry
                .take(left_bytes as u64 + 1)
                .read_to_end(&mut npy)
                .map_err(|error| wrong_here("intact bytes", &error))?;
            let Some(left) = left_bytes.checked_sub(npy.len()) else {
                return Err(wrong(
                    &format!("at most {limit_bytes} bytes unpacked"),
                    &"more",
                ));
            };
            left_bytes = left;
            let array =
                Array::from_npy(&npy).map_err(|(expected, found)| wrong_here(&expected, &found))?;
            archive.arrays.push((name, array));
        }
        archive.place = place;
        Ok(archive)
    }

    /// The archive as a file, the same bytes for the same arrays.
    ///
    /// # Panics
    ///
    /// When a name is longer than zip can hold, 64 KiB.
    pub fn write(&self, compression: Compression) -> Vec<u8> {
        let method = match compression {
            Compression::Stored => CompressionMethod::Stored,
            Compression::Deflated => CompressionMethod::Deflated,
        };
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, array) in &self.arrays {
            // The default options hold a fixed time: 1980.
            let options = SimpleFileOptions::default()
                .compression_method(method)
                .large_file(u32::try_from(array.data.len()).is_err());
            zip.start_file(format!("{name}.npy"), options)
                .expect(INTO_MEMORY);
            array.write_npy(&mut zip).expect(INTO_MEMORY);
        }
        zip.finish().expect(INTO_MEMORY).into_inner()
    }

    /// Puts an array in, in the place of an earlier one of that name.
    pub fn insert(&mut self, name: impl Into<String>, array: Array) {
        let name = name.into();
        match self.arrays.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = array,
            None => self.arrays.push((name, array)),
        }
    }

    /// The names in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.iter().map(|(name, _)| name.as_str())
    }

    /// The array of that name.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.arrays
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, array)| array)
    }

    /// The array of that name, which must be there.
    ///
    /// # Errors
    ///
    /// When it is not; the error lists those that are.
    pub fn require(&self, name: &str) -> Result<&Array> {
        self.get(name).ok_or_else(|| {
            let names = self.names().collect::<Vec<_>>().join(", ");
            let found = if names.is_empty() {
                "none"
            } else {
                names.as_str()
            };
            Error::unexpected(&self.place, format!("an array {name:?}"), found)
        })
    }

    /// The elements of the array of that name and `shape`, as float32.
    ///
    /// # Errors
    ///
    /// When it is missing or has another shape.
    pub fn require_f32(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        Ok(self.require_shape(name, shape)?.to_f32())
    }

    /// The elements of the array of that name and `shape`, as float32, each of them a number.
    ///
    /// # Errors
    ///
    /// When it is missing, has another shape, or holds infinity or NaN.
    pub fn require_finite<S: IntoDimension>(
        &self,
        name: &str,
        shape: S,
    ) -> Result<ndarray::Array<f32, S::Dim>> {
        let values = self.require_f32(name, shape.into_dimension().slice())?;
        if let Some(found) = values.iter().find(|value| !value.is_finite()) {
            let place = format!("{}: {name}", self.place);
            return Err(Error::unexpected(place, "finite numbers", found));
        }
        let typed = values.into_dimensionality();
        Ok(typed.expect("the shape was asked for"))
    }

    /// The elements of the array of that name and `shape`, as int64.
    ///
    /// # Errors
    ///
    /// When it is missing, has another shape, or holds floating-point numbers.
    pub fn require_i64(&self, name: &str, shape: &[usize]) -> Result<ArrayD<i64>> {
        let array = self.require_shape(name, shape)?;
        array
            .to_i64()
            .ok_or_else(|| Error::unexpected(self.place_of(name), "whole numbers", array.dtype))
    }

    fn require_shape(&self, name: &str, shape: &[usize]) -> Result<&Array> {
        let array = self.require(name)?;
        if array.shape != shape {
            let [expected, found] = [shape, &array.shape].map(|shape| format!("shape {shape:?}"));
            return Err(Error::unexpected(self.place_of(name), expected, found));
        }
        Ok(array)
    }

    fn place_of(&self, name: &str) -> String {
        format!("{}: array {name:?}", self.place)
    }
}

/// Why writing cannot fail: the names differ and the sizes are known.
const INTO_MEMORY: &str = "an archive of differing names can be written into memory";

/// The bytes that `shape` fills; `None` when they cannot be counted or addressed.
fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    // An axis of length 0 must not hide that the others overflow: ndarray refuses that.
    let spanned = shape.iter().try_fold(dtype.bytes(), |bytes, axis| {
        bytes
            .checked_mul((*axis).max(1))
            .filter(|bytes| isize::try_from(*bytes).is_ok())
    })?;
    Some(if shape.contains(&0) { 0 } else { spanned })
}

/// The header of a `.npy` file as text, and the data after it.
fn split_header(npy: &[u8]) -> Option<(&str, &[u8])> {
    let (&[major, _minor], rest) = npy.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((str::from_utf8(header).ok()?.trim_end(), data))
}

/// What a `.npy` header says: the literal of a Python dictionary with exactly these keys.
struct Header<'a> {
    descr: &'a str,
    fortran_order: &'a str,
    shape: Vec<usize>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text.strip_prefix('{')?.trim_start();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.starts_with('}') {
            let (key, after) = quoted(rest)?;
            let after = after.trim_start().strip_prefix(':')?.trim_start();
            match key {
                "descr" => {
                    (descr, rest) = quoted(after).map(|(value, rest)| (Some(value), rest))?
                }
                "fortran_order" => {
                    let word = ["False", "True"]
                        .into_iter()
                        .find(|word| after.starts_with(word))?;
                    (fortran_order, rest) = (Some(word), &after[word.len()..]);
                }
                "shape" => {
                    let (tuple, after) = after.strip_prefix('(')?.split_once(')')?;
                    (shape, rest) = (Some(axes(tuple)?), after);
                }
                _ => return None,
            }
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        (rest == "}").then_some(())?;
        Some(Self {
            descr: descr?,
            fortran_order: fortran_order?,
            shape: shape?,
        })
    }
}

/// A Python string at the beginning of `text`, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('\'')?.split_once('\'')
}

/// The numbers of a Python tuple without its parentheses: "", "5," or "2, 3".
fn axes(tuple: &str) -> Option<Vec<usize>> {
    let tuple = tuple.trim();
    let tuple = tuple.strip_suffix(',').unwrap_or(tuple);
    if tuple.is_empty() {
        return Some(Vec::new());
    }
    tuple
        .split(',')
        .map(|axis| axis.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, array};

    const LIMIT: usize = 1 << 20;

    /// What `numpy.savez(f, a=numpy.array([[1.5, -2]], "<f4"), n=numpy.int64(-7))` holds.
    const A_NPY: &[u8] = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, \
        'shape': (1, 2), }                                                          \n\
        \x00\x00\xc0\x3f\x00\x00\x00\xc0";

    fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), data].concat()
    }

    fn error_of(header: &str, data: &[u8]) -> String {
        let bytes = zipped(&[("x.npy", &npy(header, data))]);
        Archive::read("a.npz", &bytes, LIMIT)
            .unwrap_err()
            .to_string()
    }

    fn sample() -> Archive {
        let mut archive = Archive::default();
        let wave = Array1::from_shape_fn(200, |i| (i as f32 * 0.1).sin());
        archive.insert("start", Array::from_f32(wave.view()));
        archive.insert(
            "half",
            Array::from_f16(array![[0.1, -2.0], [65504.0, 1e-9]].view()),
        );
        archive.insert("double", Array::from_f64(array![0.1].view()));
        archive.insert("timesteps", Array::from_i64(array![999, 0, -1].view()));
        archive.insert("bytes", Array::from_u8(array![[[0, 255]]].view()));
        archive.insert("scalar", Array::from_f32(ndarray::arr0(7.0).view()));
        archive.insert(
            "empty",
            Array::from_f32(ndarray::Array2::zeros((3, 0)).view()),
        );
        archive
    }

    #[test]
    fn archives_come_back_and_are_always_the_same() {
        for compression in [Compression::Stored, Compression::Deflated] {
            let bytes = sample().write(compression);
            assert_eq!(bytes, sample().write(compression));
            let archive = Archive::read("", &bytes, LIMIT).unwrap();
            assert_eq!(archive, sample());
            assert_eq!(archive.names().next(), Some("start"));
            assert_eq!(
                archive.get("scalar").unwrap().to_f32(),
                ndarray::arr0(7.0).into_dyn()
            );
            assert!(archive.get("empty").unwrap().is_empty());
        }
        let lengths = [Compression::Stored, Compression::Deflated].map(|c| sample().write(c).len());
        assert!(lengths[1] < lengths[0]);
    }

    #[test]
    fn the_bytes_are_those_of_numpy() {
        let array = Array::from_f32(array![[1.5, -2.0]].view());
        let mut written = Vec::new();
        array.write_npy(&mut written).unwrap();
        assert_eq!(written, A_NPY);
        assert_eq!(Array::from_npy(A_NPY), Ok(array));
    }

    #[test]
    fn every_type_is_read_as_numbers() {
        for (descr, data, expected) in [
            ("<f2", &[0x00, 0xbc, 0x00, 0x3c][..], [-1.0, 1.0]),
            ("<f4", &[0, 0, 0x80, 0xbf, 0, 0, 0x80, 0x3f], [-1.0, 1.0]),
            (
                "<f8",
                &[0, 0, 0, 0, 0, 0, 0xf0, 0xbf, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
                [-1.0, 1.0],
            ),
            ("|i1", &[255, 1], [-1.0, 1.0]),
            ("|u1", &[255, 1], [255.0, 1.0]),
            ("|b1", &[0, 1], [0.0, 1.0]),
            ("<i2", &[255, 255, 0, 1], [-1.0, 256.0]),
            ("<u2", &[255, 255, 0, 1], [65535.0, 256.0]),
            ("<i4", &[255, 255, 255, 255, 1, 0, 0, 0], [-1.0, 1.0]),
            (
                "<i8",
                &[
                    255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0,
                ],
                [-1.0, 1.0],
            ),
        ] {
            let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}");
            let array = Array::from_npy(&npy(&header, data)).unwrap();
            assert_eq!(array.len(), 2);
            assert_eq!(
                array.to_f64(),
                array![expected[0], expected[1]].into_dyn(),
                "{descr}"
            );
            assert_eq!(
                array.to_f32(),
                array.to_f64().mapv(|value| value as f32),
                "{descr}"
            );
            match array.to_i64() {
                Some(whole) => assert_eq!(whole.mapv(|value| value as f64), array.to_f64()),
                None => assert!(descr.contains('f')),
            }
        }
    }

    #[test]
    fn views_of_any_layout_are_written_in_c_order() {
        let matrix = array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let turned = Array::from_f32(matrix.t());
        assert_eq!(turned.shape(), [3, 2]);
        assert_eq!(
            turned.to_f32(),
            array![[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]].into_dyn()
        );
    }

    #[test]
    fn headers_in_other_hands_are_read() {
        let data = [1, 2];
        for header in [
            "{'shape': (2,), 'fortran_order': False, 'descr': '|u1'}",
            "{ 'descr' :'|u1','fortran_order':True, 'shape':( 2 , ),}\n",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2), }",
        ] {
            assert_eq!(
                Array::from_npy(&npy(header, &data)).unwrap().data(),
                data,
                "{header}"
            );
        }
        let mut version_2 = npy(
            "..{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}",
            &data,
        );
        let length = version_2[8];
        version_2[6] = 2;
        version_2[8..12].copy_from_slice(&u32::from(length - 2).to_le_bytes());
        assert_eq!(Array::from_npy(&version_2).unwrap().data(), data);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let dictionary = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")
        };
        for (header, end) in [
            (
                dictionary(">f4", "False", "(1,)"),
                "of a plain type, found dtype \">f4\"",
            ),
            (dictionary("<U3", "False", "(1,)"), "found dtype \"<U3\""),
            (
                dictionary("<f4", "True", "(1, 1)"),
                "makes it), found Fortran order",
            ),
            (
                dictionary("<f4", "False", "(2,)"),
                "bytes of float32 [2], found 4 bytes",
            ),
            (
                dictionary("|u1", "False", "(18446744073709551615, 2)"),
                "found 4 bytes",
            ),
            (
                dictionary("|u1", "False", "(0, 18446744073709551615, 9)"),
                "found 4 bytes",
            ),
            (dictionary("|u1", "False", "(-1,)"), "'shape': (-1,), }\""),
            (
                dictionary("|u1", "False", &format!("({})", "1,".repeat(65))),
                "found 4 bytes",
            ),
            ("{'descr': [('a', '<f4')], }".into(), "'<f4')], }\""),
            ("{".into(), "found \"{\""),
        ] {
            let error = error_of(&header, &[0; 4]);
            assert!(
                error.starts_with("a.npz: array \"x\": expected "),
                "{error}"
            );
            assert!(error.ends_with(end), "{error}");
        }
        let error = Archive::read("a.npz", b"PK, no", LIMIT)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("a.npz: expected a numpy archive (.npz), found "),
            "{error}"
        );
        let error = Archive::read("a.npz", &zipped(&[("readme", b"hello")]), LIMIT).unwrap_err();
        assert!(
            error.to_string().ends_with("found something else"),
            "{error}"
        );
    }

    #[test]
    fn bombs_do_not_go_off() {
        let zeros = Array::new(Dtype::U8, vec![LIMIT], vec![0; LIMIT]);
        let mut archive = Archive::default();
        archive.insert("zeros", zeros);
        let bytes = archive.write(Compression::Deflated);
        assert!(bytes.len() < 10_000);
        assert!(Archive::read("", &bytes, LIMIT + 128).is_ok());
        let error = Archive::read("a.npz", &bytes, LIMIT + 127)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "a.npz: expected at most 1048703 bytes unpacked, found more"
        );

        let names: Vec<String> = (0..=MAX_ARRAYS).map(|index| index.to_string()).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), A_NPY)).collect();
        let error = Archive::read("a.npz", &zipped(&many), LIMIT)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "a.npz: expected at most 1024 arrays, found 1025");
    }

    #[test]
    fn arrays_are_required_by_name_shape_and_kind() {
        let bytes = sample().write(Compression::Stored);
        let archive = Archive::read("r.npz", &bytes, LIMIT).unwrap();
        assert_eq!(archive.require_i64("timesteps", &[3]).unwrap()[[0]], 999);
        assert_eq!(
            archive.require_f32("half", &[2, 2]).unwrap()[[1, 0]],
            65504.0
        );
        for (error, text) in [
            (
                archive.require("noise").unwrap_err(),
                "r.npz: expected an array \"noise\", found start, half, double, timesteps, bytes, \
                 scalar, empty",
            ),
            (
                archive.require_f32("half", &[4]).unwrap_err(),
                "r.npz: array \"half\": expected shape [4], found shape [2, 2]",
            ),
            (
                archive.require_i64("half", &[2, 2]).unwrap_err(),
                "r.npz: array \"half\": expected whole numbers, found float16",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_damaged_archive_is_an_error_and_never_a_panic() {
        for compression in [Compression::Stored, Compression::Deflated] {
            let bytes = sample().write(compression);
            for length in (0..bytes.len()).step_by(3) {
                assert!(
                    Archive::read("", &bytes[..length], LIMIT).is_err(),
                    "{length}"
                );
            }
            let mut unnoticed = 0;
            for bit in (0..8 * bytes.len()).step_by(7) {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let read = Archive::read("", &damaged, LIMIT);
                let unharmed = |archive: Archive| {
                    archive
                        .arrays
                        .iter()
                        .all(|(_, array)| sample().arrays.iter().any(|(_, intact)| intact == array))
                };
                unnoticed += usize::from(read.is_ok_and(|archive| !unharmed(archive)));
            }
            assert_eq!(unnoticed, 0, "an array changed and the sum did not tell");
        }
    }

    #[test]
    fn headers_out_of_any_bytes_never_panic() {
        let mut word = 1_u32;
        let alphabet = "{}()',: 0195<|fui2descr'shape'fortran_orderTrueFalse";
        for _ in 0..20_000 {
            let mut text =
                String::from("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }");
            for _ in 0..3 {
                word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (word >> 8) as usize;
                let character = alphabet.as_bytes()[at % alphabet.len()] as char;
                let place = at / 64 % text.len();
                text.replace_range(place..=place, &character.to_string());
            }
            let _ = Array::from_npy(&npy(&text, &[1, 2]));
        }
    }
}
