//! Threads that run a program together, step by step.
//!
//! A step is a number of tasks; the next one begins when all of them are done. No thread is the
//! master: the one that finishes a step's last task looks up the next step, wakes who is asleep
//! and goes on. Each thread has a share of consecutive tasks, the same part of every step, since
//! neighbouring tasks of two steps touch the same pixels, which then are in its own cache. Who is
//! done with its share takes from the others', and sleeps when nothing is left.
//!
//! Waiting never spins, since the board has other work to do. That has its price: to wake a thread
//! takes microseconds, and it arrives some more after its step has begun. A step that takes less
//! than 12 µs is done soonest as one task, for which nobody is woken; a longer one as many tasks
//! of about 5 µs, so that who arrives late still gets a share and all finish together. A task
//! costs about 0.05 µs.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// What the names of all workers begin with.
pub const THREAD_NAME: &str = "driftglass";

/// A fixed number of threads: workers, and whoever calls [`Pool::run_program`].
///
/// # Example
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use driftglass::engine::pool::Pool;
///
/// let steps = [3, 1, 4];
/// let done = AtomicUsize::new(0);
/// let mut pool = Pool::new(2);
/// pool.run_program(steps.len(), |step| steps[step], |_step, _task, _thread| {
///     done.fetch_add(1, Ordering::Relaxed);
/// });
/// assert_eq!(done.into_inner(), 8);
/// ```
///
/// A task cannot run a program on the pool that runs the task:
///
/// ```compile_fail
/// # use driftglass::engine::pool::Pool;
/// let mut pool = Pool::new(2);
/// pool.run_program(1, |_| 2, |_, _, _| pool.run_program(1, |_| 2, |_, _, _| ()));
/// ```
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads - 1` workers. If the system refuses one, the pool does with those it has.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::new(threads.max(1)));
        let start = |thread: usize| {
            let shared = Arc::clone(&shared);
            let worker = Builder::new().name(format!("{THREAD_NAME}-{thread}"));
            worker.spawn(move || shared.serve(thread)).ok()
        };
        let workers = (0..shared.caller()).map_while(start).collect();
        Self { shared, workers }
    }

    /// All threads: a task's `thread` is less than this.
    pub fn threads(&self) -> usize {
        self.shared.seats.len()
    }

    /// Runs `steps` steps one after another, and of each `step` the tasks `0..tasks(step)`, every
    /// one of them once, as `work(step, task, thread)`, in any order on all threads at once.
    ///
    /// No two tasks run at once with the same `thread`; the caller is the last one. `tasks(step)`
    /// is asked once, when all that comes before the step is done. Nothing is allocated.
    ///
    /// # Panics
    ///
    /// With the first panic of `tasks` or `work`, as soon as every task that has begun is done;
    /// what has not begun is left out. The pool stays usable.
    pub fn run_program(
        &mut self,
        steps: usize,
        tasks: impl Fn(usize) -> usize + Sync,
        work: impl Fn(usize, usize, usize) + Sync,
    ) {
        if self.workers.is_empty() {
            let caller = self.shared.caller();
            for step in 0..steps {
                (0..tasks(step)).for_each(|task| work(step, task, caller));
            }
            return;
        }
        let (tasks, work) = (&tasks, &work);
        self.shared.run(&Program { steps, tasks, work });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Release);
        self.shared.wake(self.workers.len(), self.shared.caller());
        for worker in self.workers.drain(..) {
            worker
                .join()
                .expect("a worker catches the panics of its tasks");
        }
    }
}

/// What is to be done; it lives in the caller's frame.
struct Program<'a> {
    steps: usize,
    tasks: &'a (dyn Fn(usize) -> usize + Sync),
    work: &'a (dyn Fn(usize, usize, usize) + Sync),
}

/// A task that a thread has claimed: until it is finished, its step is not over, and the caller
/// of [`Pool::run_program`] does not return.
#[derive(Clone, Copy)]
struct Claim {
    step: usize,
    task: usize,
}

/// What all threads see.
///
/// A step is begun by the one thread that has finished the step before. It sets `step`, `tasks`
/// and `unfinished`, which nobody reads without a claim, and then releases them with each seat's
/// `unclaimed`.
#[derive(Debug)]
struct Shared {
    /// Tasks of the step that are not finished.
    unfinished: AtomicUsize,
    /// The step.
    step: AtomicUsize,
    /// Its tasks.
    tasks: AtomicUsize,
    /// The program that runs, or null.
    program: AtomicPtr<Program<'static>>,
    /// The first panic of a task of the program.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether the workers are to end.
    closing: AtomicBool,
    /// What belongs to each thread.
    seats: Box<[Seat]>,
}

impl Shared {
    fn new(threads: usize) -> Self {
        Self {
            unfinished: AtomicUsize::new(0),
            step: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
            program: AtomicPtr::new(ptr::null_mut()),
            panic: Mutex::new(None),
            closing: AtomicBool::new(false),
            seats: (0..threads).map(|_| Seat::default()).collect(),
        }
    }

    /// The caller's number.
    fn caller(&self) -> usize {
        self.seats.len() - 1
    }

    /// The life of a worker.
    fn serve(&self, thread: usize) {
        while !self.closing.load(Acquire) {
            self.work(self.claim(thread), thread);
            self.seats[thread].sleep_until(|| self.is_open() || self.closing.load(Acquire));
        }
    }

    /// Runs a program from the first to the last step.
    fn run(&self, program: &Program) {
        let erased = ptr::from_ref(program).cast_mut().cast();
        self.program.store(erased, Relaxed);
        let is_over = || self.program.load(Acquire).is_null();
        self.work(self.begin(program, 0, self.caller()), self.caller());
        while !is_over() {
            self.seats[self.caller()].sleep_until(|| self.is_open() || is_over());
            self.work(self.claim(self.caller()), self.caller());
        }
        if let Some(payload) = lock(&self.panic).take() {
            resume_unwind(payload);
        }
    }

    /// Whether a task can be claimed.
    fn is_open(&self) -> bool {
        let mut seats = self.seats.iter();
        seats.any(|seat| seat.unclaimed.load(Acquire) > 0)
    }

    /// All threads, `thread` first.
    fn from(&self, thread: usize) -> impl Iterator<Item = usize> {
        (thread..self.seats.len()).chain(0..thread)
    }

    /// Which of the step's tasks are the thread's share.
    fn share(&self, tasks: usize, thread: usize) -> Range<usize> {
        let threads = self.seats.len();
        tasks * thread / threads..tasks * (thread + 1) / threads
    }

    /// Claims a task of the step: of the thread's own share, or else of another's.
    fn claim(&self, thread: usize) -> Option<Claim> {
        let one_less = |unclaimed: usize| unclaimed.checked_sub(1);
        self.from(thread).find_map(|owner| {
            let unclaimed = &self.seats[owner].unclaimed;
            let unclaimed = unclaimed.fetch_update(Acquire, Relaxed, one_less).ok()?;
            let share = self.share(self.tasks.load(Relaxed), owner);
            Some(Claim {
                step: self.step.load(Relaxed),
                task: share.end - unclaimed,
            })
        })
    }

    /// Runs the claimed task, and others until there is none to claim.
    fn work(&self, mut claim: Option<Claim>, thread: usize) {
        while let Some(Claim { step, task }) = claim {
            // SAFETY: the program outlives every claim: its caller waits until the pointer is
            // null, and only the thread that has finished the last task sets it so, in `begin`.
            let program = unsafe { &*self.program.load(Relaxed) };
            let run = AssertUnwindSafe(|| (program.work)(step, task, thread));
            let finished = match catch_unwind(run) {
                Ok(()) => 1,
                Err(payload) => {
                    self.remember(payload);
                    let left = self.seats.iter().map(|seat| &seat.unclaimed);
                    1 + left.map(|tasks| tasks.swap(0, Acquire)).sum::<usize>()
                }
            };
            let is_last = self.unfinished.fetch_sub(finished, AcqRel) == finished;
            claim = if is_last {
                self.begin(program, step + 1, thread)
            } else {
                self.claim(thread)
            };
        }
    }

    /// Begins the first step from `step` on that has tasks, and claims one of them; without one, or
    /// after a panic, the program is over.
    fn begin(&self, program: &Program, step: usize, thread: usize) -> Option<Claim> {
        let next = AssertUnwindSafe(|| {
            let mut steps = (step..program.steps).map(|step| (step, (program.tasks)(step)));
            steps.find(|&(_, tasks)| tasks > 0)
        });
        let next = if lock(&self.panic).is_some() {
            Ok(None)
        } else {
            catch_unwind(next)
        };
        let next = next.unwrap_or_else(|payload| {
            self.remember(payload);
            None
        });
        let Some((step, tasks)) = next else {
            self.program.store(ptr::null_mut(), Release);
            if thread != self.caller() {
                self.seats[self.caller()].wake();
            }
            return None;
        };
        self.step.store(step, Relaxed);
        self.tasks.store(tasks, Relaxed);
        self.unfinished.store(tasks, Relaxed);
        let mut claim = None;
        for owner in self.from(thread) {
            let mut share = self.share(tasks, owner);
            if claim.is_none() {
                claim = share.next().map(|task| Claim { step, task });
            }
            self.seats[owner].unclaimed.store(share.len(), Release);
        }
        self.wake(tasks - 1, thread);
        claim
    }

    fn remember(&self, payload: Box<dyn Any + Send>) {
        lock(&self.panic).get_or_insert(payload);
    }

    /// Wakes at most `count` threads that sleep; `thread` is the one that calls.
    fn wake(&self, count: usize, thread: usize) {
        if count > 0 {
            let others = self
                .seats
                .iter()
                .enumerate()
                .filter(|&(other, _)| other != thread);
            others
                .filter(|(_, seat)| seat.wake())
                .take(count)
                .for_each(drop);
        }
    }
}

/// What belongs to one thread, on cache lines of its own: its tasks, and where it sleeps.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Seat {
    /// Tasks of its share that nobody has claimed.
    unclaimed: AtomicUsize,
    is_asleep: Mutex<bool>,
    bell: Condvar,
}

impl Seat {
    /// Sleeps, unless `is_ready`, until someone who has made it so calls [`Seat::wake`].
    fn sleep_until(&self, is_ready: impl Fn() -> bool) {
        let mut is_asleep = lock(&self.is_asleep);
        *is_asleep = !is_ready();
        while *is_asleep {
            is_asleep = self
                .bell
                .wait(is_asleep)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes the thread, if it sleeps; whether it did.
    fn wake(&self) -> bool {
        let was_asleep = std::mem::take(&mut *lock(&self.is_asleep));
        if was_asleep {
            self.bell.notify_one();
        }
        was_asleep
    }
}

/// Nothing that can panic is done under a lock, so that none is ever poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::atomic::Ordering::SeqCst;
    use std::thread;

    use super::*;

    /// Steps without a task, with one and with more than there are threads.
    const STEPS: [usize; 12] = [0, 1, 2, 0, 0, 7, 1, 1, 40, 3, 64, 0];

    fn counters(n: usize) -> Vec<AtomicUsize> {
        (0..n).map(|_| AtomicUsize::new(0)).collect()
    }

    /// Panics without the message that a panic hook would print.
    fn panic_quietly(what: &'static str) {
        resume_unwind(Box::new(what));
    }

    /// What a run of `steps` panics with.
    fn caught(
        pool: &mut Pool,
        steps: &[usize],
        work: impl Fn(usize, usize, usize) + Sync,
    ) -> Option<&'static str> {
        let run = AssertUnwindSafe(|| pool.run_program(steps.len(), |step| steps[step], work));
        let payload = catch_unwind(run).err()?;
        Some(
            payload
                .downcast_ref::<&str>()
                .expect("a panic of these tests"),
        )
    }

    #[test]
    fn every_task_runs_once_after_all_steps_before() {
        for threads in [0, 1, 2, 3, 8] {
            let mut pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for _ in 0..200 {
                let asked = AtomicUsize::new(0);
                let runs: Vec<_> = STEPS.iter().map(|&tasks| counters(tasks)).collect();
                let done = counters(STEPS.len());
                let busy = counters(pool.threads());
                let is_done = |step: usize| done[step].load(Relaxed) == STEPS[step];
                let tasks = |step| {
                    assert_eq!(asked.fetch_add(1, Relaxed), step);
                    assert!((0..step).all(is_done), "step {step} is asked for early");
                    STEPS[step]
                };
                pool.run_program(STEPS.len(), tasks, |step, task, thread| {
                    assert_eq!(busy[thread].swap(1, Relaxed), 0, "two tasks on {thread}");
                    assert!((0..step).all(is_done), "step {step} begins early");
                    runs[step][task].fetch_add(1, Relaxed);
                    done[step].fetch_add(1, Relaxed);
                    busy[thread].store(0, Relaxed);
                });
                assert!(runs.iter().flatten().all(|runs| runs.load(Relaxed) == 1));
                assert_eq!(asked.into_inner(), STEPS.len());
            }
        }
    }

    #[test]
    fn what_a_step_writes_the_next_one_reads() {
        let mut pool = Pool::new(4);
        for round in 0..50 {
            // Each step adds up the whole row that the step before has written.
            let rows: Vec<_> = (0..20).map(|_| counters(6)).collect();
            pool.run_program(
                rows.len(),
                |_| 6,
                |step, task, _| {
                    let sum = match step {
                        0 => round,
                        _ => rows[step - 1]
                            .iter()
                            .map(|value| value.load(Relaxed) % 1000)
                            .sum(),
                    };
                    rows[step][task].store(sum + task, Relaxed);
                },
            );
            let mut expected: Vec<usize> = (0..6).map(|task| round + task).collect();
            for row in &rows {
                let row: Vec<_> = row.iter().map(|value| value.load(Relaxed)).collect();
                assert_eq!(row, expected);
                let sum: usize = expected.iter().map(|value| value % 1000).sum();
                expected = (0..6).map(|task| sum + task).collect();
            }
        }
    }

    #[test]
    fn all_threads_work_at_once() {
        for threads in [2, 3, 5] {
            let mut pool = Pool::new(threads);
            for _ in 0..50 {
                // Nobody passes before all are there: each thread has one of the tasks.
                let (barrier, seen) = (Barrier::new(threads), Mutex::new(HashSet::new()));
                pool.run_program(
                    2,
                    |_| threads,
                    |step, _, thread| {
                        barrier.wait();
                        assert!(lock(&seen).insert((step, thread)));
                    },
                );
                assert_eq!(lock(&seen).len(), 2 * threads);
            }
        }
    }

    #[test]
    fn workers_have_names_and_the_caller_is_the_last() {
        let mut pool = Pool::new(3);
        for _ in 0..100 {
            let caller = thread::current().id();
            pool.run_program(
                3,
                |_| 9,
                |_, _, thread| {
                    let this = thread::current();
                    assert_eq!(this.id() == caller, thread == 2);
                    if thread < 2 {
                        assert_eq!(
                            this.name(),
                            Some(format!("{THREAD_NAME}-{thread}").as_str())
                        );
                    }
                },
            );
        }
    }

    #[test]
    fn the_caller_may_be_another_thread_each_time() {
        let mut pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        for _ in 0..50 {
            thread::scope(|scope| {
                scope.spawn(|| {
                    pool.run_program(
                        4,
                        |_| 5,
                        |_, _, _| {
                            sum.fetch_add(1, Relaxed);
                        },
                    );
                });
            });
        }
        assert_eq!(sum.into_inner(), 50 * 4 * 5);
    }

    #[test]
    fn tens_of_thousands_of_short_programs() {
        // More threads than cores: most of them come when there is nothing left to do.
        let mut pool = Pool::new(6);
        for round in 0..20_000 {
            let sum = AtomicUsize::new(0);
            let tasks = round % 5;
            pool.run_program(
                2,
                |_| tasks,
                |step, task, _| {
                    sum.fetch_add(10 * step + task, Relaxed);
                },
            );
            assert_eq!(
                sum.into_inner(),
                10 * tasks + tasks * tasks.saturating_sub(1)
            );
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_when_all_is_still() {
        for threads in [1, 2, 4] {
            let mut pool = Pool::new(threads);
            for round in 0..200 {
                let (running, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let panic = caught(&mut pool, &[3, 8, 5], |step, task, _| {
                    running.fetch_add(1, SeqCst);
                    last.fetch_max(step, SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, SeqCst);
                    if (step, task) == (1, round % 8) {
                        panic_quietly("a task");
                    }
                });
                assert_eq!(panic, Some("a task"));
                assert_eq!(running.into_inner(), 0, "a task outlives its program");
                assert_eq!(last.into_inner(), 1, "the step after the panic has run");
                assert_eq!(caught(&mut pool, &STEPS, |_, _, _| ()), None);
            }
        }
    }

    #[test]
    fn of_many_panics_one_reaches_the_caller() {
        let mut pool = Pool::new(4);
        for _ in 0..200 {
            let panic = caught(&mut pool, &[16, 16], |_, _, _| panic_quietly("every task"));
            assert_eq!(panic, Some("every task"));
        }
    }

    #[test]
    fn a_panic_between_two_steps_reaches_the_caller() {
        for threads in [1, 2, 4] {
            let mut pool = Pool::new(threads);
            for _ in 0..100 {
                let run = AssertUnwindSafe(|| {
                    let tasks = |step| {
                        if step == 2 {
                            panic_quietly("tasks");
                        }
                        6
                    };
                    pool.run_program(5, tasks, |step, _, _| assert!(step < 2));
                });
                let payload = catch_unwind(run).expect_err("it panics");
                assert_eq!(payload.downcast_ref(), Some(&"tasks"));
            }
            assert_eq!(caught(&mut pool, &STEPS, |_, _, _| ()), None);
        }
    }

    #[test]
    fn an_idle_pool_is_dropped() {
        for round in 0..200 {
            let mut pool = Pool::new(1 + round % 5);
            if round % 2 == 0 {
                pool.run_program(2, |_| 3, |_, _, _| ());
            }
            let shared = Arc::downgrade(&pool.shared);
            drop(pool);
            assert_eq!(shared.strong_count(), 0, "a worker is left");
        }
    }
}
