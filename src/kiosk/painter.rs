//! The painter of a frame: a model, opened at the first picture.

use std::ops::ControlFlow;

use ndarray::{ArrayView4, Axis};

use super::{Moment, OnMoment, Paint};
use crate::diffusion::sampler::Step;
use crate::display::emergence::Style;
use crate::error::Result;
use crate::model::{Library, Precision};
use crate::picture::Picture;
use crate::pipeline::{Changes, Painter};

/// What is painted with what; what is left open is the model's own.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where models are.
    pub library: Library,
    /// The model package.
    pub model: String,
    /// Which of its files.
    pub precision: Option<Precision>,
    /// Kept steps.
    pub steps: Option<usize>,
    /// The class of a model with classes; drawn from the seed by default.
    pub class: Option<String>,
    /// The weight of classifier-free guidance.
    pub guidance: Option<f64>,
    /// Threads of one evaluation.
    pub threads: usize,
}

/// Paints with a model package. One that cannot be opened is opened again at the next picture: a
/// memory stick may come late.
pub struct ModelPainter {
    order: Order,
    painter: Option<Painter>,
}

impl ModelPainter {
    /// The painter of an order; nothing is opened yet.
    pub fn new(order: Order) -> Self {
        Self {
            order,
            painter: None,
        }
    }
}

impl Paint for ModelPainter {
    fn name(&self) -> String {
        let painter = self.painter.as_ref();
        painter.map_or_else(
            || self.order.model.clone(),
            |painter| painter.manifest().name.clone(),
        )
    }

    fn paint(&mut self, seed: u64, on_step: OnMoment) -> Result<Picture> {
        let order = &self.order;
        let painter = match &mut self.painter {
            Some(painter) => painter,
            closed => {
                let package = order.library.open(&order.model)?;
                closed.insert(Painter::open(package, order.precision, order.threads)?)
            }
        };
        let changes = Changes {
            steps: order.steps,
            guidance: order.guidance,
            ..Changes::default()
        };
        let mut recipe = painter.changed(&painter.recipe(seed), &changes);
        if let Some(class) = &order.class {
            let index = painter.manifest().class_index(class)?;
            recipe.class = Some(painter.manifest().class_name(index).to_owned());
        }
        painter.paint(&recipe, None, &mut |step| seen(step, on_step))
    }
}

fn seen(step: &Step, on_step: OnMoment) -> ControlFlow<()> {
    let (done, count) = (step.index + 1, step.count);
    let look = |style: Style| {
        // A painting that is not finished is looked at as one that is not, also at its last step.
        let progress = (step.index as f64 + 0.5) / count.max(1) as f64;
        let picture = |tensor: ArrayView4<f32>| Picture::from_tensor(tensor.index_axis(Axis(0), 0));
        style
            .picture(&picture(step.x0.view()), &picture(step.x.view()), progress)
            .map(std::borrow::Cow::into_owned)
    };
    on_step(&Moment {
        done,
        count,
        look: &look,
    })
}
