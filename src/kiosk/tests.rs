//! The loop with a painter, a clock and a panel that do what a test wants.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};

use super::*;
use crate::display::{Damage, Display, Frame, Power};

/// Paints one colour for each seed, in four steps of one second, and fails where it is told to.
struct Painter<'a> {
    clock: &'a Steps,
    fails: fn(u64) -> bool,
    looked: Cell<usize>,
    /// Waits until the panel has seen the step.
    settle: &'a dyn Fn(),
}

impl Paint for Painter<'_> {
    fn name(&self) -> String {
        "four-steps".into()
    }

    fn paint(&mut self, seed: u64, on_step: OnMoment) -> Result<Picture> {
        if (self.fails)(seed) {
            return Err(Error::unexpected(
                "model",
                "a file",
                format!("none for {seed}"),
            ));
        }
        for done in 1..=4 {
            self.clock.sleep(Duration::from_secs(1));
            let looked = &self.looked;
            let look = |_| {
                looked.set(looked.get() + 1);
                Some(Picture::filled(4, 4, [done as u8; 3]))
            };
            let moment = Moment {
                done,
                count: 4,
                look: &look,
            };
            if on_step(&moment).is_break() {
                return Err(Error::Stopped);
            }
            (self.settle)();
        }
        Ok(Picture::filled(4, 4, [100_u8.wrapping_add(seed as u8); 3]))
    }
}

/// A clock that moves when somebody sleeps, and asks the loop to stop at a time.
struct Steps {
    now: Cell<Duration>,
    end: Duration,
    presses: Cell<usize>,
}

impl Steps {
    /// Presses the next of these keys when its second has come.
    fn press(&self, keys: &[(u64, Key)]) -> Option<Key> {
        let (second, key) = *keys.get(self.presses.get())?;
        let comes = self.now.get() >= Duration::from_secs(second);
        comes.then(|| {
            self.presses.set(self.presses.get() + 1);
            key
        })
    }
}

impl Steps {
    fn until(end_s: u64) -> Self {
        Self {
            now: Cell::default(),
            end: Duration::from_secs(end_s),
            presses: Cell::default(),
        }
    }
}

impl Clock for Steps {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn sleep(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }
}

/// A panel that remembers the colours of what it showed, and fails for ever where it is told to.
struct Wall {
    pace: Pace,
    broken: bool,
    colours: Arc<Mutex<Vec<u8>>>,
}

impl Display for Wall {
    fn info(&self) -> PanelInfo {
        PanelInfo {
            name: "wall".into(),
            size_px: [4, 4],
            pace: self.pace,
        }
    }

    fn show(&mut self, frame: &Frame, _: Damage) -> Result<()> {
        if self.broken {
            return Err(Error::unexpected("wall", "a nail", "none"));
        }
        self.colours.lock().unwrap().push(frame.pixel(0, 0)[0]);
        Ok(())
    }

    fn power(&mut self, _: Power) -> Result<()> {
        Ok(())
    }
}

const SOON: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    Settings {
        first_seed: 7,
        hold: Duration::from_secs(60),
        emergence: Style::X0,
        captions: vec![Caption::Seed, Caption::Model, Caption::Step],
        progress_line: true,
        pictures: None,
        fault: None,
    }
}

struct Evening {
    events: Vec<Event>,
    beats: Vec<(Duration, Beat)>,
    scenes: Vec<Scene>,
    colours: Vec<u8>,
    looked: usize,
    ended: Duration,
}

/// Runs the loop for some seconds of its own clock. The panel is waited for in every step, so that
/// all scenes are seen; a broken one is not.
fn run(
    end_s: u64,
    settings: &Settings,
    fails: fn(u64) -> bool,
    pace: Pace,
    broken: bool,
) -> Evening {
    evening(end_s, settings, fails, pace, broken, |_| None)
}

