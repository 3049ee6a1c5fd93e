//! Shortening: which of the T training steps a walk keeps, and what they imply.
//!
//! The network is always told the original t. The betas of the kept steps follow from the
//! products at the steps themselves, so that the previous step of each is right for every
//! spacing; taking t - T/n instead is the mistake of huggingface/diffusers#9261, #11347 and
//! #12633.

use std::cmp::Ordering;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use super::Timestep;
use super::schedule::Schedule;
use crate::error::{Error, Result};

/// How the kept steps are spread over the training steps.
///
/// As text: `linspace`, `leading`, `leading+1`, `trailing`, `ddim`, `sections`,
/// `sections:10,10,30`, `explicit:999,500,0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spacing {
    /// From T - 1 to 0 at equal distances, rounded half to even; `linspace` in diffusers.
    ///
    /// A single step is t = 0, as there, which returns the noise it is given; `trailing` with a
    /// single step is T - 1.
    Linspace,
    /// Multiples of T / n (rounded down) from 0, plus `offset`; `leading` in diffusers.
    ///
    /// It does not reach T - 1: with few steps on a cosine schedule the walk starts from more
    /// noise than the network was trained to meet there.
    Leading {
        /// Added to every step; `steps_offset` in diffusers.
        offset: usize,
    },
    /// From T - 1 down at distances T / n, rounded; `trailing` in diffusers.
    Trailing,
    /// The smallest stride from 0 that gives n steps; `space_timesteps("ddimN")` in
    /// openai/improved-diffusion. Not every n has one.
    Ddim,
    /// The training steps cut into equal sections, each with its own number of kept steps, first
    /// section first; `space_timesteps` in openai/improved-diffusion. Without any numbers: one
    /// section, with all steps.
    Sections(Vec<usize>),
    /// These steps, in falling order.
    Explicit(Vec<usize>),
}

/// One kept step: the reverse update goes from x_t to the picture of the next kept step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeptStep {
    /// The original training step, which is what the network is told.
    pub t: Timestep,
    /// The product of alphas at `t`, in (0, 1).
    pub alpha_cumprod: f64,
    /// The product at the kept step below, in (0, 1); exactly 1 at the last step, whose
    /// destination is the clean picture.
    pub alpha_cumprod_prev: f64,
}

/// q(x_prev | x_t, x_0), eq. 6 and 7 of Ho et al. 2020, between two kept steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Posterior {
    /// The mean's coefficient of x_0.
    pub x0: f64,
    /// The mean's coefficient of x_t.
    pub x: f64,
    /// The variance, beta tilde; zero at the last step.
    pub variance: f64,
}

impl KeptStep {
    /// The beta that the jump from the kept step below implies, in 0..=1 (1 where no f64 lies between);
    /// never clipped again.
    pub fn beta(&self) -> f64 {
        (1.0 - self.alpha_cumprod / self.alpha_cumprod_prev).max(0.0)
    }

    /// Where x_prev lies for a known x_t and x_0.
    pub fn posterior(&self) -> Posterior {
        let (alpha_bar, alpha_bar_prev) = (self.alpha_cumprod, self.alpha_cumprod_prev);
        Posterior {
            x0: self.beta() * alpha_bar_prev.sqrt() / (1.0 - alpha_bar),
            x: (1.0 - alpha_bar_prev) * (alpha_bar / alpha_bar_prev).sqrt() / (1.0 - alpha_bar),
            variance: self.beta() * (1.0 - alpha_bar_prev) / (1.0 - alpha_bar),
        }
    }
}

/// The kept steps in the order of sampling: t falls.
#[derive(Debug, Clone, PartialEq)]
pub struct Timesteps(Vec<KeptStep>);

impl Timesteps {
    /// Keeps `steps` of the schedule's training steps.
    ///
    /// # Errors
    ///
    /// When `steps` is not in 1..=T, or when this spacing cannot keep exactly that many.
    ///
    /// # Example
    ///
    /// ```
    /// use driftglass::diffusion::{schedule::Schedule, timesteps::{Spacing, Timesteps}};
    ///
    /// let kept = Timesteps::new(&Schedule::cosine(1000)?, &Spacing::Linspace, 4)?;
    /// let t: Vec<usize> = kept.as_slice().iter().map(|kept| kept.t.0).collect();
    /// assert_eq!(t, [999, 666, 333, 0]);
    /// # Ok::<(), driftglass::error::Error>(())
    /// ```
    pub fn new(schedule: &Schedule, spacing: &Spacing, steps: usize) -> Result<Self> {
        let kept = spacing.keep(schedule.train_timesteps(), steps)?;
        let alphas_cumprod = schedule.alphas_cumprod();
        let next = kept.iter().skip(1).map(|&t| alphas_cumprod[t]).chain([1.0]);
        let step = |(&t, alpha_cumprod_prev)| KeptStep {
            t: Timestep(t),
            alpha_cumprod: alphas_cumprod[t],
            alpha_cumprod_prev,
        };
        Ok(Self(kept.iter().zip(next).map(step).collect()))
    }

