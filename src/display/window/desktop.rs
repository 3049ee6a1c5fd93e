//! The thread that has the desktop's events, and what windows ask of it.
//!
//! winit allows one event loop in the life of a process, and on Linux any thread may have it.
//! It is started with the first window and serves all that follow, so that a panel can be opened
//! again; that there is a desktop is tried beforehand, or a failure would take the only chance.

use std::collections::HashMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::num::NonZeroU32;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use softbuffer::{Context, Surface};
use winit::application::ApplicationHandler;
use winit::dpi::{LogicalSize, PhysicalSize};
use winit::event::{ElementState, KeyEvent, WindowEvent};
use winit::event_loop::{ActiveEventLoop, EventLoop, EventLoopProxy, OwnedDisplayHandle};
use winit::keyboard::{Key as Pressed, NamedKey};
use winit::platform::wayland::EventLoopBuilderExtWayland;
use winit::window::{Fullscreen, Window, WindowAttributes, WindowId};

use super::{Facts, Key, Scaling, scaling};
use crate::error::{Error, Result};
use crate::picture::Picture;

/// How long a desktop may take to open a window.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a desktop elsewhere may take to answer at all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// The shortest longer side of a new window: small frames are enlarged.
const SENSIBLE_SIDE: usize = 512;

/// The window's end in the panel's hands.
#[derive(Debug)]
pub struct Client {
    number: u64,
    proxy: EventLoopProxy<Order>,
    shared: Arc<Mutex<Shared>>,
}

/// What is looked for when the first window opens, by the names of Debian's packages.
const LIBRARIES: &str = "libx11-6, libx11-xcb1, libxcursor1, libxi6 and libxkbcommon-x11-0 for \
    X11, libwayland-client0 and libxkbcommon0 for Wayland";

