//! A card as the kernel shows it: its tables, its master, its page flips.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drm::control::{Device as _, Event, PageFlipFlags, connector, crtc, framebuffer};
use drm::control::{ModeFlags, ModeTypeFlags, ResourceHandles};
use drm::{Device as _, DriverCapability};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::choice;
use crate::error::{Error, Result};

/// How long a flip may take: the slowest screens show 24 pictures in a second, and a display behind
/// SPI five.
const FLIP_DEADLINE: Duration = Duration::from_secs(1);

/// An open /dev/dri/cardN.
pub(super) struct Card {
    file: File,
    path: PathBuf,
}

/// How a connector is asked.
#[derive(Clone, Copy)]
pub(super) enum Probe {
    /// The screen itself is asked for its modes, which takes some milliseconds and may flicker.
    Screen,
    /// The kernel says what it knows.
    Kernel,
}

/// A card's tables, and what the kernel gave them from.
pub(super) struct Tables {
    pub(super) card: choice::Card,
    pub(super) connectors: Vec<connector::Info>,
}

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

impl Card {
    /// Opens a card; the first who does becomes its master.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// "card1".
    pub(super) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Whether screens can be shown something: only the master may.
    ///
    /// # Errors
    ///
    /// When another program is the card's master, or this one may not become it.
    pub(super) fn become_master(&self) -> Result<()> {
        self.acquire_master_lock()
            .map_err(|cause| match cause.raw_os_error() {
                Some(EBUSY) => self.taken(),
                _ => self.refused("use", cause),
            })
    }

    /// The sentence for a call that the kernel refused.
    pub(super) fn refused(&self, action: &'static str, cause: io::Error) -> Error {
        match cause.raw_os_error() {
            // What it says to whoever is not the master.
            Some(EPERM | EACCES) => self.taken(),
            _ => Error::io(&self.path, action, cause),
        }
    }

    fn taken(&self) -> Error {
        let expected = "no other program drawing on this screen (a desktop goes with \
            \"sudo systemctl isolate multi-user.target\")";
        Error::unexpected(self.path.display(), expected, holders(&self.path))
    }

    /// All that a choice is made from; a card without screens has empty tables.
    pub(super) fn tables(&self, probe: Probe) -> Tables {
        let resources = self.resource_handles().ok();
        let mut connectors = Vec::new();
        let mut tables = choice::Resources::default();
        if let Some(resources) = resources {
            tables.crtcs = resources.crtcs().iter().map(|&crtc| crtc.into()).collect();
            tables.encoders = self.encoders(&resources);
            for &handle in resources.connectors() {
                // A connector of a dock may be gone since it was listed.
                let force = matches!(probe, Probe::Screen);
                if let Ok(info) = self.get_connector(handle, force) {
                    tables.connectors.push(socket(&info));
                    connectors.push(info);
                }
            }
        }
        let dumb_buffers = self.get_driver_capability(DriverCapability::DumbBuffer);
        let card = choice::Card {
            name: self.name(),
            dumb_buffers: dumb_buffers.is_ok_and(|value| value != 0),
            resources: tables,
        };
        Tables { card, connectors }
    }

    fn encoders(&self, resources: &ResourceHandles) -> Vec<choice::Encoder> {
        let infos = resources.encoders().iter();
        let infos = infos.filter_map(|&handle| self.get_encoder(handle).ok());
        infos
            .map(|info| {
                let possible = resources.filter_crtcs(info.possible_crtcs());
                let mask = resources.crtcs().iter().take(32).enumerate();
                let mask = mask.filter(|(_, crtc)| possible.contains(crtc));
                choice::Encoder {
                    id: info.handle().into(),
                    possible_crtcs: mask.map(|(bit, _)| 1 << bit).sum(),
                    crtc: info.crtc().map(Into::into),
                }
            })
            .collect()
    }

    /// Whether the connector still has a screen, as far as the kernel knows.
    pub(super) fn is_connected(&self, connector: connector::Handle) -> io::Result<bool> {
        let info = self.get_connector(connector, false)?;
        Ok(info.state() != connector::State::Disconnected)
    }

    /// Shows `buffer` from the next refresh on, and waits until it is shown.
    pub(super) fn flip(&self, crtc: crtc::Handle, buffer: framebuffer::Handle) -> Result<()> {
        self.page_flip(crtc, buffer, PageFlipFlags::EVENT, None)
            .map_err(|cause| self.refused("show a picture on", cause))?;
        let deadline = Instant::now() + FLIP_DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let expected = format!("a picture shown within {} s", FLIP_DEADLINE.as_secs());
                return Err(Error::unexpected(
                    self.path.display(),
                    expected,
                    "no answer",
                ));
            }
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: left.as_nanos().min(999_999_999) as _,
            };
            let mut waited = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut waited, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(cause) => return Err(self.refused("wait for", cause.into())),
            }
            let mut events = self
                .receive_events()
                .map_err(|cause| self.refused("wait for", cause))?;
            if events.any(|event| matches!(event, Event::PageFlip(_))) {
                return Ok(());
            }
        }
    }

    /// The connector's property DPMS, which lights it or lets it sleep.
    pub(super) fn set_dpms(&self, connector: connector::Handle, value: u64) -> Result<()> {
        let refused = |cause| self.refused("switch the screen of", cause);
        let properties = self.get_properties(connector).map_err(refused)?;
        for (&property, _) in &properties {
            let info = self.get_property(property).map_err(refused)?;
            if info.name().to_bytes() == b"DPMS" {
                return self
                    .set_property(connector, property, value)
                    .map_err(refused);
            }
        }
        let place = self.path.display();
        Err(Error::unexpected(
            place,
            "a screen that can be switched off",
            "none",
        ))
    }
}

/// asm-generic/errno-base.h, the same on every machine that this is built for.
const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;

fn socket(info: &connector::Info) -> choice::Connector {
    choice::Connector {
        id: info.handle().into(),
        name: info.to_string(),
        state: match info.state() {
            connector::State::Connected => choice::State::Connected,
            connector::State::Disconnected => choice::State::Disconnected,
            connector::State::Unknown => choice::State::Unknown,
        },
        modes: info.modes().iter().map(timing).collect(),
        encoders: info
            .encoders()
            .iter()
            .map(|&encoder| encoder.into())
            .collect(),
        encoder: info.current_encoder().map(Into::into),
    }
}

fn timing(mode: &drm::control::Mode) -> choice::Timing {
    let partly = ModeFlags::INTERLACE | ModeFlags::DBLSCAN;
    choice::Timing {
        size_px: mode.size().into(),
        refresh_hz: mode.vrefresh(),
        preferred: mode.mode_type().contains(ModeTypeFlags::PREFERRED),
        progressive: !mode.flags().intersects(partly),
    }
}

/// Who else has this device open, as far as /proc shows: "Xorg (process 612)".
fn holders(device: &Path) -> String {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        (id != std::process::id()).then_some((id, entry.path()))
    });
    let holds = |process: &Path| {
        let files = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .map(|file| fs::read_link(file.path()))
            .any(|target| target.is_ok_and(|it| it == device))
    };
    let holders = processes
        .filter(|(_, process)| holds(process))
        .map(|(id, process)| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            format!("{} (process {id})", name.trim())
        });
    let holders: Vec<String> = holders.collect();
    if holders.is_empty() {
        "one, or no right to draw".into()
    } else {
        holders.join(", ")
    }
}
