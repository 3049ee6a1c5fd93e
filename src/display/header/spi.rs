//! SPI through the kernel's spidev, in pieces that it takes.

use std::fs;
use std::io;
use std::path::Path;

use embedded_hal::spi::{ErrorType, Operation, SpiDevice};
use linux_embedded_hal::SpidevDevice;
use linux_embedded_hal::spidev::{SpiModeFlags, SpidevOptions};

use super::{Header, Roots, SpiBus, not_allowed};
use crate::error::{Error, Result};

/// What spidev takes in one message when its parameter cannot be read: the kernel's own default.
const BUFSIZ_DEFAULT: usize = 4096;

/// No message is longer, whatever spidev allows: 16-bit length registers of DMA engines.
const MESSAGE_BYTES_MAX: usize = 65_535;

/// How a device wants its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// At most this fast; the kernel takes the next slower rate that it can make.
    pub hz: u32,
    /// The SPI mode, from 0 to 3: idle level and edge.
    pub mode: u8,
}

impl Header {
    /// Opens the device on chip select `chip_select` of the header's bus `name`; the kernel drives
    /// the chip select.
    ///
    /// # Errors
    ///
    /// When the board has no such bus, the bus is off, the device is not there or not this user's,
    /// or refuses the clock.
    pub fn open_spi(
        &self,
        roots: &Roots,
        name: &str,
        chip_select: u8,
        clock: Clock,
    ) -> Result<Chunked<SpidevDevice>> {
        let bus = self.spi_bus(name)?;
        let path = roots.dev.join(format!("spidev{}.{chip_select}", bus.bus));
        let mut device = SpidevDevice::open(&path)
            .map_err(|error| cannot_open(roots, bus, name, &path, error.inner()))?;
        let mode = SpiModeFlags::from_bits_truncate(u32::from(clock.mode & 3));
        let options = SpidevOptions::new()
            .bits_per_word(8)
            .max_speed_hz(clock.hz)
            .mode(mode)
            .build();
        device
            .configure(&options)
            .map_err(|cause| Error::io(&path, "set the clock of", cause))?;
        Ok(Chunked::new(device, message_bytes_max(roots)))
    }

    fn spi_bus(&self, name: &str) -> Result<&SpiBus> {
        self.spi.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.spi.keys().map(String::as_str).collect();
            let expected = match names[..] {
                [] => "a board whose header has SPI".to_owned(),
                _ => format!("an SPI bus of this board's header: {}", names.join(", ")),
            };
            Error::unexpected("spi", expected, format!("{name:?}"))
        })
    }
}

/// The longest message that spidev takes, in bytes.
pub fn message_bytes_max(roots: &Roots) -> usize {
    let parameter = roots.sys.join("module/spidev/parameters/bufsiz");
    let text = fs::read_to_string(parameter).unwrap_or_default();
    let bytes = text.trim().parse().unwrap_or(BUFSIZ_DEFAULT);
    bytes.clamp(1, MESSAGE_BYTES_MAX)
}

fn cannot_open(roots: &Roots, bus: &SpiBus, name: &str, path: &Path, cause: &io::Error) -> Error {
    let expected = format!("the device of {name}");
    match cause.kind() {
        io::ErrorKind::NotFound if bus_is_on(roots, bus) => Error::unexpected(
            path.display(),
            expected,
            "none, though the bus is on; another overlay holds this chip select, or leaves it out \
             (dtoverlay=spi0-2cs gives two)",
        ),
        io::ErrorKind::NotFound => Error::unexpected(
            path.display(),
            expected,
            format!("none; switch SPI on: {}", bus.enable),
        ),
        io::ErrorKind::PermissionDenied => {
            Error::unexpected(path.display(), expected, not_allowed("spi"))
        }
        _ => Error::io(
            path,
            "open",
            io::Error::new(cause.kind(), cause.to_string()),
        ),
    }
}

fn bus_is_on(roots: &Roots, bus: &SpiBus) -> bool {
    let prefix = format!("spidev{}.", bus.bus);
    let entries = fs::read_dir(&roots.dev).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with(&prefix))
}

/// An SPI device whose longer writes go in several messages.
///
/// Between them the kernel lets go of the chip select; controllers go on with a memory write.
#[derive(Debug)]
pub struct Chunked<S> {
    device: S,
    bytes_max: usize,
}

impl<S> Chunked<S> {
    /// Messages of at most `bytes_max` bytes to `device`.
    ///
    /// # Panics
    ///
    /// When `bytes_max` is zero.
    pub fn new(device: S, bytes_max: usize) -> Self {
        assert!(bytes_max > 0, "no message of {bytes_max} bytes");
        Self { device, bytes_max }
    }