/// The same, with somebody in front of it who presses keys.
fn evening(
    end_s: u64,
    settings: &Settings,
    fails: fn(u64) -> bool,
    pace: Pace,
    broken: bool,
    keys: fn(&Steps) -> Option<Key>,
) -> Evening {
    let clock = Steps::until(end_s);
    let colours = Arc::new(Mutex::new(Vec::new()));
    let scenes = Arc::new(Mutex::new(Vec::new()));
    let (wall, seen) = (colours.clone(), scenes.clone());
    let open = move || -> Result<Box<dyn Display>> {
        Ok(Box::new(Wall {
            pace,
            broken,
            colours: wall.clone(),
        }))
    };
    let compose = move |scene: &Scene, frame: &mut Frame| {
        seen.lock().unwrap().push(scene.clone());
        if let Scene::Picture { picture, .. } = scene {
            frame.rgb_mut().fill(picture.rgb()[0]);
        }
    };
    let stage = Stage::new(Box::new(open), Box::new(compose), Patience::default());
    let start = Instant::now();
    while stage.status().panel.is_none() {
        assert!(start.elapsed() < SOON, "the panel was not opened");
        std::thread::sleep(Duration::from_millis(1));
    }
    let settle = || {
        if !broken {
            return stage.finish(SOON).unwrap();
        }
        let start = Instant::now();
        while stage.status().failures == 0 {
            assert!(start.elapsed() < SOON, "the panel did not fail");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut painter = Painter {
        clock: &clock,
        fails,
        looked: Cell::default(),
        settle: &settle,
    };
    let events = RefCell::new(Vec::new());
    let beats = RefCell::new(Vec::new());
    let stop = || {
        if !broken {
            stage.finish(SOON).unwrap();
        }
        clock.now() >= clock.end
    };
    Kiosk {
        painter: &mut painter,
        stage: &stage,
        clock: &clock,
        stop: &stop,
        keys: &|| keys(&clock),
        report: &mut |event| events.borrow_mut().push(event),
        beat: &mut |beat| beats.borrow_mut().push((clock.now(), beat)),
    }
    .run(settings);
    let looked = painter.looked.get();
    stage.close(SOON).unwrap();
    let colours = colours.lock().unwrap().clone();
    let scenes = scenes.lock().unwrap().clone();
    Evening {
        events: events.into_inner(),
        beats: beats.into_inner(),
        scenes,
        colours,
        looked,
        ended: clock.now(),
    }
}

fn painted(seed: u64) -> Event {
    Event::Painted {
        seed,
        took: Duration::from_secs(4),
    }
}

fn works(pace: Pace) -> Event {
    Event::PanelWorks(PanelInfo {
        name: "wall".into(),
        size_px: [4, 4],
        pace,
    })
}

#[test]
fn it_paints_shows_holds_and_goes_on_with_the_next_seed() {
    let evening = run(130, &settings(), |_| false, Pace::Live, false);
    assert_eq!(evening.events, [painted(7), works(Pace::Live), painted(8)]);
    // Four steps and a picture, 60 s, and again; the third painting is stopped at its second step.
    assert_eq!(evening.colours, [1, 2, 3, 4, 107, 1, 2, 3, 4, 108, 1]);
    assert!(evening.ended <= Duration::from_secs(130));
    let Scene::Picture {
        captions, progress, ..
    } = &evening.scenes[1]
    else {
        panic!()
    };
    assert_eq!(captions, &["seed 7", "four-steps", "step 2/4"]);
    assert_eq!(*progress, Some(0.5));
    let Scene::Picture {
        captions, progress, ..
    } = &evening.scenes[4]
    else {
        panic!()
    };
    assert_eq!(
        (captions.len(), *progress),
        (2, None),
        "a finished picture has no step"
    );
}

#[test]
fn it_stops_within_a_step_and_within_a_tick() {
    // In the second step of the first picture, and while it hangs.
    let while_painting = run(2, &settings(), |_| false, Pace::Live, false);
    assert_eq!(while_painting.events, [works(Pace::Live)]);
    assert_eq!(while_painting.ended.as_secs(), 2);
    let while_hanging = run(30, &settings(), |_| false, Pace::Live, false);
    assert_eq!(while_hanging.events[0], painted(7));
    assert!(while_hanging.ended < Duration::from_secs(30) + TICK);
}

#[test]
fn it_is_heard_at_every_step_and_while_a_picture_hangs() {
    let evening = run(130, &settings(), |_| false, Pace::Live, false);
    let steps: Vec<_> = evening
        .beats
        .iter()
        .filter_map(|(_, beat)| beat.step)
        .collect();
    assert_eq!(
        steps[..5],
        [(7, 1, 4), (7, 2, 4), (7, 3, 4), (7, 4, 4), (8, 1, 4)]
    );
    let silence = evening.beats.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert_eq!(
        silence.max(),
        Some(Duration::from_secs(1)),
        "a step takes a second"
    );
    let shown = evening.beats.iter().map(|(_, beat)| beat.shown);
    assert_eq!(shown.take(3).collect::<Vec<_>>(), [false, true, true]);
    let broken = run(130, &settings(), |_| false, Pace::Live, true);
    assert!(broken.beats.iter().all(|(_, beat)| !beat.shown));
}

#[test]
fn what_is_wrong_with_the_settings_is_shown_first() {
    let wrong = Settings {
        fault: Some("driftglass.toml:1: steps: expected 1 to 1000, found 0".into()),
        ..settings()
    };
    let evening = run(70, &wrong, |_| false, Pace::Live, false);
    let Scene::Card { sentence, .. } = &evening.scenes[0] else {
        panic!()
    };
    assert_eq!(Some(sentence), wrong.fault.as_ref());
    let (begin, _) = evening
        .beats
        .iter()
        .find(|(_, beat)| beat.step.is_some())
        .unwrap();
    assert_eq!(*begin, NOTICE + Duration::from_secs(1));
    assert!(
        evening.colours.ends_with(&[1, 2, 3, 4, 107]),
        "{:?}",
        evening.colours
    );
}

#[test]
fn nobody_looks_where_nothing_is_shown() {
    let slow = Pace::Finished(Duration::ZERO);
    let evening = run(10, &settings(), |_| false, slow, false);
    assert_eq!((evening.looked, evening.colours), (0, vec![107]));
    let style = Settings {
        emergence: Style::None,
        ..settings()
    };
    let evening = run(10, &style, |_| false, Pace::Live, false);
    assert_eq!((evening.looked, evening.colours), (0, vec![107]));
}

#[test]
fn nothing_is_painted_that_a_slow_panel_could_not_show() {
    // Finished pictures every 50 s of the panel's time, though the owner asked for none.
    let pace = Pace::Finished(Duration::from_secs(50));
    let impatient = Settings {
        hold: Duration::ZERO,
        ..settings()
    };
    let clock_s = 49;
    let evening = run(clock_s, &impatient, |_| false, pace, false);
    assert_eq!(
        evening
            .events
            .iter()
            .filter(|event| matches!(event, Event::Painted { .. }))
            .count(),
        1
    );
}

#[test]
fn a_painter_that_fails_becomes_a_card_and_is_asked_again() {
    let evening = run(80, &settings(), |seed| seed < 9, Pace::Live, false);
    let failed = |seed: u64, again_s| Event::Failed {
        sentence: format!("model: expected a file, found none for {seed}"),
        again: Duration::from_secs(again_s),
    };
    assert_eq!(
        evening.events[..3],
        [failed(7, 1), works(Pace::Live), failed(8, 2)]
    );
    assert_eq!(evening.events[3], painted(9));
    let Scene::Card {
        headline, sentence, ..
    } = &evening.scenes[0]
    else {
        panic!()
    };
    assert_eq!(headline, "No picture");
    assert_eq!(sentence, "model: expected a file, found none for 7");
    assert!(
        evening
            .colours
            .ends_with(&[1, 2, 3, 4, 109, 1, 2, 3, 4, 110]),
        "{:?}",
        evening.colours
    );
}

#[test]
fn a_broken_panel_is_told_once_and_stops_nobody() {
    let evening = run(200, &settings(), |_| false, Pace::Live, true);
    let fails = Event::PanelFails("wall: expected a nail, found none".into());
    let painted: Vec<_> = (7..10).map(painted).collect();
    assert!(
        painted.iter().all(|event| evening.events.contains(event)),
        "{:?}",
        evening.events
    );
    assert_eq!(
        evening
            .events
            .iter()
            .filter(|event| **event == fails)
            .count(),
        1
    );
}

#[test]
fn it_ends_by_itself_after_so_many_pictures() {
    let two = Settings {
        pictures: Some(2),
        hold: Duration::ZERO,
        ..settings()
    };
    let evening = run(1000, &two, |_| false, Pace::Live, false);
    assert_eq!(evening.colours, [1, 2, 3, 4, 107, 1, 2, 3, 4, 108]);
}

#[test]
fn seeds_go_round() {
    let last = Settings {
        first_seed: u64::MAX,
        hold: Duration::ZERO,
        pictures: Some(2),
        ..settings()
    };
    let evening = run(
        1000,
        &last,
        |seed| seed > 0 && seed < u64::MAX,
        Pace::Live,
        false,
    );
    let seeds = evening.events.iter().filter_map(|event| match event {
        Event::Painted { seed, .. } => Some(*seed),
        _ => None,
    });
    assert_eq!(seeds.collect::<Vec<_>>(), [u64::MAX, 0]);
}

#[test]
fn somebody_in_front_of_it_may_pause_go_on_and_close() {
    let pressed = |keys: fn(&Steps) -> Option<Key>| {
        let evening = evening(1000, &settings(), |_| false, Pace::Live, false, keys);
        (evening.colours, evening.ended)
    };
    // While the first picture hangs, and while the second one is painted.
    let (colours, ended) =
        pressed(|clock| clock.press(&[(10, Key::Next), (12, Key::Next), (13, Key::Close)]));
    assert_eq!(colours, [1, 2, 3, 4, 107, 1]);
    assert!(ended < Duration::from_secs(15), "{ended:?}");
    let (colours, ended) =
        pressed(|clock| clock.press(&[(10, Key::Pause), (500, Key::Pause), (501, Key::Close)]));
    assert_eq!(colours[..5], [1, 2, 3, 4, 107], "a paused picture hangs");
    assert!(ended > Duration::from_secs(499), "{ended:?}");
}