/// What both ends of a window know.
#[derive(Debug)]
struct Shared {
    /// The newest picture, in the window's orientation; `None` is black.
    picture: Option<Arc<Picture>>,
    size_px: [usize; 2],
    /// Why the last picture is not in the window.
    fault: Option<String>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

/// What is asked of the thread.
#[derive(Debug)]
enum Order {
    Open(Box<Opening>),
    /// The window of this number has another picture.
    Draw(u64),
    /// Nobody needs the window of this number any more.
    Close(u64),
}

#[derive(Debug)]
struct Opening {
    number: u64,
    facts: Facts,
    shared: Arc<Mutex<Shared>>,
    keys: Sender<Key>,
    done: Sender<Result<(), String>>,
}

impl Client {
    /// Opens a window.
    pub fn open(
        facts: &Facts,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Receiver<Key>)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        find_desktop(env)?;
        let proxy = event_loop()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Mutex::new(Shared {
            picture: None,
            size_px: opening_size(facts),
            fault: None,
            state: State::Open,
        }));
        let (key_sender, keys) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let opening = Opening {
            number,
            facts: facts.clone(),
            shared: shared.clone(),
            keys: key_sender,
            done,
        };
        let client = Self {
            number,
            proxy,
            shared,
        };
        client.order(Order::Open(Box::new(opening)))?;
        match is_done.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok((client, keys)),
            Ok(Err(reason)) => Err(fault(reason)),
            Err(_) => Err(fault("one that does not answer")),
        }
    }

    /// The size of what the window holds at this moment.
    pub fn size_px(&self) -> [usize; 2] {
        lock(&self.shared).size_px
    }

    /// Has this picture drawn soon, or black.
    pub fn show(&self, picture: Option<&Arc<Picture>>) -> Result<()> {
        let mut shared = lock(&self.shared);
        if shared.state == State::Closed {
            return Err(Error::unexpected(
                "window",
                "an open window",
                "a closed one",
            ));
        }
        let is_same = match (&shared.picture, picture) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        let earlier = shared.fault.take();
        shared.picture = picture.cloned();
        drop(shared);
        if !is_same || earlier.is_some() {
            self.order(Order::Draw(self.number))?;
        }
        earlier.map_or(Ok(()), |reason| Err(fault(reason)))
    }

    fn order(&self, order: Order) -> Result<()> {
        let sent = self.proxy.send_event(order);
        sent.map_err(|_| fault("one that went away; start again"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Without the thread there is no window either.
        let _ = self.proxy.send_event(Order::Close(self.number));
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Every change of it is a single assignment.
    shared
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn fault(found: impl std::fmt::Display) -> Error {
    Error::unexpected("window", "a desktop that shows it", found)
}

/// The size of a new window: its frames', enlarged by a whole number where they are small.
fn opening_size(facts: &Facts) -> [usize; 2] {
    let (Some(width), Some(height)) = (facts.width_px, facts.height_px) else {
        return [SENSIBLE_SIDE; 2];
    };
    let sides = [width, height].map(usize::from);
    let factor = (SENSIBLE_SIDE / sides[0].max(sides[1])).max(1);
    sides.map(|side| side * factor)
}

/// Whether somebody listens where the environment says that the desktop is.
fn find_desktop(env: impl Fn(&str) -> Option<String>) -> Result<()> {
    let get = |name: &str| env(name).filter(|value| !value.is_empty());
    // winit prefers Wayland in the same way.
    let (name, place, found) = if get("WAYLAND_SOCKET").is_some() {
        return Ok(());
    } else if let Some(place) = get("WAYLAND_DISPLAY") {
        let folder = get("XDG_RUNTIME_DIR").unwrap_or_default();
        let found = UnixStream::connect(Path::new(&folder).join(&place)).map(drop);
        ("WAYLAND_DISPLAY", place, found)
    } else if let Some(place) = get("DISPLAY") {
        let found = connect_x11(&place);
        ("DISPLAY", place, found)
    } else {
        return Err(Error::unexpected(
            "window",
            "a desktop",
            "no X11 or Wayland display: set DISPLAY or WAYLAND_DISPLAY",
        ));
    };
    found.map_err(|cause| {
        let expected = format!("a desktop at {name}={place}");
        Error::unexpected("window", expected, format!("none ({cause})"))
    })
}

/// Connects as Xlib does: `:1.0` is a Unix socket, `host:1.0` the port 6001.
fn connect_x11(display: &str) -> std::io::Result<()> {
    let malformed = || std::io::Error::other("it is no host:number");
    let (host, rest) = display.rsplit_once(':').ok_or_else(malformed)?;
    let number = rest.split('.').next().unwrap_or_default();
    let number: u16 = number.parse().map_err(|_| malformed())?;
    if host.is_empty() || host == "unix" {
        let path = format!("/tmp/.X11-unix/X{number}");
        let hidden = SocketAddr::from_abstract_name(&path)?;
        return UnixStream::connect_addr(&hidden)
            .or_else(|_| UnixStream::connect(&path))
            .map(drop);
    }
    let port = 6000_u16.checked_add(number).ok_or_else(malformed)?;
    let address = (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(malformed)?;
    TcpStream::connect_timeout(&address, CONNECT_PATIENCE).map(drop)
}

/// The way to the thread, which is started by the first who asks.
fn event_loop() -> Result<EventLoopProxy<Order>> {
    static PROXY: Mutex<Option<EventLoopProxy<Order>>> = Mutex::new(None);
    let mut proxy = PROXY
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(proxy) = &*proxy {
        return Ok(proxy.clone());
    }
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        // winit panics where the desktop's own libraries are missing.
        let built = catch_unwind(|| {
            let mut builder = EventLoop::with_user_event();
            // The same switch for X11 and for Wayland.
            EventLoopBuilderExtWayland::with_any_thread(&mut builder, true).build()
        });
        let events = match built {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => {
                // Whoever asked may have given up.
                let _ = sender.send(Err(with_libraries(text(error))));
                return;
            }
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.unwrap_or_else(|| "one that winit cannot handle".to_owned());
                let _ = sender.send(Err(with_libraries(said)));
                return;
            }
        };
        if sender.send(Ok(events.create_proxy())).is_ok() {
            serve(events);
        }
    };
    let named = thread::Builder::new().name("window".to_owned());
    named.spawn(run).map_err(fault)?;
    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(started)) => Ok(proxy.insert(started).clone()),
        Ok(Err(reason)) => Err(fault(reason)),
        Err(_) => Err(fault("one that does not answer")),
    }
}

