//! Which card, connector, CRTC and mode: a choice over tables, without a kernel.
//!
//! A connector is a socket, an encoder drives it, a CRTC reads the picture from memory for it. An
//! encoder says by a mask which CRTCs it can be fed from: on a Pi 4 HDMI-A-1 is fed from the fourth
//! alone. Cards are numbered anew at every boot, so nothing here depends on their order.

use super::{Facts, Mode};
use crate::error::{Error, Result};

/// A card, /dev/dri/cardN, and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// "card1".
    pub name: String,
    /// Whether its pictures may lie in plain memory.
    pub dumb_buffers: bool,
    /// What it drives; a card that only computes, such as v3d, has none.
    pub resources: Resources,
}

/// What a card drives. The numbers are the kernel's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Its sockets.
    pub connectors: Vec<Connector>,
    /// What can drive them.
    pub encoders: Vec<Encoder>,
    /// What reads pictures from memory, in the order of the bits of [`Encoder::possible_crtcs`].
    pub crtcs: Vec<u32>,
}

/// A socket for a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connector {
    /// The kernel's number.
    pub id: u32,
    /// As in /sys/class/drm, without the card: "HDMI-A-1".
    pub name: String,
    /// Whether there is a screen.
    pub state: State,
    /// What the screen can show, in the order of the kernel.
    pub modes: Vec<Timing>,
    /// The encoders that can drive it.
    pub encoders: Vec<u32>,
    /// The one that drives it now.
    pub encoder: Option<u32>,
}

/// Whether a connector has a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has.
    Connected,
    /// It has not.
    Disconnected,
    /// It cannot tell: composite video has no wire for it.
    Unknown,
}

/// What a screen can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Visible columns and rows.
    pub size_px: [u16; 2],
    /// Frames per second, rounded.
    pub refresh_hz: u32,
    /// Whether the screen likes it best.
    pub preferred: bool,
    /// Whether every picture is sent whole: neither interlaced nor every line twice.
    pub progressive: bool,
}

/// What drives a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoder {
    /// The kernel's number.
    pub id: u32,
    /// Bit n: it can be fed from the n-th of [`Resources::crtcs`].
    pub possible_crtcs: u32,
    /// The one that feeds it now.
    pub crtc: Option<u32>,
}

/// Where to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The place in the list of cards.
    pub card: usize,
    /// The connector's number.
    pub connector: u32,
    /// The CRTC's number.
    pub crtc: u32,
    /// The place in the connector's list of modes.
    pub mode: usize,
}

/// What came of looking for a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is one.
    Screen(Choice),
    /// There is a socket for it, and nothing in it, or nothing that is switched on.
    NoScreen,
}

/// Chooses among `cards` what `facts` ask for.
///
/// `before_px` is the size of the frames so far: a screen that comes back, or another one, gets
/// that size again if it can show it.
///
/// # Errors
///
/// When no card can show anything, or when there is no such card, connector or mode.
pub fn choose(cards: &[Card], facts: &Facts, before_px: Option<[u16; 2]>) -> Result<Outcome> {
    // What cannot tell whether it has a screen is taken if it is asked for: else a television that
    // is still off would lose to a composite socket with nothing in it.
    let asked_for = facts.connector.is_some();
    let lit = |state| state == State::Connected || (asked_for && state == State::Unknown);
    let sockets = sockets(cards, facts)?.into_iter();
    let screens = sockets.filter(|(_, socket)| lit(socket.state) && !socket.modes.is_empty());
    let best = screens.min_by_key(|(card, socket)| {
        // The same at every boot, whatever the cards are called this time.
        (kind_rank(&socket.name), &socket.name, *card)
    });
    let Some((card, connector)) = best else {
        return Ok(Outcome::NoScreen);
    };
    let mode = match facts.mode {
        Some(wanted) => wanted_mode(connector, wanted)?,
        None => default_mode(&connector.modes, before_px),
    };
    let resources = &cards[card].resources;
    let crtc = crtc(resources, connector).ok_or_else(|| {
        let place = format!("{} {}", cards[card].name, connector.name);
        Error::unexpected(place, "a CRTC that can feed it", "none")
    })?;
    Ok(Outcome::Screen(Choice {
        card,
        connector: connector.id,
        crtc,
        mode,
    }))
}

