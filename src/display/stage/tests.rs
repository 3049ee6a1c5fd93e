//! The stage on a panel that is slow, fails, panics and hangs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use super::*;
use crate::display::Power;

/// What a fake panel does at each call: opens, shows.
type Act = dyn Fn(u32, &Frame, Damage) -> Result<()> + Send + Sync;

/// Everything the tests see of the panels that a stage opened.
#[derive(Default)]
struct Log {
    shown: Mutex<Vec<(u8, Damage)>>,
    calls: AtomicU32,
    opened: AtomicU32,
    closed: AtomicU32,
}

impl Log {
    fn levels(&self) -> Vec<u8> {
        let shown = self.shown.lock().unwrap();
        shown.iter().map(|(level, _)| *level).collect()
    }
}

struct Fake {
    log: Arc<Log>,
    pace: Pace,
    act: Arc<Act>,
}

impl Display for Fake {
    fn info(&self) -> PanelInfo {
        PanelInfo {
            name: "fake".into(),
            size_px: [2, 1],
            pace: self.pace,
        }
    }

    fn show(&mut self, frame: &Frame, damage: Damage) -> Result<()> {
        let call = self.log.calls.fetch_add(1, Ordering::SeqCst);
        (self.act)(call, frame, damage)?;
        self.log
            .shown
            .lock()
            .unwrap()
            .push((frame.rgb()[0], damage));
        Ok(())
    }

    fn power(&mut self, _: Power) -> Result<()> {
        Ok(())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.log.closed.fetch_add(1, Ordering::SeqCst);
    }
}

const SOON: Duration = Duration::from_secs(20);

/// A thousand times faster than on a wall.
fn patience() -> Patience {
    Patience {
        first_retry: Duration::from_millis(1),
        longest_retry: Duration::from_millis(8),
        keep_alive: Duration::from_secs(3600),
        hang: Duration::from_secs(3600),
    }
}

fn stage(pace: Pace, patience: Patience, act: Arc<Act>) -> (Stage<u8>, Arc<Log>) {
    let log = Arc::new(Log::default());
    let opened = log.clone();
    let open = move || {
        opened.opened.fetch_add(1, Ordering::SeqCst);
        let (log, act) = (opened.clone(), act.clone());
        Ok(Box::new(Fake { log, pace, act }) as Box<dyn Display>)
    };
    let compose = |level: &u8, frame: &mut Frame| frame.rgb_mut().fill(*level);
    (Stage::new(Box::new(open), Box::new(compose), patience), log)
}

/// A panel whose calls wait for the test's word, and say when they have begun.
fn gated() -> (Arc<Act>, mpsc::Receiver<u8>, mpsc::Sender<()>) {
    let (began, begins) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let (began, gate) = (Mutex::new(began), Mutex::new(gate));
    let act = move |_, frame: &Frame, _| {
        began.lock().unwrap().send(frame.rgb()[0]).unwrap();
        gate.lock().unwrap().recv_timeout(SOON).unwrap();
        Ok(())
    };
    (Arc::new(act), begins, open)
}

fn working() -> Arc<Act> {
    Arc::new(|_, _, _| Ok(()))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "still not: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_busy_panel_takes_the_newest_and_the_painter_never_waits() {
    let (act, begins, open) = gated();
    let (stage, log) = stage(Pace::Live, patience(), act);
    stage.show(Kind::Step, 1);
    assert_eq!(begins.recv_timeout(SOON), Ok(1));
    // The panel does not move until it is told to: whatever waited for it would wait for ever.
    for level in 2..=100 {
        stage.show(Kind::Step, level);
    }
    assert_eq!(stage.status().dropped, 98);
    open.send(()).unwrap();
    assert_eq!(begins.recv_timeout(SOON), Ok(100));
    open.send(()).unwrap();
    stage.finish(SOON).unwrap();
    assert_eq!(log.levels(), [1, 100]);
    assert_eq!(stage.status().shown, 2);
}

#[test]
fn a_finished_picture_is_shown_before_the_steps_of_the_next_one() {
    let (act, begins, open) = gated();
    let (stage, log) = stage(Pace::Live, patience(), act);
    stage.show(Kind::Step, 1);
    assert_eq!(begins.recv_timeout(SOON), Ok(1));
    stage.show(Kind::Step, 2);
    stage.show(Kind::Finished, 3);
    stage.show(Kind::Step, 4);
    stage.show(Kind::Step, 5);
    (0..3).for_each(|_| open.send(()).unwrap());
    stage.finish(SOON).unwrap();
    assert_eq!(log.levels(), [1, 3, 5]);
    assert_eq!((stage.status().shown, stage.status().dropped), (3, 2));
}

#[test]
fn a_slow_panel_shows_finished_pictures_only() {
    let (stage, log) = stage(Pace::Finished(Duration::ZERO), patience(), working());
    stage.show(Kind::Step, 1);
    until("the panel is known", || stage.status().panel.is_some());
    assert!(!stage.shows_steps());
    stage.show(Kind::Step, 2);
    stage.show(Kind::Finished, 3);
    stage.show(Kind::Step, 4);
    stage.finish(SOON).unwrap();
    assert_eq!(log.levels(), [3]);
    until("all steps are counted", || stage.status().dropped == 3);
}

#[test]
fn a_pace_is_kept() {
    let pause = Duration::from_millis(40);
    let (stage, log) = stage(Pace::Every(pause), patience(), working());
    let start = Instant::now();
    stage.show(Kind::Step, 1);
    stage.finish(SOON).unwrap();
    stage.show(Kind::Step, 2);
    stage.show(Kind::Step, 3);
    stage.finish(SOON).unwrap();
    assert!(start.elapsed() >= pause);
    assert_eq!(log.levels().last(), Some(&3));
}

