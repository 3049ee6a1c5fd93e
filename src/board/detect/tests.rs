//! Detection on folders laid out like boards.

use tempfile::TempDir;

use super::*;
use crate::board::panel::Kind;

struct Machine {
    folder: TempDir,
    architecture: &'static str,
}

impl Machine {
    fn new(architecture: &'static str, compatible: &[&str]) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            architecture,
        };
        if !compatible.is_empty() {
            let text = compatible.join("\0") + "\0";
            machine.has("proc/device-tree/compatible", &text);
        }
        machine
    }

    fn pi() -> Self {
        Self::new("aarch64", &["raspberrypi,4-model-b", "brcm,bcm2711"])
    }

    fn has(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn system(&self) -> System {
        System::new(self.folder.path(), self.architecture)
    }

    fn board(&self) -> Detected {
        self.system().board(&Library::embedded()).unwrap()
    }

    fn missing(&self, board: &str, panel: &str) -> Vec<Missing> {
        let board = Library::embedded().board(board).unwrap();
        let panel = Panel::parse("a.toml", panel).unwrap();
        self.system().missing(&board, &panel, false)
    }
}

const TFT: &str = r#"
name = "A panel"
tier = 3
source = "its maker"
kind = "tft"
[tft]
controller = "st7789"
width-px = 240
height-px = 240
spi = "spi0"
spi-hz = 40000000
dc-gpio = 25
backlight = { through = "pwm", gpio = 13 }
"#;

fn kind(kind: Kind) -> String {
    format!("name = \"A\"\ntier = 3\nsource = \"b\"\nkind = \"{kind}\"")
}

#[test]
fn every_board_is_known_by_each_of_its_names() {
    for (name, board) in Library::embedded().boards().unwrap() {
        for compatible in &board.compatible {
            let found = Machine::new("aarch64", &[compatible, "some,chip"]).board();
            assert_eq!(found.name, name, "{compatible}");
            assert_eq!(
                found.because,
                format!("the device tree says {compatible:?}")
            );
        }
    }
}

#[test]
fn a_machine_that_no_file_knows_is_a_generic_one() {
    let board = Machine::new("aarch64", &["radxa,rock-5b", "rockchip,rk3588"]).board();
    assert_eq!(board.name, "generic-aarch64");
    let because = "no board's file knows the device tree's radxa,rock-5b, rockchip,rk3588, and the \
                   processor is aarch64";
    assert_eq!(board.because, because);
    let host = Machine::new("x86_64", &[]);
    assert_eq!(host.board().name, "host");
    assert_eq!(host.system().model(), None);
    let pi = Machine::pi();
    pi.has("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0");
    assert_eq!(
        pi.system().model().as_deref(),
        Some("Raspberry Pi 4 Model B Rev 1.4")
    );
}

#[test]
fn a_property_that_is_no_text_or_huge_does_no_harm() {
    let machine = Machine::new("aarch64", &[]);
    machine.has("proc/device-tree/compatible", &"x".repeat(1 << 20));
    assert_eq!(machine.board().name, "generic-aarch64");
    let path = machine.folder.path().join("proc/device-tree/compatible");
    fs::write(path, [0xff, 0, 0xfe, 0]).unwrap();
    assert_eq!(machine.board().name, "generic-aarch64");
}

#[test]
fn a_connected_screen_is_used_and_a_desktop_before_it() {
    let machine = Machine::pi();
    assert_eq!(machine.system().panel(None).name, "headless");
    machine.has("sys/class/drm/card0-HDMI-A-1/status", "disconnected\n");
    assert_eq!(machine.system().panel(None).name, "headless");
    machine.has("sys/class/drm/card1-HDMI-A-2/status", "connected\n");
    let panel = machine.system().panel(None);
    assert_eq!(panel.name, "hdmi");
    assert_eq!(panel.because, "a screen is connected to card1-HDMI-A-2");
    let panel = machine.system().panel(Some("WAYLAND_DISPLAY=wayland-0"));
    assert_eq!(panel.name, "window");
    assert_eq!(
        panel.because,
        "there is a desktop, WAYLAND_DISPLAY=wayland-0"
    );
    for name in ["headless", "hdmi", "window"] {
        assert!(
            !Library::embedded().panel(name).unwrap().kind().is_wired(),
            "{name}"
        );
    }
}