/// The life of the thread.
fn serve(events: EventLoop<Order>) {
    let mut desktop = Desktop {
        context: Context::new(events.owned_display_handle()).map_err(text),
        views: HashMap::new(),
    };
    // winit panics when an X server goes away; the windows are all that it touches.
    let ended = catch_unwind(AssertUnwindSafe(|| events.run_app(&mut desktop)));
    let reason = match ended {
        Ok(Err(error)) => text(error),
        Ok(Ok(())) | Err(_) => "one that went away".to_owned(),
    };
    desktop.end(&reason);
}

/// What went wrong, without the place in winit's source.
fn text(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    let place = text
        .split_once(".rs:")
        .and_then(|(_, rest)| rest.split_once(": "));
    place.map_or(text.clone(), |(_, reason)| reason.to_owned())
}

/// The same, with the libraries that a desktop has where one of them is missing.
fn with_libraries(reason: String) -> String {
    if reason.to_lowercase().contains("librar") {
        format!("{} (needed are {LIBRARIES})", reason.trim_end_matches('.'))
    } else {
        reason
    }
}

/// Everything that belongs to the thread.
struct Desktop {
    context: Result<Context<OwnedDisplayHandle>, String>,
    views: HashMap<WindowId, View>,
}

/// A window as its thread knows it.
struct View {
    number: u64,
    window: Arc<Window>,
    surface: Surface<OwnedDisplayHandle, Arc<Window>>,
    scaling: Scaling,
    shared: Arc<Mutex<Shared>>,
    keys: Sender<Key>,
}

impl Desktop {
    fn open(&mut self, events: &ActiveEventLoop, opening: Opening) -> Result<(), String> {
        let context = self.context.as_ref().map_err(Clone::clone)?;
        let facts = opening.facts;
        let [width, height] = opening_size(&facts).map(|side| side as u32);
        let attributes = WindowAttributes::default()
            .with_title(facts.title)
            .with_inner_size(LogicalSize::new(width, height))
            .with_fullscreen(facts.full_screen.then_some(Fullscreen::Borderless(None)));
        let window = Arc::new(events.create_window(attributes).map_err(text)?);
        let surface = Surface::new(context, window.clone()).map_err(text)?;
        window.set_cursor_visible(!facts.full_screen);
        let view = View {
            number: opening.number,
            window,
            surface,
            scaling: facts.scaling,
            shared: opening.shared,
            keys: opening.keys,
        };
        view.resized(view.window.inner_size());
        view.window.request_redraw();
        self.views.insert(view.window.id(), view);
        Ok(())
    }

    fn view(&self, number: u64) -> Option<&View> {
        self.views.values().find(|view| view.number == number)
    }

    /// The desktop is gone, and with it all windows.
    fn end(&mut self, reason: &str) {
        for (_, view) in self.views.drain() {
            lock(&view.shared).fault = Some(reason.to_owned());
        }
    }
}

impl View {
    fn resized(&self, size: PhysicalSize<u32>) {
        let size_px = [size.width, size.height].map(|side| side.max(1) as usize);
        lock(&self.shared).size_px = size_px;
        self.window.request_redraw();
    }

    fn draw(&mut self) -> Result<(), softbuffer::SoftBufferError> {
        let size = self.window.inner_size();
        let sides = (NonZeroU32::new(size.width), NonZeroU32::new(size.height));
        let (Some(width), Some(height)) = sides else {
            // A window without an area shows nothing.
            return Ok(());
        };
        let picture = lock(&self.shared).picture.clone();
        self.surface.resize(width, height)?;
        let mut pixels = self.surface.buffer_mut()?;
        let size_px = [width, height].map(|side| side.get() as usize);
        match picture {
            Some(picture) => scaling::paint(&picture, self.scaling, &mut pixels, size_px),
            None => pixels.fill(0),
        }
        self.window.pre_present_notify();
        pixels.present()
    }

    fn toggle_full_screen(&self) {
        let is_full = self.window.fullscreen().is_some();
        self.window.set_cursor_visible(is_full);
        let wanted = (!is_full).then_some(Fullscreen::Borderless(None));
        self.window.set_fullscreen(wanted);
    }