    /// The kept steps, first of sampling first; at least one.
    pub fn as_slice(&self) -> &[KeptStep] {
        &self.0
    }

    /// The posterior variance of kept step `index`, with the last step's zero replaced by the
    /// variance of the step before it, as in openai/improved-diffusion: its logarithm is finite.
    /// A walk of one step has none before it; its beta is taken.
    ///
    /// # Panics
    ///
    /// When `index` is not below the number of kept steps.
    pub fn posterior_variance_clipped(&self, index: usize) -> f64 {
        let kept = &self.0;
        assert!(index < kept.len(), "kept step {index} of {}", kept.len());
        match index {
            0 if kept.len() == 1 => kept[0].beta(),
            index => kept[index.min(kept.len() - 2)].posterior().variance,
        }
    }
}

impl Spacing {
    /// The number of steps, where the spacing itself fixes it.
    pub fn steps(&self) -> Option<usize> {
        match self {
            Self::Linspace | Self::Leading { .. } | Self::Trailing | Self::Ddim => None,
            Self::Sections(counts) if counts.is_empty() => None,
            Self::Sections(counts) => Some(counts.iter().fold(0, |sum, &n| sum.saturating_add(n))),
            Self::Explicit(kept) => Some(kept.len()),
        }
    }

    /// The kept steps in falling order: `steps` of them, each below `train`.
    fn keep(&self, train: usize, steps: usize) -> Result<Vec<usize>> {
        let fixed = self.steps().unwrap_or(steps);
        if steps != fixed {
            return Err(Error::unexpected(self, format!("{fixed} steps"), steps));
        }
        if !(1..=train).contains(&steps) {
            return Err(Error::unexpected(
                self,
                format!("1 to {train} steps"),
                steps,
            ));
        }
        let rising = match self {
            Self::Linspace => linspace(train, steps),
            Self::Leading { offset } => self.leading(train, steps, *offset)?,
            Self::Trailing => trailing(train, steps),
            Self::Ddim => self.ddim(train, steps)?,
            Self::Sections(counts) if counts.is_empty() => self.sections(train, &[steps])?,
            Self::Sections(counts) => self.sections(train, counts)?,
            Self::Explicit(kept) => return self.explicit(train, kept),
        };
        Ok(rising.into_iter().rev().collect())
    }

    fn leading(&self, train: usize, steps: usize, offset: usize) -> Result<Vec<usize>> {
        let stride = train / steps;
        let room = train - 1 - (steps - 1) * stride;
        if offset > room {
            let expected = format!("an offset of at most {room} for {steps} of {train} steps");
            return Err(Error::unexpected(self, expected, offset));
        }
        Ok((0..steps).map(|i| i * stride + offset).collect())
    }

    fn ddim(&self, train: usize, steps: usize) -> Result<Vec<usize>> {
        match (1..train).find(|&stride| train.div_ceil(stride) == steps) {
            Some(stride) => Ok((0..train).step_by(stride).collect()),
            None => {
                let expected = format!("a number of steps that an integer stride in {train} gives");
                Err(Error::unexpected(self, expected, steps))
            }
        }
    }

    fn sections(&self, train: usize, counts: &[usize]) -> Result<Vec<usize>> {
        let mut kept = Vec::new();
        let mut start = 0;
        for (section, &count) in counts.iter().enumerate() {
            let size = train / counts.len() + usize::from(section < train % counts.len());
            if count > size {
                let expected = format!("at most {size} steps in section {section}");
                return Err(Error::unexpected(self, expected, count));
            }
            // The stride is summed, not multiplied, because the original sums it.
            let stride = size.saturating_sub(1) as f64 / (count.max(2) - 1) as f64;
            let mut offset: f64 = 0.0;
            for _ in 0..count {
                kept.push(start + offset.round_ties_even() as usize);
                offset += stride;
            }
            start += size;
        }
        Ok(kept)
    }

    fn explicit(&self, train: usize, kept: &[usize]) -> Result<Vec<usize>> {
        let falls = kept.is_sorted_by(|above, below| above > below);
        if !falls || kept[0] >= train {
            let expected = format!("steps below {train} in falling order");
            return Err(Error::unexpected("the kept steps", expected, self));
        }
        Ok(kept.to_vec())
    }
}

/// Table 2 of Lin et al. 2024 (arXiv 2305.08891), in whole numbers; so is the next.
fn linspace(train: usize, steps: usize) -> Vec<usize> {
    let gaps = steps.max(2) - 1;
    (0..steps)
        .map(|k| divide_ties_even((train - 1) * k, gaps))
        .collect()
}

/// The same from the upper end, at distances T / n. (numpy's `arange`, which diffusers uses,
/// drifts: 48 steps of 1000 lose a tie, and 61 become 62, the last one at t = -1.)
fn trailing(train: usize, steps: usize) -> Vec<usize> {
    (1..=steps)
        .map(|k| divide_ties_even(train * k, steps) - 1)
        .collect()
}

