//! The panel's own thread: it takes the newest scene, and never slows the painter.
//!
//! A painter hands over small scenes (a picture and what is to be said of it); the thread makes
//! frames of them, shows them as fast as the panel's pace allows, and drops what it cannot show.
//! A finished picture is never dropped in favour of a step. A panel that fails, panics or hangs
//! becomes a sentence in [`Status`] and is tried again, later and later, with the newest scene.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Damage, Display, Frame, Pace, PanelInfo};
use crate::error::{Error, Result};

/// Opens the panel; called again when the panel must be opened again.
pub type Open = dyn Fn() -> Result<Box<dyn Display>> + Send + Sync;

/// Draws a scene into a black frame of the panel's size.
pub type Compose<S> = dyn FnMut(&S, &mut Frame) + Send;

/// A panel is opened again when it failed this many times in a row.
const FAILURES_UNTIL_REOPENED: u32 = 3;

/// Threads that a panel may hold for ever before no other one is started.
const MAX_STUCK: u32 = 3;

/// How long a dropped stage waits for its panel.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What a scene is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A picture that emerges; the next one is as good.
    Step,
    /// A picture to be seen.
    Finished,
}

/// How long a stage waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After the first failure, until the panel is tried again; then twice as long, and so on.
    pub first_retry: Duration,
    /// The longest wait between two tries.
    pub longest_retry: Duration,
    /// A live panel is shown its frame again after this time, so that it finds out that it was
    /// unplugged or switched off and on. It sends nothing when nothing changed.
    pub keep_alive: Duration,
    /// A call that takes longer hangs, and is given up.
    pub hang: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(60),
            keep_alive: Duration::from_secs(2),
            // The slowest e-paper takes 45 s, and a driver waits twice as long for it.
            hang: Duration::from_secs(180),
        }
    }
}

/// What became of the scenes, and how the panel is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The panel, as soon as it could be opened.
    pub panel: Option<PanelInfo>,
    /// Scenes that were shown.
    pub shown: u64,
    /// Scenes that were not: the panel was busy, or does not show steps.
    pub dropped: u64,
    /// When a scene was shown last.
    pub last_shown: Option<Instant>,
    /// Failures in a row: 0 when the panel works.
    pub failures: u32,
    /// What the last failure was, a sentence; it stays when the panel works again.
    pub last_error: Option<String>,
}

impl Status {
    /// The sentence of a panel that does not work now.
    pub fn fault(&self) -> Option<&str> {
        let failing = self.failures > 0;
        self.last_error.as_deref().filter(|_| failing)
    }
}

/// A panel on its own thread.
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use driftglass::display::stage::{Kind, Patience, Stage};
/// use driftglass::display::{Damage, Display, Frame, Pace, PanelInfo, Power};
/// use driftglass::error::Result;
///
/// struct Nothing;
///
/// impl Display for Nothing {
///     fn info(&self) -> PanelInfo {
///         PanelInfo { name: "nothing".into(), size_px: [2, 2], pace: Pace::Live }
///     }
///     fn show(&mut self, _: &Frame, _: Damage) -> Result<()> {
///         Ok(())
///     }
///     fn power(&mut self, _: Power) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// let grey = |level: &u8, frame: &mut Frame| frame.rgb_mut().fill(*level);
/// let stage = Stage::new(Box::new(|| Ok(Box::new(Nothing))), Box::new(grey), Patience::default());
/// stage.show(Kind::Finished, 128);
/// stage.finish(Duration::from_secs(5))?;
/// assert_eq!(stage.status().shown, 1);
/// # Ok::<(), driftglass::error::Error>(())
/// ```
pub struct Stage<S: Send + Sync + 'static> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    open: Box<Open>,
    /// Only the thread whose turn it is draws: one that hangs does so in its panel.
    compose: Mutex<Box<Compose<S>>>,
    patience: Patience,
    state: Mutex<State<S>>,
    /// Something came for the panel's thread.
    work: Condvar,
    /// The panel's thread is done with something.
    done: Condvar,
}

