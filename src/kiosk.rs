//! The loop of a frame: it paints, shows, lets a picture hang, and goes on.
//!
//! Painter, clock, panel and the wish to stop are arguments. Nothing that fails outside ends the
//! loop: a painter's error becomes a card on the panel and a later try, a panel's error stays with
//! its [`Stage`] and is only told.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::config::Caption;
use crate::display::emergence::Style;
use crate::display::scene::Scene;
use crate::display::stage::{Kind, Patience, Stage};
use crate::display::window::Key;
use crate::display::{Pace, PanelInfo};
use crate::error::{Error, Result};
use crate::picture::Picture;

pub mod painter;

/// How long it is told, at first, that a file of the owner's does not hold.
const NOTICE: Duration = Duration::from_secs(60);

/// How often a frame that only hangs looks whether it is to stop, and how its panel is.
const TICK: Duration = Duration::from_millis(200);

/// Someone who paints pictures from seeds.
pub trait Paint {
    /// What the painter is called, for captions: the model's name.
    fn name(&self) -> String;

    /// Paints the picture of `seed`.
    ///
    /// # Errors
    ///
    /// When it cannot, or [`Error::Stopped`] when `on_step` breaks. It may be asked again.
    fn paint(&mut self, seed: u64, on_step: OnMoment) -> Result<Picture>;
}

/// Called at each moment of a painting; `Break` stops it.
pub type OnMoment<'a> = &'a mut dyn FnMut(&Moment) -> ControlFlow<()>;

/// How far a painting is.
pub struct Moment<'a> {
    /// Steps that are done, from 1.
    pub done: usize,
    /// Steps in all.
    pub count: usize,
    /// What is seen of it in a style; asked only where somebody looks.
    pub look: &'a dyn Fn(Style) -> Option<Picture>,
}

/// Time, or a test's idea of it.
pub trait Clock {
    /// The time since some beginning; it never goes back.
    fn now(&self) -> Duration;

    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The clock of the system, which no change of the date moves.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// What the owner asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The first picture's seed; each picture's is one more than the one before.
    pub first_seed: u64,
    /// How long a finished picture hangs.
    pub hold: Duration,
    /// What is seen while a picture is painted.
    pub emergence: Style,
    /// What is written below it.
    pub captions: Vec<Caption>,
    /// Whether a thin line shows how far a painting is.
    pub progress_line: bool,
    /// After how many pictures the loop ends by itself; none for never.
    pub pictures: Option<u64>,
    /// Why these are not the owner's settings; shown before the first picture.
    pub fault: Option<String>,
}

/// A sign of life: at every step of a painting, and several times a second while nothing moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Whether something of ours is, or was, on the glass.
    pub shown: bool,
    /// While a picture is painted: its seed, steps that are done, steps in all.
    pub step: Option<(u64, usize, usize)>,
}

/// Something worth a line in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A picture is finished.
    Painted {
        /// Its seed.
        seed: u64,
        /// How long it took.
        took: Duration,
    },
    /// A picture could not be painted.
    Failed {
        /// Why.
        sentence: String,
        /// When the next one is tried.
        again: Duration,
    },
    /// The panel does not work: why. It is tried again by itself.
    PanelFails(String),
    /// The panel works, or works again.
    PanelWorks(PanelInfo),
}

/// A frame: a painter before a panel.
pub struct Kiosk<'a> {
    /// Who paints.
    pub painter: &'a mut dyn Paint,
    /// What is shown on.
    pub stage: &'a Stage<Scene>,
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// Whether the loop is to end.
    pub stop: &'a dyn Fn() -> bool,
    /// What somebody in front of it asked for since the last time, if anything.
    pub keys: &'a dyn Fn() -> Option<Key>,
    /// Who writes the log.
    pub report: &'a mut dyn FnMut(Event),
    /// Who wants to know that the loop is alive; it never waits.
    pub beat: &'a mut dyn FnMut(Beat),
}

/// What the loop knows of the moment.
#[derive(Default)]
struct Now {
    /// A picture hangs until somebody lets the loop go on.
    paused: bool,
    /// Somebody closed the panel.
    closed: bool,
    /// Somebody wants the next picture.
    next: bool,
    /// What was told of the panel last.
    told: Option<Event>,
}

impl Now {
    fn press(&mut self, key: Key) {
        match key {
            Key::Next => self.next = true,
            Key::Pause => self.paused = !self.paused,
            Key::Close => self.closed = true,
        }
    }
}