#[test]
fn a_failing_panel_is_tried_again_with_the_newest_scene() {
    // The old scene never succeeds, so that the new one comes in time on a slow machine too.
    let act = |call, frame: &Frame, _| {
        if call < 7 || frame.rgb()[0] == 9 {
            return Err(Error::unexpected("spi0", "an answer", "none"));
        }
        Ok(())
    };
    let (stage, log) = stage(Pace::Live, patience(), Arc::new(act));
    stage.show(Kind::Finished, 9);
    until("the panel failed", || stage.status().failures > 0);
    let sentence = "spi0: expected an answer, found none";
    assert_eq!(stage.status().fault(), Some(sentence));
    stage.show(Kind::Finished, 10);
    stage.finish(SOON).unwrap();
    let status = stage.status();
    assert_eq!((status.failures, status.fault()), (0, None));
    assert_eq!(status.last_error.as_deref(), Some(sentence));
    // After a failure the panel may show anything, so all of it is sent.
    assert_eq!(*log.shown.lock().unwrap(), [(10, Damage::All)]);
    let failures = log.calls.load(Ordering::SeqCst) - 1;
    assert_eq!(log.opened.load(Ordering::SeqCst), 1 + failures / 3);
    stage.show(Kind::Step, 11);
    stage.finish(SOON).unwrap();
    assert_eq!(
        log.shown.lock().unwrap().last(),
        Some(&(11, Damage::Changed))
    );
}

#[test]
fn a_panel_that_cannot_be_opened_is_opened_later() {
    let tries = AtomicU32::new(0);
    let open = move || -> Result<Box<dyn Display>> {
        if tries.fetch_add(1, Ordering::SeqCst) < 3 {
            return Err(Error::unexpected("/dev/spidev0.0", "a device", "none"));
        }
        let (act, pace) = (working(), Pace::Live);
        Ok(Box::new(Fake {
            log: Arc::default(),
            pace,
            act,
        }))
    };
    let compose = |_: &u8, _: &mut Frame| {};
    let stage = Stage::new(Box::new(open), Box::new(compose), patience());
    stage.show(Kind::Finished, 1);
    stage.finish(SOON).unwrap();
    let status = stage.status();
    assert_eq!(status.shown, 1);
    assert_eq!(
        status.last_error.as_deref(),
        Some("/dev/spidev0.0: expected a device, found none")
    );
}

#[test]
fn a_panic_becomes_a_sentence_and_the_panel_is_opened_again() {
    let act = |call, _: &Frame, _| {
        assert!(call > 0, "row {call} is none");
        Ok(())
    };
    let (stage, log) = stage(Pace::Live, patience(), Arc::new(act));
    stage.show(Kind::Finished, 1);
    stage.finish(SOON).unwrap();
    let error = stage.status().last_error.unwrap();
    assert_eq!(
        error,
        "panel's driver: expected an answer, found a panic: row 0 is none"
    );
    assert_eq!(
        (log.opened.load(Ordering::SeqCst), log.levels()),
        (2, vec![1])
    );
}

#[test]
fn a_hanging_panel_is_given_up_and_opened_anew() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let act = move |call, _: &Frame, _| {
        if call == 0 {
            gate.lock().unwrap().recv_timeout(SOON).unwrap();
        }
        Ok(())
    };
    let hang = Duration::from_millis(300);
    let impatient = Patience { hang, ..patience() };
    let (stage, log) = stage(Pace::Live, impatient, Arc::new(act));
    stage.show(Kind::Finished, 1);
    until("it was given up", || {
        stage.status().failures > 0 || stage.status().shown > 0
    });
    // What hung on the first panel is shown by the second.
    stage.finish(SOON).unwrap();
    assert_eq!(log.levels(), [1]);
    let error = stage.status().last_error.unwrap();
    assert_eq!(error, "fake: expected an answer within 0.3 s, found none");
    assert_eq!(log.opened.load(Ordering::SeqCst), 2);
    // The first panel comes back, finds that it was given up, and is closed.
    open.send(()).unwrap();
    until("the first one is closed", || {
        log.closed.load(Ordering::SeqCst) == 1
    });
    stage.show(Kind::Finished, 2);
    stage.finish(SOON).unwrap();
    assert_eq!(log.levels().last(), Some(&2));
}

#[test]
fn a_live_panel_is_kept_alive() {
    let keep_alive = Duration::from_millis(1);
    let lively = Patience {
        keep_alive,
        ..patience()
    };
    let (stage, log) = stage(Pace::Live, lively, working());
    stage.show(Kind::Finished, 1);
    until("it is shown again", || log.levels().len() > 3);
    assert!(log.levels().iter().all(|&level| level == 1));
    assert_eq!(stage.status().shown, 1, "a scene counts once");
}

#[test]
fn closing_waits_for_the_panel_but_not_for_ever() {
    let (act, begins, open) = gated();
    let (stage, log) = stage(Pace::Live, patience(), act);
    stage.show(Kind::Finished, 1);
    assert_eq!(begins.recv_timeout(SOON), Ok(1));
    let error = stage
        .close(Duration::from_millis(10))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "fake: expected an answer within 0.01 s, found none");
    open.send(()).unwrap();
    until("the panel is closed", || {
        log.closed.load(Ordering::SeqCst) == 1
    });

    let (stage, log) = self::stage(Pace::Live, patience(), working());
    stage.show(Kind::Finished, 1);
    stage.finish(SOON).unwrap();
    stage.close(SOON).unwrap();
    assert_eq!(log.closed.load(Ordering::SeqCst), 1);
}

#[test]
fn waits_double_up_to_a_minute() {
    let patience = Patience::default();
    let waits = [1, 2, 3, 4, 5, 6, 7, 8, 1000].map(|failures| patience.retry(failures).as_secs());
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
}