struct State<S> {
    finished: Option<S>,
    step: Option<S>,
    /// What the panel shows or should show; kept, since a panel may have to show it again.
    scene: Option<(Kind, Arc<S>)>,
    /// The scene is not on the glass yet.
    unshown: bool,
    /// When the call began in which the panel is now.
    called: Option<Instant>,
    /// The thread that may work; those before it hang, or have hung.
    turn: u64,
    stuck: u32,
    closing: bool,
    ended: bool,
    status: Status,
}

impl<S: Send + Sync + 'static> Stage<S> {
    /// Starts the thread, which opens the panel at once.
    pub fn new(open: Box<Open>, compose: Box<Compose<S>>, patience: Patience) -> Self {
        let state = State {
            finished: None,
            step: None,
            scene: None,
            unshown: false,
            called: None,
            turn: 0,
            stuck: 0,
            closing: false,
            ended: false,
            status: Status::default(),
        };
        let shared = Arc::new(Shared {
            open,
            compose: Mutex::new(compose),
            patience,
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        Shared::start(&shared, &mut shared.lock());
        Self { shared }
    }

    /// Hands a scene over and returns at once, however the panel is.
    pub fn show(&self, kind: Kind, scene: S) {
        let mut state = self.shared.lock();
        Shared::give_up_hanging(&self.shared, &mut state);
        let before = match kind {
            Kind::Step if !state.shows_steps() => Some(scene),
            Kind::Step => state.step.replace(scene),
            Kind::Finished => {
                // A step of the same picture, or of one before it.
                let step = state.step.take();
                state.status.dropped += u64::from(step.is_some());
                state.finished.replace(scene)
            }
        };
        state.status.dropped += u64::from(before.is_some());
        drop(state);
        self.shared.work.notify_one();
    }

    /// Whether the panel shows steps at all: making scenes for one that does not is a waste.
    pub fn shows_steps(&self) -> bool {
        self.shared.lock().shows_steps()
    }

    /// What became of the scenes, and how the panel is.
    pub fn status(&self) -> Status {
        let mut state = self.shared.lock();
        Shared::give_up_hanging(&self.shared, &mut state);
        state.status.clone()
    }

    /// Waits until everything that was handed over is shown or dropped.
    ///
    /// # Errors
    ///
    /// When that takes longer than `patience`: the panel's own sentence, if it has one.
    pub fn finish(&self, patience: Duration) -> Result<()> {
        let busy =
            |state: &State<S>| state.unshown || state.finished.is_some() || state.step.is_some();
        self.wait(patience, busy)
    }

    /// Stops the panel's thread and waits until the panel is closed.
    ///
    /// # Errors
    ///
    /// When the panel does not come back within `patience`; the thread is left behind.
    pub fn close(self, patience: Duration) -> Result<()> {
        self.end(patience)
    }

    fn end(&self, patience: Duration) -> Result<()> {
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        self.wait(patience, |state| !state.ended)
    }

    fn wait(&self, patience: Duration, busy: impl Fn(&State<S>) -> bool) -> Result<()> {
        let end = Instant::now() + patience;
        let mut state = self.shared.lock();
        while busy(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(state.overdue(patience));
            }
            state = self.shared.wait_done(state, left);
        }
        Ok(())
    }
}

impl<S: Send + Sync + 'static> Drop for Stage<S> {
    fn drop(&mut self) {
        let closing = self.shared.lock().closing;
        if !closing {
            // A panel's own clean-up (a console to restore) happens on its thread. Whoever wants
            // to know whether it did calls `close`.
            let _ = self.end(LAST_WAIT);
        }
    }
}

impl<S> State<S> {
    fn pace(&self) -> Pace {
        let panel = self.status.panel.as_ref();
        panel.map_or(Pace::Live, |panel| panel.pace)
    }

    fn shows_steps(&self) -> bool {
        !matches!(self.pace(), Pace::Finished(_))
    }