impl Kiosk<'_> {
    /// Paints and shows until it is to stop: within one step while it paints, and within a fifth
    /// of a second while a picture hangs.
    pub fn run(&mut self, settings: &Settings) {
        let mut now = Now::default();
        let mut seed = settings.first_seed;
        let (mut painted, mut failures) = (0, 0);
        if let Some(sentence) = &settings.fault {
            self.stage
                .show(Kind::Finished, card("Settings ignored", sentence));
            self.wait(self.hold(NOTICE), &mut now);
        }
        while !self.ends(&now) && settings.pictures.is_none_or(|pictures| painted < pictures) {
            let start = self.clock.now();
            let hold = match self.paint(seed, settings, &mut now) {
                Ok(picture) => {
                    failures = 0;
                    painted += 1;
                    let took = self.clock.now().saturating_sub(start);
                    let scene = scene(picture, seed, &self.painter.name(), None, settings);
                    self.stage.show(Kind::Finished, scene);
                    (self.report)(Event::Painted { seed, took });
                    self.hold(settings.hold)
                }
                Err(Error::Stopped) => Duration::ZERO,
                Err(error) => {
                    failures += 1;
                    let again = Patience::default().retry(failures);
                    let sentence = error.to_string();
                    self.stage
                        .show(Kind::Finished, card("No picture", &sentence));
                    (self.report)(Event::Failed { sentence, again });
                    again
                }
            };
            seed = seed.wrapping_add(1);
            self.wait(hold, &mut now);
        }
    }

    fn ends(&self, now: &Now) -> bool {
        now.closed || (self.stop)()
    }

    fn paint(&mut self, seed: u64, settings: &Settings, now: &mut Now) -> Result<Picture> {
        let (stage, stop, keys) = (self.stage, self.stop, self.keys);
        let beat = &mut *self.beat;
        let name = self.painter.name();
        self.painter.paint(seed, &mut |moment| {
            while let Some(key) = keys() {
                now.press(key);
            }
            if stop() || now.closed || now.next {
                return ControlFlow::Break(());
            }
            beat(Beat {
                shown: stage.status().shown > 0,
                step: Some((seed, moment.done, moment.count)),
            });
            let watched = settings.emergence != Style::None && stage.shows_steps();
            let looks = watched.then(|| (moment.look)(settings.emergence)).flatten();
            if let Some(picture) = looks {
                let scene = scene(picture, seed, &name, Some(moment), settings);
                stage.show(Kind::Step, scene);
            }
            ControlFlow::Continue(())
        })
    }

    /// A panel that may not be refreshed before some time would never show what is painted before.
    fn hold(&self, hold: Duration) -> Duration {
        match self.stage.status().panel.map(|panel| panel.pace) {
            Some(Pace::Finished(interval)) => hold.max(interval),
            _ => hold,
        }
    }

    /// Lets what is shown hang, longer where somebody pauses and shorter where they want the next
    /// picture, and tells how the panel is.
    fn wait(&mut self, time: Duration, now: &mut Now) {
        let end = self.clock.now() + time;
        loop {
            while let Some(key) = (self.keys)() {
                now.press(key);
            }
            self.tell(now);
            (self.beat)(Beat {
                shown: self.stage.status().shown > 0,
                step: None,
            });
            let left = end.saturating_sub(self.clock.now());
            let next = std::mem::take(&mut now.next);
            if self.ends(now) || next || (left.is_zero() && !now.paused) {
                return;
            }
            let tick = if now.paused { TICK } else { left.min(TICK) };
            self.clock.sleep(tick);
        }
    }

    fn tell(&mut self, now: &mut Now) {
        let status = self.stage.status();
        let event = match (status.fault(), status.panel.clone()) {
            (Some(sentence), _) => Event::PanelFails(sentence.to_owned()),
            (None, Some(panel)) => Event::PanelWorks(panel),
            (None, None) => return,
        };
        if now.told.as_ref() != Some(&event) {
            (self.report)(event.clone());
            now.told = Some(event);
        }
    }
}

fn scene(
    picture: Picture,
    seed: u64,
    painter: &str,
    moment: Option<&Moment>,
    settings: &Settings,
) -> Scene {
    let step = moment.map(|moment| (moment.done, moment.count));
    let captions = settings
        .captions
        .iter()
        .filter_map(|caption| match caption {
            Caption::Seed => Some(format!("seed {seed}")),
            Caption::Model => Some(painter.to_owned()),
            Caption::Step => step.map(|(done, count)| format!("step {done}/{count}")),
        });
    let progress = step.map(|(done, count)| done as f64 / count.max(1) as f64);
    Scene::Picture {
        picture,
        progress: progress.filter(|_| settings.progress_line),
        captions: captions.collect(),
    }
}

fn card(headline: &str, sentence: &str) -> Scene {
    Scene::Card {
        headline: headline.to_owned(),
        sentence: sentence.to_owned(),
        page: None,
    }
}

#[cfg(test)]
mod tests;
