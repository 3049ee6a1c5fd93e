//! Hardware PWM of the header through sysfs, its chip found by its device.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Header, Roots, not_allowed};
use crate::error::{Error, Result};

/// One kilohertz: no eye sees it flicker, every backlight's driver follows it.
const PERIOD_NS: u64 = 1_000_000;

/// How long udev may take to hand a new channel to its group.
const EXPORT_DEADLINE: Duration = Duration::from_secs(1);

/// A PWM channel that is running.
#[derive(Debug)]
pub struct Pwm {
    folder: PathBuf,
}

impl Header {
    /// Takes BCM `gpio`'s PWM output, low for now; `purpose` is its key in the panel's file.
    ///
    /// # Errors
    ///
    /// When the pin has no PWM, the PWM is off, or not this user's.
    pub fn open_pwm(&self, roots: &Roots, gpio: u32, purpose: &str) -> Result<Pwm> {
        let place = format!("{purpose} (GPIO {gpio})");
        let output = self.pwm.get(&gpio).ok_or_else(|| {
            let pins: Vec<String> = self.pwm.keys().map(u32::to_string).collect();
            let expected = match &pins[..] {
                [] => "a board whose header has hardware PWM".to_owned(),
                pins => format!("a GPIO with hardware PWM: {}", pins.join(", ")),
            };
            Error::unexpected(&place, expected, gpio)
        })?;
        let chip = find_chip(roots, &output.device).ok_or_else(|| {
            Error::unexpected(
                &place,
                format!("the PWM chip of {}", output.device),
                format!("none; switch it on: {}", output.enable),
            )
        })?;
        Pwm::export(&chip, output.channel)
    }
}

impl Pwm {
    fn export(chip: &Path, channel: u32) -> Result<Self> {
        let folder = chip.join(format!("pwm{channel}"));
        if !folder.is_dir() {
            write(&chip.join("export"), &channel.to_string())?;
        }
        let pwm = Self { folder };
        let deadline = Instant::now() + EXPORT_DEADLINE;
        while let Err(error) = pwm.start() {
            if Instant::now() >= deadline {
                return Err(error);
            }
            thread::sleep(EXPORT_DEADLINE / 20);
        }
        Ok(pwm)
    }

    fn start(&self) -> Result<()> {
        // A pulse longer than the period is refused, and so is any pulse while there is no period.
        let period = |_| {
            self.set("duty_cycle", 0)?;
            self.set("period", PERIOD_NS)
        };
        self.set("period", PERIOD_NS).or_else(period)?;
        self.set("duty_cycle", 0)?;
        self.set("enable", 1)
    }

    /// Holds the output high for `percent`, from 0 to 100, of the time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_percent(&mut self, percent: u8) -> Result<()> {
        self.set("duty_cycle", PERIOD_NS * u64::from(percent.min(100)) / 100)
    }

    fn set(&self, file: &str, value: u64) -> Result<()> {
        write(&self.folder.join(file), &value.to_string())
    }
}

/// Writes to a sysfs attribute, which nothing may be renamed over.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|cause| match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::unexpected(path.display(), "to write to it", not_allowed("gpio"))
        }
        _ => Error::io(path, "write", cause),
    })
}

/// `/sys/class/pwm/pwmchipN` whose device is named `device`.
fn find_chip(roots: &Roots, device: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(roots.sys.join("class/pwm")).ok()?;
    let mut chips = entries.flatten().map(|entry| entry.path());
    chips.find(|chip| {
        let carried = fs::canonicalize(chip.join("device"));
        carried.is_ok_and(|carrier| carrier.file_name().is_some_and(|name| name == device))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{header, roots};
    use super::*;

    /// A PWM class with two chips, the second of which carries `device`.
    fn class(roots: &Roots, device: &str) -> PathBuf {
        let devices = roots.sys.join("devices");
        for (chip, device) in [("pwmchip0", "another.pwm"), ("pwmchip3", device)] {
            let chip = roots.sys.join("class/pwm").join(chip);
            fs::create_dir_all(&chip).unwrap();
            fs::create_dir_all(devices.join(device)).unwrap();
            std::os::unix::fs::symlink(devices.join(device), chip.join("device")).unwrap();
        }
        roots.sys.join("class/pwm/pwmchip3")
    }

    #[test]
    fn a_channel_is_found_by_its_device_and_runs_dark() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let chip = class(&roots, "fe20c000.pwm");
        let channel = chip.join("pwm1");
        fs::create_dir(&channel).unwrap();
        let mut pwm = header().open_pwm(&roots, 13, "backlight").unwrap();
        let read = |file| fs::read_to_string(channel.join(file)).unwrap();
        assert_eq!(read("duty_cycle"), "0");
        assert_eq!(
            (read("period"), read("enable")),
            ("1000000".into(), "1".into())
        );
        pwm.set_percent(25).unwrap();
        assert_eq!(read("duty_cycle"), "250000");
        assert!(!chip.join("export").exists(), "it was there already");
    }

    #[test]
    fn a_channel_that_never_appears_is_an_error_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let chip = class(&roots, "fe20c000.pwm");
        let before = Instant::now();
        let error = header().open_pwm(&roots, 13, "backlight").unwrap_err();
        assert!(before.elapsed() < 3 * EXPORT_DEADLINE);
        assert!(
            error.to_string().contains("pwm1/duty_cycle: cannot write"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(chip.join("export")).unwrap(), "1");
    }

    #[test]
    fn a_pwm_that_is_off_is_said_with_what_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        class(&roots, "elsewhere.pwm");
        let off = header()
            .open_pwm(&roots, 13, "backlight")
            .unwrap_err()
            .to_string();
        assert!(off.starts_with("backlight (GPIO 13): expected the PWM chip of fe20c000.pwm"));
        assert!(
            off.ends_with("switch it on: dtoverlay=pwm,pin=13,func=4"),
            "{off}"
        );
        let no_pwm = header()
            .open_pwm(&roots, 4, "backlight")
            .unwrap_err()
            .to_string();
        assert!(no_pwm.ends_with("hardware PWM: 13, found 4"), "{no_pwm}");
    }
}