    /// Takes the scene to be shown, the newest, but a finished one before the steps after it;
    /// whether it is another one than before.
    fn take_newest(&mut self) -> bool {
        let finished_waits = self.unshown && matches!(self.scene, Some((Kind::Finished, _)));
        let newest = match self.finished.take() {
            Some(scene) => Some((Kind::Finished, scene)),
            None if finished_waits => None,
            None => self.step.take().map(|scene| (Kind::Step, scene)),
        };
        let Some((kind, scene)) = newest else {
            return false;
        };
        self.status.dropped += u64::from(self.unshown);
        self.unshown = true;
        self.scene = Some((kind, Arc::new(scene)));
        true
    }

    /// Takes note of the panel as it is now; whether the scene, if there is one, is for it.
    fn knows(&mut self, panel: PanelInfo) -> bool {
        self.status.panel = Some(panel);
        if self.shows_steps() {
            return true;
        }
        // Steps that came before the panel's pace was known.
        let steps = u64::from(self.step.take().is_some());
        self.status.dropped += steps;
        let is_step = matches!(self.scene, Some((Kind::Step, _)));
        if is_step {
            self.status.dropped += u64::from(self.unshown);
            self.unshown = false;
            self.scene = None;
        }
        !is_step
    }

    fn name(&self) -> String {
        let panel = self.status.panel.as_ref();
        panel.map_or_else(|| "panel".to_owned(), |panel| panel.name.clone())
    }

    fn overdue(&self, patience: Duration) -> Error {
        let expected = format!("an answer within {} s", patience.as_secs_f32());
        let found = self.status.fault().unwrap_or("none");
        Error::unexpected(self.name(), expected, found)
    }

    fn fail(&mut self, sentence: String) {
        self.status.failures = self.status.failures.saturating_add(1);
        self.status.last_error = Some(sentence);
    }
}

impl<S: Send + Sync + 'static> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // No foreign code runs while it is held, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_done<'a>(
        &self,
        state: MutexGuard<'a, State<S>>,
        left: Duration,
    ) -> MutexGuard<'a, State<S>> {
        let waited = self.done.wait_timeout(state, left);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn start(shared: &Arc<Self>, state: &mut State<S>) {
        let worker = Worker {
            shared: shared.clone(),
            turn: state.turn,
            panel: None,
            frame: None,
            damage: Damage::All,
            due: Some(Instant::now()),
            last: None,
        };
        let started = thread::Builder::new()
            .name("panel".into())
            .spawn(move || worker.run());
        if let Err(error) = started {
            state.ended = true;
            state.fail(format!("panel: expected a thread, found {error}"));
        }
    }

    /// A panel that hangs is left to its thread, and another thread opens it anew.
    fn give_up_hanging(shared: &Arc<Self>, state: &mut State<S>) {
        let hang = shared.patience.hang;
        let hangs = state.called.is_some_and(|since| since.elapsed() > hang);
        if !hangs || state.closing {
            return;
        }
        let sentence = format!(
            "{}: expected an answer within {} s, found none",
            state.name(),
            hang.as_secs_f32()
        );
        if state.stuck < MAX_STUCK {
            state.stuck += 1;
            state.turn += 1;
            state.called = None;
            state.unshown = state.scene.is_some();
            state.fail(sentence);
            Self::start(shared, state);
        } else if state.status.last_error.as_ref() != Some(&sentence) {
            state.fail(sentence);
        }
    }
}

/// What the panel's thread owns.
struct Worker<S: Send + Sync + 'static> {
    shared: Arc<Shared<S>>,
    turn: u64,
    panel: Option<Box<dyn Display>>,
    /// The scene as it was drawn last.
    frame: Option<Frame>,
    damage: Damage,
    /// When the panel is to be opened, or tried again.
    due: Option<Instant>,
    /// When the panel was shown something last.
    last: Option<Instant>,
}