    /// What a key asks of whoever shows pictures here.
    fn pressed(&self, event: &KeyEvent) -> Option<Key> {
        if event.state != ElementState::Pressed || event.repeat {
            return None;
        }
        match event.logical_key.as_ref() {
            Pressed::Named(NamedKey::Space | NamedKey::ArrowRight) => Some(Key::Next),
            Pressed::Character("n" | "N") => Some(Key::Next),
            Pressed::Character("p" | "P") => Some(Key::Pause),
            Pressed::Named(NamedKey::Escape) | Pressed::Character("q" | "Q") => Some(Key::Close),
            Pressed::Named(NamedKey::F11) | Pressed::Character("f" | "F") => {
                self.toggle_full_screen();
                None
            }
            _ => None,
        }
    }
}

impl ApplicationHandler<Order> for Desktop {
    fn resumed(&mut self, _: &ActiveEventLoop) {}

    fn user_event(&mut self, events: &ActiveEventLoop, order: Order) {
        match order {
            Order::Open(opening) => {
                let done = opening.done.clone();
                let opened = self.open(events, *opening);
                // Whoever asked may have given up; its window closes with its client.
                let _ = done.send(opened);
            }
            Order::Draw(number) => {
                if let Some(view) = self.view(number) {
                    view.window.request_redraw();
                }
            }
            Order::Close(number) => self.views.retain(|_, view| view.number != number),
        }
    }

    fn window_event(&mut self, _: &ActiveEventLoop, id: WindowId, event: WindowEvent) {
        let Some(view) = self.views.get_mut(&id) else {
            return;
        };
        let key = match event {
            WindowEvent::Resized(size) => {
                view.resized(size);
                None
            }
            WindowEvent::RedrawRequested => {
                let drawn = view.draw();
                lock(&view.shared).fault = drawn.err().map(text);
                None
            }
            WindowEvent::CloseRequested => Some(Key::Close),
            // A key that was down already when the window got the focus was meant for another.
            WindowEvent::KeyboardInput {
                event,
                is_synthetic: false,
                ..
            } => view.pressed(&event),
            _ => None,
        };
        if let Some(key) = key {
            // A caller that listens to no keys is content with the window alone.
            let _ = view.keys.send(key);
        }
        if key == Some(Key::Close) {
            lock(&view.shared).state = State::Closed;
            self.views.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(environment: &[(&str, &str)]) -> String {
        let env = |name: &str| {
            let pair = environment.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).to_owned())
        };
        find_desktop(env).unwrap_err().to_string()
    }

    #[test]
    fn a_desktop_that_is_not_there_is_told() {
        let none = "window: expected a desktop, found no X11 or Wayland display: set DISPLAY or WAYLAND_DISPLAY";
        assert_eq!(found(&[]), none);
        assert_eq!(found(&[("DISPLAY", ""), ("WAYLAND_DISPLAY", "")]), none);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        for (environment, start) in [
            (
                vec![("DISPLAY", ":64999")],
                "window: expected a desktop at DISPLAY=:64999, found none (",
            ),
            (
                vec![("DISPLAY", "nonsense")],
                "window: expected a desktop at DISPLAY=nonsense, found none (it is no",
            ),
            (
                vec![("DISPLAY", "127.0.0.1:59000")],
                "window: expected a desktop at DISPLAY=127.0.0.1:59000, found none (",
            ),
            (
                vec![
                    ("WAYLAND_DISPLAY", "wayland-9"),
                    ("XDG_RUNTIME_DIR", folder),
                    ("DISPLAY", ":0"),
                ],
                "window: expected a desktop at WAYLAND_DISPLAY=wayland-9, found none (No such file",
            ),
        ] {
            let sentence = found(&environment);
            assert!(sentence.starts_with(start), "{sentence}");
        }
    }

    #[test]
    fn a_new_window_is_large_enough_to_be_seen() {
        let facts = |width_px, height_px| Facts {
            width_px,
            height_px,
            ..Facts::default()
        };
        assert_eq!(opening_size(&facts(None, None)), [512, 512]);
        assert_eq!(opening_size(&facts(Some(64), Some(32))), [512, 256]);
        assert_eq!(opening_size(&facts(Some(240), Some(135))), [480, 270]);
        assert_eq!(opening_size(&facts(Some(1920), Some(1080))), [1920, 1080]);
    }
}
