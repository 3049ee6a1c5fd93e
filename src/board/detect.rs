//! Which board this is, which panel it could use, and what its system lacks.
//!
//! Everything is read from files of the kernel below a root folder, so that a test lays out a
//! board's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::check::Wires;
use super::panel::Facts;
use super::{Board, Library, Panel};
use crate::display::header::{Header, Roots};
use crate::error::Result;
use crate::files::read_limited;

/// The longest device tree property that is read.
const MAX_PROPERTY_BYTES: u64 = 1 << 12;

/// The boards of last resort.
const GENERIC: &str = "generic-aarch64";
const HOST: &str = "host";

/// A running system, or a test's folder in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    root: PathBuf,
    architecture: String,
}

/// What was detected, and why it is that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The name of a board's or a panel's file.
    pub name: String,
    /// What was found.
    pub because: String,
}

/// What a system lacks, and the line that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// A sentence.
    pub what: String,
    /// What to type, or to write where.
    pub mend: String,
}

impl Default for System {
    /// The one this program runs on.
    fn default() -> Self {
        Self::new("/", std::env::consts::ARCH)
    }
}

impl System {
    /// The system whose files lie below `root`; `architecture` as Rust calls it: "aarch64".
    pub fn new(root: impl Into<PathBuf>, architecture: &str) -> Self {
        Self {
            root: root.into(),
            architecture: architecture.to_owned(),
        }
    }

    /// Where its devices are.
    pub fn roots(&self) -> Roots {
        Roots {
            dev: self.root.join("dev"),
            sys: self.root.join("sys"),
        }
    }

    /// What its device tree calls it: "Raspberry Pi 4 Model B Rev 1.4".
    pub fn model(&self) -> Option<String> {
        self.property("model").into_iter().next()
    }

    /// Which board it is; a machine that no file knows is a generic one.
    ///
    /// # Errors
    ///
    /// When a board's file in `library` is not right.
    pub fn board(&self, library: &Library) -> Result<Detected> {
        let boards = library.boards()?;
        let names = self.property("compatible");
        // The first name is the most exact one.
        for name in &names {
            let knows = |board: &Board| board.compatible.contains(name);
            if let Some((board, _)) = boards.iter().find(|(_, board)| knows(board)) {
                return Ok(Detected {
                    name: board.clone(),
                    because: format!("the device tree says {name:?}"),
                });
            }
        }
        let tree = if names.is_empty() {
            "there is no device tree".to_owned()
        } else {
            format!(
                "no board's file knows the device tree's {}",
                names.join(", ")
            )
        };
        let name = if self.architecture == "aarch64" {
            GENERIC
        } else {
            HOST
        };
        Ok(Detected {
            name: name.to_owned(),
            because: format!("{tree}, and the processor is {}", self.architecture),
        })
    }

    /// Which panel is used when none is named; `desktop` is the variable that says that there is
    /// one, with its value.
    pub fn panel(&self, desktop: Option<&str>) -> Detected {
        let found = |name: &str, because: String| Detected {
            name: name.to_owned(),
            because,
        };
        if let Some(desktop) = desktop {
            return found("window", format!("there is a desktop, {desktop}"));
        }
        if let Some(connector) = self.connected().into_iter().next() {
            return found("hdmi", format!("a screen is connected to {connector}"));
        }
        found(
            "headless",
            "no screen is connected and no panel was named".into(),
        )
    }

    /// The connectors of graphics cards with a screen: "card1-HDMI-A-1".
    fn connected(&self) -> Vec<String> {
        let drm = self.root.join("sys/class/drm");
        let connected = |name: &String| {
            let status = fs::read_to_string(drm.join(name).join("status"));
            status.is_ok_and(|status| status.trim() == "connected")
        };
        names_in(&drm).into_iter().filter(connected).collect()
    }

    /// What this system lacks for `panel` on `board`, as far as can be seen without switching
    /// anything on; `desktop` says whether there is one.
    pub fn missing(&self, board: &Board, panel: &Panel, desktop: bool) -> Vec<Missing> {
        match (&panel.facts, Wires::of(&panel.facts)) {
            (_, Some(wires)) => match board.header() {
                Ok(header) => self.missing_on(header, &wires, panel),
                Err(error) => vec![Missing {
                    what: error.to_string(),
                    mend: "choose another panel: driftglass boards panels".into(),
                }],
            },
            (Facts::Drm(_), _) => self.missing_screen(board),
            (Facts::Fbdev(facts), _) => self.missing_device(&facts.device, "video", || {
                "sudo modprobe simpledrm, or use the panel hdmi".into()
            }),
            (Facts::Window(_), _) if !desktop => vec![Missing {
                what: "window: expected a desktop, found none".into(),
                mend: "run it on a desktop, or under a kiosk compositor: cage driftglass run"
                    .into(),
            }],
            _ => Vec::new(),
        }
    }