impl<S: Send + Sync + 'static> Worker<S> {
    fn run(mut self) {
        while let Some(scene) = self.wait() {
            let tried = guarded(|| self.attempt(scene.as_deref()));
            let panicked = tried.is_err();
            let Some(failures) = self.record(tried.and_then(|tried| tried)) else {
                break;
            };
            // A controller that lost its power needs its whole beginning again.
            if panicked || failures > 0 && failures.is_multiple_of(FAILURES_UNTIL_REOPENED) {
                // What a broken panel says while it is closed adds nothing to what it said.
                let _ = self.shut();
            }
        }
        let shut = self.shut();
        let mut state = self.shared.lock();
        if state.turn == self.turn {
            if let Err(error) = shut {
                state.fail(error.to_string());
            }
            state.ended = true;
            state.called = None;
        } else {
            state.stuck -= 1;
        }
        drop(state);
        self.shared.done.notify_all();
    }

    fn shut(&mut self) -> Result<()> {
        let panel = self.panel.take();
        guarded(|| drop(panel))
    }

    /// Waits for something to do: to open the panel, and to show it the scene if there is one.
    /// `None` when there is nothing to do any more.
    fn wait(&mut self) -> Option<Option<Arc<S>>> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        loop {
            if state.turn != self.turn || state.closing {
                return None;
            }
            let now = Instant::now();
            let due = self.next(&state, now);
            if due.is_some_and(|due| due <= now) {
                if state.take_newest() {
                    self.frame = None;
                }
                state.called = Some(now);
                let scene = state.scene.as_ref();
                return Some(scene.map(|(_, scene)| scene.clone()));
            }
            let wait = due.map_or(Duration::MAX, |due| due - now);
            let waited = shared.work.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// When there is something to do, as far as is known.
    fn next(&self, state: &State<S>, now: Instant) -> Option<Instant> {
        if self.due.is_some() {
            return self.due;
        }
        let pace = state.pace();
        let interval = match pace {
            Pace::Live => Duration::ZERO,
            Pace::Every(interval) | Pace::Finished(interval) => interval,
        };
        let after = |wait| self.last.map_or(now, |last| last + wait);
        if state.finished.is_some() || state.step.is_some() || state.unshown {
            Some(after(interval))
        } else if pace == Pace::Live && state.scene.is_some() {
            Some(after(self.shared.patience.keep_alive))
        } else {
            None
        }
    }

    /// Opens the panel if it is not open, and shows the scene if there is one.
    fn attempt(&mut self, scene: Option<&S>) -> Result<()> {
        let panel = match &mut self.panel {
            Some(panel) => panel,
            closed => closed.insert((self.shared.open)()?),
        };
        let info = panel.info();
        let size_px = info.size_px;
        if !self.shared.lock().knows(info) {
            // The panel does not show steps, and this is one.
            return Ok(());
        }
        let Some(scene) = scene else {
            return Ok(());
        };
        let frame = self.frame.take().filter(|frame| frame.size_px() == size_px);
        let frame = self.frame.insert(frame.unwrap_or_else(|| {
            let mut frame = Frame::new(size_px[0], size_px[1]);
            let compose = self.shared.compose.lock();
            compose.unwrap_or_else(PoisonError::into_inner)(scene, &mut frame);
            frame
        }));
        panel.show(frame, self.damage)?;
        self.last = Some(Instant::now());
        Ok(())
    }

    /// Writes down how it went and returns the failures in a row; `None` when this thread has
    /// been given up meanwhile.
    fn record(&mut self, tried: Result<()>) -> Option<u32> {
        let mut state = self.shared.lock();
        if state.turn != self.turn {
            return None;
        }
        state.called = None;
        match tried {
            Ok(()) => {
                self.due = None;
                self.damage = Damage::Changed;
                state.status.failures = 0;
                state.status.last_shown = self.last;
                state.status.shown += u64::from(state.unshown);
                state.unshown = false;
            }
            Err(error) => {
                state.fail(error.to_string());
                self.damage = Damage::All;
                let wait = self.shared.patience.retry(state.status.failures);
                self.due = Some(Instant::now() + wait);
            }
        }
        self.shared.done.notify_all();
        Some(state.status.failures)
    }
}

impl Patience {
    /// The wait after so many failures in a row.
    pub fn retry(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let wait = self.first_retry.saturating_mul(1 << doublings);
        wait.min(self.longest_retry)
    }
}

/// A panic in a driver is our fault, but no reason to stop painting.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let found = format!("a panic: {}", text.unwrap_or("without a word"));
        Error::unexpected("panel's driver", "an answer", found)
    })
}

#[cfg(test)]
mod tests;