#[test]
fn what_a_wired_panel_lacks_is_said_with_the_line_that_mends_it() {
    let machine = Machine::pi();
    let missing = machine.missing("raspberry-pi-4", TFT);
    let [spi, gpio, pwm] = &missing[..] else {
        panic!("{missing:?}");
    };
    assert_eq!(spi.what, "/dev/spidev0.0: expected a device, found none");
    assert!(
        spi.mend.starts_with("dtparam=spi=on in /boot"),
        "{}",
        spi.mend
    );
    assert!(
        gpio.what
            .starts_with("dc-gpio (GPIO 25): expected a GPIO chip"),
        "{}",
        gpio.what
    );
    assert_eq!(
        pwm.what,
        "backlight: expected the PWM chip fe20c000.pwm, found none"
    );
    assert!(
        pwm.mend.starts_with("dtoverlay=pwm,pin=13,func=4"),
        "{}",
        pwm.mend
    );

    machine.has("dev/spidev0.0", "");
    machine.has("sys/devices/platform/soc/fe20c000.pwm/x", "");
    machine.has("sys/class/pwm/pwmchip3/npwm", "2");
    let root = machine.folder.path();
    let device = root.join("sys/devices/platform/soc/fe20c000.pwm");
    std::os::unix::fs::symlink(device, root.join("sys/class/pwm/pwmchip3/device")).unwrap();
    let missing = machine.missing("raspberry-pi-4", TFT);
    assert_eq!(missing.len(), 1, "only the GPIO chip: {missing:?}");

    let host = machine.missing("host", TFT);
    assert!(
        host[0].what.contains("expected a 40-pin header"),
        "{host:?}"
    );
    let jetson = Machine::new("aarch64", &["nvidia,p3768-0000+p3767-0005"]);
    let spi = &jetson.missing(&jetson.board().name, TFT)[0];
    assert!(spi.mend.contains("jetson-io.py"), "{}", spi.mend);
}

#[test]
fn what_a_screen_lacks_is_said() {
    let machine = Machine::pi();
    let text = kind(Kind::Drm);
    let missing = machine.missing("raspberry-pi-4", &text);
    assert_eq!(
        missing[0].what,
        "/dev/dri: expected a graphics card, found none"
    );
    assert!(
        missing[0].mend.starts_with("dtoverlay=vc4-kms-v3d"),
        "{missing:?}"
    );
    let host = machine.missing("host", &text);
    assert!(host[0].mend.contains("framebuffer"), "{host:?}");

    machine.has("dev/dri/card0", "");
    let missing = machine.missing("raspberry-pi-4", &text);
    assert_eq!(missing.len(), 1);
    assert_eq!(
        missing[0].what,
        "/sys/class/drm: expected a connected screen, found none"
    );
    machine.has("sys/class/drm/card0-HDMI-A-1/status", "connected\n");
    assert_eq!(machine.missing("raspberry-pi-4", &text), []);

    let fbdev = machine.missing("raspberry-pi-4", &kind(Kind::Fbdev));
    assert_eq!(fbdev[0].what, "/dev/fb0: expected a device, found none");
    let window = machine.missing("host", &kind(Kind::Window));
    assert_eq!(window[0].what, "window: expected a desktop, found none");
    assert_eq!(machine.missing("host", &kind(Kind::Headless)), []);
}

#[test]
fn a_group_is_joined_where_it_exists_and_made_where_it_does_not() {
    let machine = Machine::pi();
    machine.has("etc/group", "root:x:0:\nspi:x:989:pi\nvideo:x:44:pi\n");
    let mend = machine.system().mend_permission("spi");
    assert_eq!(mend, "sudo usermod -aG spi $USER, and log in again");
    let mend = machine.system().mend_permission("gpio");
    assert!(
        mend.starts_with("sudo groupadd gpio; echo 'SUBSYSTEM==\"gpio\""),
        "{mend}"
    );
    assert!(
        mend.ends_with("sudo usermod -aG gpio $USER, and log in again, and restart"),
        "{mend}"
    );
}

#[test]
fn a_pin_that_is_taken_names_who_took_it() {
    let panel = Panel::parse("a.toml", TFT).unwrap();
    let button = taken(25, "dc-gpio", "button@19", &panel);
    let what = "dc-gpio (GPIO 25): expected a free line, found it taken by button@19";
    assert_eq!(button.what, what);
    assert!(button.mend.starts_with("stop button@19"), "{}", button.mend);
    let own_select = format!("setup = [\"dtoverlay=spi0-0cs\"]\n{TFT}");
    let panel = Panel::parse("a.toml", &own_select).unwrap();
    assert_eq!(
        taken(8, "select-gpios", "spi0 CS0", &panel).mend,
        "dtoverlay=spi0-0cs"
    );
    assert!(
        taken(2, "dc-gpio", "", &panel)
            .what
            .ends_with("taken by the kernel")
    );
}