    fn missing_on(&self, header: &Header, wires: &Wires, panel: &Panel) -> Vec<Missing> {
        let mut missing = Vec::new();
        let roots = self.roots();
        if let Some(bus) = header.spi.get(wires.spi) {
            let device = format!("/dev/spidev{}.{}", bus.bus, wires.chip_select);
            let mend = || bus.enable.clone();
            missing.extend(self.missing_device(Path::new(&device), "spi", mend));
        }
        for (gpio, key) in &wires.gpios {
            match header.line_user(&roots, *gpio, key) {
                Ok(None) => {}
                Ok(Some(user)) => missing.push(taken(*gpio, key, &user, panel)),
                Err(error) => {
                    // Where one line cannot be asked for, none can.
                    missing.push(Missing {
                        what: error.to_string(),
                        mend: "ls -l /dev/gpiochip*; sudo usermod -aG gpio $USER, and log in again"
                            .into(),
                    });
                    break;
                }
            }
        }
        let pwm = wires.pwm.and_then(|gpio| header.pwm.get(&gpio));
        if let Some(output) = pwm {
            let chips = roots.sys.join("class/pwm");
            let is_there = names_in(&chips).into_iter().any(|chip| {
                let device = fs::canonicalize(chips.join(chip).join("device"));
                device.is_ok_and(|device| device.ends_with(&output.device))
            });
            if !is_there {
                missing.push(Missing {
                    what: format!(
                        "backlight: expected the PWM chip {}, found none",
                        output.device
                    ),
                    mend: output.enable.clone(),
                });
            }
        }
        missing
    }

    fn missing_screen(&self, board: &Board) -> Vec<Missing> {
        let cards = names_in(&self.root.join("dev/dri"));
        let cards: Vec<_> = cards
            .iter()
            .filter(|name| name.starts_with("card"))
            .collect();
        if cards.is_empty() {
            let is_pi = board
                .compatible
                .iter()
                .any(|name| name.starts_with("raspberrypi,"));
            let mend = if is_pi {
                "dtoverlay=vc4-kms-v3d in /boot/firmware/config.txt, and restart"
            } else {
                "load the driver of the graphics card, or use the panel framebuffer"
            };
            return vec![Missing {
                what: "/dev/dri: expected a graphics card, found none".into(),
                mend: mend.into(),
            }];
        }
        let devices = cards.iter().map(|card| Path::new("/dev/dri").join(card));
        let mut missing: Vec<_> = devices
            .flat_map(|device| self.missing_device(&device, "video", String::new))
            .collect();
        if self.connected().is_empty() {
            missing.push(Missing {
                what: "/sys/class/drm: expected a connected screen, found none".into(),
                mend: "connect the screen and switch it on; it may come later".into(),
            });
        }
        missing
    }

    /// A device that is not there, or not this user's.
    fn missing_device(
        &self,
        device: &Path,
        group: &str,
        mend: impl Fn() -> String,
    ) -> Vec<Missing> {
        let path = self.root.join(device.strip_prefix("/").unwrap_or(device));
        let opened = fs::OpenOptions::new().read(true).write(true).open(&path);
        let (found, mend) = match opened.map_err(|error| error.kind()) {
            Err(io::ErrorKind::NotFound) => ("none".to_owned(), mend()),
            Err(io::ErrorKind::PermissionDenied) => {
                ("no permission".to_owned(), self.mend_permission(group))
            }
            _ => return Vec::new(),
        };
        vec![Missing {
            what: format!("{}: expected a device, found {found}", device.display()),
            mend,
        }]
    }

    /// How a user gets at the devices of a group; Ubuntu and JetPack do not have them all.
    fn mend_permission(&self, group: &str) -> String {
        let groups = fs::read_to_string(self.root.join("etc/group")).unwrap_or_default();
        let exists = groups
            .lines()
            .any(|line| line.split(':').next() == Some(group));
        let join = format!("sudo usermod -aG {group} $USER, and log in again");
        if exists {
            return join;
        }
        let subsystem = match group {
            "spi" => "spidev",
            other => other,
        };
        format!(
            "sudo groupadd {group}; echo 'SUBSYSTEM==\"{subsystem}\", GROUP=\"{group}\", \
             MODE=\"0660\"' | sudo tee /etc/udev/rules.d/60-driftglass.rules; {join}, and restart"
        )
    }

    /// The strings of a property of the device tree's root.
    fn property(&self, name: &str) -> Vec<String> {
        let path = self.root.join("proc/device-tree").join(name);
        let bytes = read_limited(path, MAX_PROPERTY_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let strings = text
            .split('\0')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        strings.map(str::to_owned).collect()
    }
}

fn taken(gpio: u32, key: &str, user: &str, panel: &Panel) -> Missing {
    let user = if user.is_empty() { "the kernel" } else { user };
    let by_bus = user.starts_with("spi");
    let mend = match panel.setup.first() {
        Some(setup) if by_bus => setup.clone(),
        _ => format!("stop {user}, or take its overlay out of /boot/firmware/config.txt"),
    };
    Missing {
        what: format!("{key} (GPIO {gpio}): expected a free line, found it taken by {user}"),
        mend,
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