/// The connectors that are asked for, connected or not.
fn sockets<'a>(cards: &'a [Card], facts: &Facts) -> Result<Vec<(usize, &'a Connector)>> {
    let named = |card: &Card| match &facts.card {
        Some(wanted) => wanted.trim_start_matches("/dev/dri/") == card.name,
        None => true,
    };
    if let Some(wanted) = &facts.card
        && !cards.iter().any(named)
    {
        let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
        return Err(Error::unexpected(
            "card",
            list(&names),
            format!("{wanted:?}"),
        ));
    }
    let able = cards.iter().enumerate();
    let able = able.filter(|(_, card)| named(card) && card.dumb_buffers);
    let sockets: Vec<(usize, &Connector)> = able
        .flat_map(|(at, card)| {
            card.resources
                .connectors
                .iter()
                .map(move |socket| (at, socket))
        })
        // It writes what would be shown back into memory.
        .filter(|(_, socket)| !is_of_kind(&socket.name, "Writeback"))
        .collect();
    if sockets.is_empty() {
        let expected = "a card with a connector and plain buffers \
            (on a Raspberry Pi: dtoverlay=vc4-kms-v3d in config.txt)";
        let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
        return Err(Error::unexpected("/dev/dri", expected, list(&names)));
    }
    let Some(wanted) = &facts.connector else {
        return Ok(sockets);
    };
    let matching = |socket: &Connector| &socket.name == wanted || is_of_kind(&socket.name, wanted);
    let (chosen, others): (Vec<_>, Vec<_>) = sockets
        .into_iter()
        .partition(|(_, socket)| matching(socket));
    if chosen.is_empty() {
        let names: Vec<&str> = others
            .iter()
            .map(|(_, socket)| socket.name.as_str())
            .collect();
        let found = format!("{wanted:?}");
        return Err(Error::unexpected("connector", list(&names), found));
    }
    Ok(chosen)
}

/// Whether "DSI-1" is a "DSI".
fn is_of_kind(name: &str, kind: &str) -> bool {
    let number = name
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Which kind of screen is taken if there are several and nobody said which: what is plugged in on
/// purpose before what is built in, and what says its modes before what does not.
fn kind_rank(name: &str) -> usize {
    const ORDER: &[&str] = &[
        "HDMI-A", "HDMI-B", "DP", "DVI-D", "DVI-I", "DSI", "DPI", "eDP", "LVDS", "SPI", "VGA",
        "DVI-A", "USB", "Virtual",
    ];
    let rank = ORDER.iter().position(|kind| is_of_kind(name, kind));
    rank.unwrap_or(ORDER.len())
}

/// The mode that an owner asked for.
fn wanted_mode(connector: &Connector, wanted: Mode) -> Result<usize> {
    let fits = |timing: &Timing| {
        let refresh = wanted.refresh_hz.is_none_or(|hz| hz == timing.refresh_hz);
        timing.size_px == wanted.size_px && refresh
    };
    best_mode(&connector.modes, fits).ok_or_else(|| {
        let mut offered: Vec<String> = Vec::new();
        for timing in &connector.modes {
            let text = Mode {
                size_px: timing.size_px,
                refresh_hz: Some(timing.refresh_hz),
            };
            let text = text.to_string();
            if !offered.contains(&text) {
                offered.push(text);
            }
        }
        let place = format!("mode of {}", connector.name);
        Error::unexpected(place, list(&offered), wanted)
    })
}

/// The size so far if the screen has it, otherwise the size that it prefers, otherwise its first.
fn default_mode(modes: &[Timing], before_px: Option<[u16; 2]>) -> usize {
    let of_size = |size_px| best_mode(modes, |timing| timing.size_px == size_px);
    let preferred = modes.iter().find(|timing| timing.preferred);
    let preferred = preferred.or(modes.first());
    before_px
        .and_then(of_size)
        .or_else(|| preferred.and_then(|timing| of_size(timing.size_px)))
        .unwrap_or(0)
}

/// The first of those that fit, progressive before interlaced, preferred before others.
fn best_mode(modes: &[Timing], fits: impl Fn(&Timing) -> bool) -> Option<usize> {
    let fitting = modes.iter().enumerate().filter(|(_, timing)| fits(timing));
    let best = fitting.min_by_key(|(at, timing)| (!timing.progressive, !timing.preferred, *at));
    best.map(|(at, _)| at)
}

/// A CRTC that can feed the connector: the one that does so already, or else one that is free, or
/// else any.
fn crtc(resources: &Resources, connector: &Connector) -> Option<u32> {
    let encoders = || {
        let ids = connector.encoder.iter().chain(&connector.encoders);
        ids.filter_map(|id| resources.encoders.iter().find(|encoder| encoder.id == *id))
    };
    let possible = |encoder: &Encoder| -> Vec<u32> {
        // The kernel's mask has 32 bits, and no more CRTCs.
        let crtcs = resources.crtcs.iter().enumerate().take(32);
        let crtcs = crtcs.filter(|(bit, _)| encoder.possible_crtcs & (1 << bit) != 0);
        crtcs.map(|(_, &crtc)| crtc).collect()
    };
    let current = encoders().find_map(|encoder| {
        let driven = connector.encoder == Some(encoder.id);
        let crtc = encoder.crtc.filter(|_| driven)?;
        possible(encoder).contains(&crtc).then_some(crtc)
    });
    let busy = |crtc: &u32| {
        resources
            .encoders
            .iter()
            .any(|encoder| encoder.crtc == Some(*crtc))
    };
    current
        .or_else(|| encoders().flat_map(possible).find(|crtc| !busy(crtc)))
        .or_else(|| encoders().flat_map(possible).next())
}

/// "HDMI-A-1, DSI-1", or "none".
fn list<T: AsRef<str>>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