    /// The longest message, in bytes.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

impl<S: ErrorType> ErrorType for Chunked<S> {
    type Error = S::Error;
}

impl<S: SpiDevice> SpiDevice for Chunked<S> {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), S::Error> {
        let mut rest = operations;
        while !rest.is_empty() {
            if let [Operation::Write(bytes), ..] = rest
                && bytes.len() > self.bytes_max
            {
                for piece in bytes.chunks(self.bytes_max) {
                    self.device.write(piece)?;
                }
                rest = &mut rest[1..];
                continue;
            }
            let (message, others) = rest.split_at_mut(self.fitting(rest));
            self.device.transaction(message)?;
            rest = others;
        }
        Ok(())
    }
}

impl<S> Chunked<S> {
    /// How many of `operations`, at least one, fit one message.
    fn fitting(&self, operations: &[Operation<'_, u8>]) -> usize {
        let mut bytes = 0;
        let fits = |operation: &&Operation<'_, u8>| {
            bytes += match operation {
                Operation::Read(read) => read.len(),
                Operation::Write(write) => write.len(),
                Operation::Transfer(read, write) => read.len().max(write.len()),
                Operation::TransferInPlace(both) => both.len(),
                Operation::DelayNs(_) => 0,
            };
            bytes <= self.bytes_max
        };
        operations.iter().take_while(fits).count().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{header, roots};
    use super::*;
    use std::convert::Infallible;

    #[derive(Debug, Default)]
    struct Messages(Vec<Vec<u8>>);

    impl ErrorType for Messages {
        type Error = Infallible;
    }

    impl SpiDevice for Messages {
        fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
            let mut message = Vec::new();
            for operation in operations {
                if let Operation::Write(bytes) = operation {
                    message.extend_from_slice(bytes);
                }
            }
            self.0.push(message);
            Ok(())
        }
    }

    #[test]
    fn a_long_write_goes_in_pieces_and_in_order() {
        let mut spi = Chunked::new(Messages::default(), 4);
        let bytes: Vec<u8> = (0..11).collect();
        spi.write(&bytes).unwrap();
        assert_eq!(spi.device.0, [&bytes[..4], &bytes[4..8], &bytes[8..]]);
    }

    #[test]
    fn short_operations_stay_together_while_they_fit() {
        let mut spi = Chunked::new(Messages::default(), 4);
        let mut operations = [
            Operation::Write(&[1, 2]),
            Operation::DelayNs(5),
            Operation::Write(&[3, 4]),
            Operation::Write(&[5]),
            Operation::Write(&[6, 7, 8, 9, 10]),
            Operation::Write(&[11]),
        ];
        spi.transaction(&mut operations).unwrap();
        let expected: [&[u8]; 5] = [&[1, 2, 3, 4], &[5], &[6, 7, 8, 9], &[10], &[11]];
        assert_eq!(spi.device.0, expected);
    }

    #[test]
    fn the_longest_message_is_the_kernels() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        assert_eq!(message_bytes_max(&roots), 4096);
        let parameters = roots.sys.join("module/spidev/parameters");
        fs::create_dir_all(&parameters).unwrap();
        for (text, bytes) in [("65536\n", 65_535), ("512", 512), ("0", 1), ("?", 4096)] {
            fs::write(parameters.join("bufsiz"), text).unwrap();
            assert_eq!(message_bytes_max(&roots), bytes, "{text}");
        }
    }

    #[test]
    fn a_missing_device_is_said_with_what_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let clock = Clock { hz: 1, mode: 0 };
        let open = |name, chip_select| {
            let opened = header().open_spi(&roots, name, chip_select, clock);
            opened.err().unwrap().to_string()
        };
        let off = open("spi0", 1);
        assert!(
            off.contains("spidev0.1: expected the device of spi0"),
            "{off}"
        );
        assert!(
            off.ends_with("none; switch SPI on: dtparam=spi=on"),
            "{off}"
        );
        let unknown = open("spi7", 0);
        assert!(
            unknown.ends_with("header: spi0, spi1, found \"spi7\""),
            "{unknown}"
        );

        fs::write(roots.dev.join("spidev0.0"), "no device").unwrap();
        let other = open("spi0", 1);
        assert!(other.contains("though the bus is on"), "{other}");
        let file = open("spi0", 0);
        assert!(
            file.contains("spidev0.0: cannot set the clock of"),
            "{file}"
        );
    }
}