/// A quotient, rounded to the nearest whole number and from the middle to the even one.
fn divide_ties_even(dividend: usize, divisor: usize) -> usize {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    match (2 * rest).cmp(&divisor) {
        Ordering::Less => quotient,
        Ordering::Equal => quotient + quotient % 2,
        Ordering::Greater => quotient + 1,
    }
}

impl Display for Spacing {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Linspace => f.write_str("linspace"),
            Self::Leading { offset: 0 } => f.write_str("leading"),
            Self::Leading { offset } => write!(f, "leading+{offset}"),
            Self::Trailing => f.write_str("trailing"),
            Self::Ddim => f.write_str("ddim"),
            Self::Sections(counts) if counts.is_empty() => f.write_str("sections"),
            Self::Sections(counts) => write!(f, "sections:{}", join(counts)),
            Self::Explicit(kept) => write!(f, "explicit:{}", join(kept)),
        }
    }
}

impl FromStr for Spacing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text {
            "linspace" => Some(Self::Linspace),
            "leading" => Some(Self::Leading { offset: 0 }),
            "trailing" => Some(Self::Trailing),
            "ddim" => Some(Self::Ddim),
            "sections" => Some(Self::Sections(Vec::new())),
            _ => with_numbers(text),
        };
        parsed.ok_or_else(|| {
            let expected = "linspace, leading, leading+1, trailing, ddim, sections, \
                            sections:10,10,30 or explicit:999,500,0";
            Error::unexpected("spacing", expected, format!("{text:?}"))
        })
    }
}

serde_as_text!(Spacing);

/// The spellings that carry numbers; `None` for anything else.
fn with_numbers(text: &str) -> Option<Spacing> {
    // Rust reads "+1" as a number, and then "leading++1" would be one.
    let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('+'));
    let numbers = |list: &str| list.split(',').map(number).collect::<Option<_>>();
    if let Some(offset) = text.strip_prefix("leading+") {
        Some(Spacing::Leading {
            offset: number(offset)?,
        })
    } else if let Some(counts) = text.strip_prefix("sections:") {
        numbers(counts).map(Spacing::Sections)
    } else {
        numbers(text.strip_prefix("explicit:")?).map(Spacing::Explicit)
    }
}

fn join(numbers: &[usize]) -> String {
    let texts: Vec<String> = numbers.iter().map(usize::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(spacing: &str, train: usize, steps: usize) -> Result<Vec<usize>> {
        let kept = Timesteps::new(&Schedule::cosine(train)?, &spacing.parse()?, steps)?;
        Ok(kept.0.iter().map(|kept| kept.t.0).collect())
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let refused = [
            ("leading+1", 10, 10),
            ("ddim", 1000, 600),
            ("ddim", 10, 1),
            ("sections:6,5", 10, 11),
            ("sections:3,3", 10, 5),
            ("explicit:9,9,0", 10, 3),
            ("explicit:0,9", 10, 2),
            ("explicit:10,0", 10, 2),
        ];
        for (spacing, train, steps) in refused {
            assert!(
                kept(spacing, train, steps).is_err(),
                "{spacing} {steps} of {train}"
            );
        }
        for text in [
            "",
            "Linspace",
            "leading+",
            "leading++1",
            "sections:",
            "explicit:1,,0",
        ] {
            assert!(text.parse::<Spacing>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_section_with_one_step_keeps_its_first() -> Result<()> {
        assert_eq!(kept("sections:1,2,0", 9, 3)?, [5, 3, 0]);
        assert_eq!(kept("sections:1,1,1,0,0", 3, 3)?, [2, 1, 0]);
        Ok(())
    }

    #[test]
    fn ties_go_to_the_even_number() {
        let quotients = [(5, 2), (7, 2), (6, 4), (5, 4), (7, 4), (8, 4)];
        let rounded = quotients.map(|(dividend, divisor)| divide_ties_even(dividend, divisor));
        assert_eq!(rounded, [2, 4, 2, 1, 2, 2]);
    }

    #[test]
    fn the_last_posterior_variance_is_that_of_the_step_before() -> Result<()> {
        let timesteps = Timesteps::new(&Schedule::cosine(1000)?, &Spacing::Linspace, 10)?;
        assert_eq!(
            timesteps.0[9].posterior(),
            Posterior {
                x0: 1.0,
                x: 0.0,
                variance: 0.0
            }
        );
        // Analytic-DPM's table 7 prints this one, the smallest: 4.12e-5 for ten steps.
        let smallest = timesteps.posterior_variance_clipped(9);
        assert!((smallest - 4.1236e-5).abs() < 1e-9, "{smallest}");
        assert_eq!(smallest, timesteps.posterior_variance_clipped(8));
        let single = Timesteps::new(&Schedule::cosine(1000)?, &Spacing::Trailing, 1)?;
        assert_eq!(single.posterior_variance_clipped(0), single.0[0].beta());
        Ok(())
    }
}
