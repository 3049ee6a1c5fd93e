//! A panel on a string: shows and switches it as lines of its input say.
//!
//! scripts/guest.py runs it inside a virtual machine, where the screen is read back. The first
//! argument is the kind of panel, "drm" or "fbdev", the others are its facts, a line
//! of TOML each; with "png", a path, a picture and a size it writes what a screen should show.
//!
//! Lines: "card", "other" (pictures), "off", "on" (power), "panic", "quit". Between lines the same
//! frame is shown again, as the program does; SIGTERM ends it in order. Whatever comes of it is a line of standard output.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use driftglass::display::{Damage, Display, Frame, Power, drm, fbdev};
use driftglass::picture::Picture;
use embedded_graphics::mono_font::{MonoTextStyle, ascii::FONT_10X20};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::Text;

const SHOW_EVERY: Duration = Duration::from_millis(200);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["drm", ref facts @ ..] => follow(|| {
            let facts = toml::from_str(&facts.join("\n")).expect("the facts are TOML");
            Ok(Box::new(drm::Drm::open(facts)?))
        }),
        ["fbdev", ref facts @ ..] => follow(|| {
            let facts = toml::from_str(&facts.join("\n")).expect("the facts are TOML");
            Ok(Box::new(fbdev::Fbdev::open(facts)?))
        }),
        ["png", path, name, width, height] => {
            let side = |text: &str| text.parse().expect("a size in pixels");
            let picture = Picture::from(&card([side(width), side(height)], name));
            std::fs::write(path, picture.encode_png(&[])).expect("the picture is written");
        }
        _ => panic!("unknown arguments {arguments:?}"),
    }
}

/// Does what the lines say until there are no more.
fn follow(open: impl Fn() -> driftglass::error::Result<Box<dyn Display>>) {
    let mut panel = loop {
        match open() {
            Ok(panel) => break panel,
            Err(error) => say(&format!("error {error}")),
        }
        std::thread::sleep(5 * SHOW_EVERY);
    };
    let lines = lines();
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))
        .expect("SIGTERM may be caught");
    let mut picture = "card".to_owned();
    let mut said = String::new();
    while !stop.load(Ordering::Relaxed) {
        let info = panel.info();
        let shown = panel.show(&card(info.size_px, &picture), Damage::Changed);
        let state = match shown {
            Ok(()) => format!("shown {picture} on {}", panel.info().name),
            Err(error) => format!("error {error}"),
        };
        if state != said {
            say(&state);
            said = state;
        }
        let switched = match lines.recv_timeout(SHOW_EVERY).as_deref() {
            Err(RecvTimeoutError::Timeout) => continue,
            Ok("off") => panel.power(Power::Off),
            Ok("on") => panel.power(Power::On),
            Ok("panic") => panic!("asked for"),
            Ok("quit") | Err(RecvTimeoutError::Disconnected) => return,
            Ok(name) => {
                picture = name.to_owned();
                continue;
            }
        };
        say(&format!("switched {switched:?}"));
        said.clear();
    }
}

fn lines() -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn say(line: &str) {
    println!("{line}");
}

/// Colour bars, a grey ramp, a border of one pixel, and letters that show which way is up.
fn card(size_px: [usize; 2], name: &str) -> Frame {
    const BARS: [Rgb888; 8] = [
        Rgb888::WHITE,
        Rgb888::YELLOW,
        Rgb888::CYAN,
        Rgb888::GREEN,
        Rgb888::MAGENTA,
        Rgb888::RED,
        Rgb888::BLUE,
        Rgb888::new(10, 20, 30),
    ];
    let mut frame = Frame::new(size_px[0], size_px[1]);
    let [width, height] = size_px.map(|side| side as u32);
    let bar = width.div_ceil(8);
    let middle = height / 2;
    let order = |at: usize| if name == "card" { at } else { 7 - at };
    for at in 0..8 {
        let area = Rectangle::new(
            Point::new(at as i32 * bar as i32, 0),
            Size::new(bar, middle),
        );
        let Ok(()) = frame.fill_solid(&area, BARS[order(at)]);
    }
    for x in 0..width {
        let grey = (x * 255 / (width - 1).max(1)) as u8;
        let area = Rectangle::new(
            Point::new(x as i32, middle as i32),
            Size::new(1, height - middle),
        );
        let Ok(()) = frame.fill_solid(&area, Rgb888::new(grey, grey, grey));
    }
    let border = Rectangle::new(Point::zero(), Size::new(width, height));
    let Ok(()) = border
        .into_styled(PrimitiveStyle::with_stroke(Rgb888::new(255, 128, 0), 1))
        .draw(&mut frame);
    let style = MonoTextStyle::new(&FONT_10X20, Rgb888::RED);
    let title = format!("{name}: top left, {width}x{height}");
    let Ok(_) = Text::new(&title, Point::new(8, middle as i32 + 24), style).draw(&mut frame);
    frame
}
