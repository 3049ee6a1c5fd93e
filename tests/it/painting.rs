//! Recipe → picture, on real networks.

use std::ops::ControlFlow;

use driftglass::diffusion::sampler::{SamplerKind, Step, VarianceKind};
use driftglass::diffusion::timesteps::Spacing;
use driftglass::error::Error;
use driftglass::model::{Library, Package, Precision};
use driftglass::picture::Picture;
use driftglass::pipeline::check::{elbo, replay};
use driftglass::pipeline::recipe::{Init, Morph};
use driftglass::pipeline::{Painter, Recipe, picture_sha256};

use super::fixtures::{data, foreign_packages};
use super::golden;

fn default_painter(threads: usize) -> Painter {
    Painter::open(Library::new(None).open("scenes-32").unwrap(), None, threads).unwrap()
}

fn tiny_painter() -> Painter {
    Painter::open(Package::open(data("foreign/cosine")).unwrap(), None, 1).unwrap()
}

fn paint(painter: &mut Painter, recipe: &Recipe) -> Picture {
    painter
        .paint(recipe, None, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

/// The bar of the project: a foreign network's 50 steps end where diffusers' own pipeline ends.
#[test]
fn foreign_trajectories_end_where_diffusers_ends() {
    for folder in foreign_packages() {
        let package = Package::open(&folder).unwrap();
        let replay = replay(&package, Precision::Fp32, 2).unwrap();
        let place = folder.display();
        assert!(
            replay.final_max_error < 1e-3,
            "{place}: {}",
            replay.final_max_error
        );
        assert!(replay.max_error < 1e-3, "{place}: {}", replay.max_error);
        assert!(replay.passed(), "{place}");
    }
}

#[test]
fn every_shipped_precision_paints_what_the_trainer_saw() {
    let library = Library::new(None);
    for name in library.names().unwrap() {
        let package = library.open(&name).unwrap();
        for &precision in package.manifest().files.keys() {
            let replay = replay(&package, precision, 2).unwrap();
            assert!(replay.passed(), "{name} {precision}: {replay:?}");
        }
    }
}

/// Not in int8: there a value on the edge between two levels falls to either side of it, as the last
/// bit of a sum has it, and a walk carries that on.
#[test]
fn the_same_seed_is_the_same_picture_on_every_processor() {
    let package = Library::new(None).open("scenes-32").unwrap();
    let mut painter = Painter::open(package, Some(Precision::Fp16), 1).unwrap();
    let recipe = painter.recipe(3);
    let found = paint(&mut painter, &recipe);
    golden::assert_painted("scenes-32-fp16", &found);
}

#[test]
fn the_number_of_threads_does_not_change_a_picture() {
    let mut painter = default_painter(1);
    let mut recipe = painter.recipe(3);
    recipe.steps = 3;
    let expected = paint(&mut painter, &recipe);
    for threads in [2, 3, 5] {
        assert_eq!(
            paint(&mut default_painter(threads), &recipe),
            expected,
            "{threads} threads"
        );
    }
}

#[test]
fn one_recipe_is_one_picture_and_another_seed_another() {
    let mut painter = tiny_painter();
    let recipe = painter.recipe(5);
    let first = paint(&mut painter, &recipe).encode_png(&recipe.to_texts());
    let again = paint(&mut painter, &recipe).encode_png(&recipe.to_texts());
    assert_eq!(first, again);
    let other = painter.recipe(6);
    assert_ne!(paint(&mut painter, &recipe), paint(&mut painter, &other));
}

#[test]
fn a_recipe_travels_in_its_picture() {
    let mut painter = tiny_painter();
    let mut recipe = painter.recipe(u64::MAX);
    recipe.sampler = SamplerKind::Ddim;
    recipe.spacing = Spacing::Sections(vec![3, 4]);
    recipe.steps = 7;
    recipe.morph = Some(Morph {
        seed: 9,
        position: 0.25,
    });
    let picture = paint(&mut painter, &recipe);
    let found = Recipe::from_png("p.png", &picture.encode_png(&recipe.to_texts())).unwrap();
    assert_eq!(found, recipe);
    assert_eq!(paint(&mut painter, &found), picture);
    let error = Recipe::from_png("p.png", &picture.encode_png(&[]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("with its recipe"), "{error}");
}

#[test]
fn every_sampler_spacing_and_step_count_paints() {
    let mut painter = tiny_painter();
    for sampler in [SamplerKind::Ddpm, SamplerKind::Ddim, SamplerKind::Dpmpp2m] {
        for spacing in [
            Spacing::Linspace,
            Spacing::Leading { offset: 0 },
            Spacing::Trailing,
        ] {
            for steps in [2, 3, 7] {
                let recipe = Recipe {
                    sampler,
                    spacing: spacing.clone(),
                    steps,
                    variance: VarianceKind::FixedLarge,
                    ..painter.recipe(1)
                };
                paint(&mut painter, &recipe);
            }
        }
    }
}

#[test]
fn a_morph_begins_and_ends_at_its_seeds() {
    let mut painter = tiny_painter();
    for sampler in [SamplerKind::Ddpm, SamplerKind::Ddim] {
        let seeded = |seed, morph| Recipe {
            sampler,
            steps: 10,
            morph,
            ..painter.recipe(seed)
        };
        let at = |position| seeded(1, Some(Morph { seed: 2, position }));
        let recipes = [at(0.0), seeded(1, None), at(1.0), seeded(2, None), at(0.5)];
        let pictures = recipes.map(|recipe| paint(&mut painter, &recipe));
        let [start, one, end, two, middle] = pictures;
        assert!(
            start.psnr_db(&one) > 50.0,
            "{sampler}: {}",
            start.psnr_db(&one)
        );
        assert!(end.psnr_db(&two) > 50.0, "{sampler}: {}", end.psnr_db(&two));
        assert!(middle != one && middle != two, "{sampler}");
    }
}

#[test]
fn the_null_class_can_be_painted_and_a_step_that_shows_noise_cannot() {
    let mut painter = default_painter(2);
    let null = painter.manifest().class_index("none").unwrap();
    assert_eq!(painter.manifest().class_name(null), "none");
    let mut recipe = Recipe {
        steps: 2,
        class: Some("none".into()),
        ..painter.recipe(1)
    };
    paint(&mut painter, &recipe);
    recipe.steps = 1;
    let result = painter.paint(&recipe, None, &mut |_| ControlFlow::Continue(()));
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("expected a first step that is mostly noise"),
        "{error}"
    );
    recipe.spacing = Spacing::Trailing;
    paint(&mut painter, &recipe);
}

#[test]
fn a_picture_to_start_from_shows_through_as_far_as_strength_lets_it() {
    let mut painter = default_painter(2);
    let scene = Recipe {
        steps: 10,
        ..painter.recipe(8)
    };
    let picture = paint(&mut painter, &scene);
    let from = |strength| Recipe {
        init: Some(Init {
            sha256: picture_sha256(&picture),
            strength,
        }),
        ..Recipe {
            seed: 11,
            ..scene.clone()
        }
    };
    let [faint, strong] = [0.2, 0.9].map(|strength| {
        let mut walked = 0;
        let mut count = |_: &Step| {
            walked += 1;
            ControlFlow::Continue(())
        };
        let painted = painter
            .paint(&from(strength), Some(&picture), &mut count)
            .unwrap();
        (painted.psnr_db(&picture), walked)
    });
    assert_eq!((faint.1, strong.1), (2, 9));
    assert!(faint.0 > strong.0 + 3.0, "{faint:?} {strong:?}");
    let grey = Picture::filled(32, 32, [128; 3]);
    let error = painter.paint(&from(0.5), Some(&grey), &mut |_| ControlFlow::Continue(()));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("recipe: init: expected the picture")
    );
    let error = painter.paint(&from(1.5), Some(&picture), &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("strength: expected above 0, at most 1")
    );
}

#[test]
fn a_recipe_for_another_model_is_refused() {
    let mut painter = tiny_painter();
    let recipe = painter.recipe(1);
    let unlike = [
        Recipe {
            model: "other".into(),
            ..recipe.clone()
        },
        Recipe {
            sha256: "00".repeat(32),
            ..recipe.clone()
        },
        Recipe {
            noise: "mersenne v3".into(),
            ..recipe.clone()
        },
        Recipe {
            class: Some("cats".into()),
            ..recipe.clone()
        },
        Recipe {
            steps: 0,
            ..recipe.clone()
        },
        Recipe {
            steps: 1001,
            ..recipe.clone()
        },
        Recipe {
            variance: VarianceKind::LearnedRange,
            ..recipe.clone()
        },
        Recipe {
            variance: VarianceKind::Analytic,
            ..recipe.clone()
        },
        Recipe {
            morph: Some(Morph {
                seed: 2,
                position: f64::NAN,
            }),
            ..recipe.clone()
        },
    ];
    for recipe in unlike {
        let result = painter.paint(&recipe, None, &mut |_| ControlFlow::Continue(()));
        assert!(
            matches!(result, Err(Error::Unexpected { .. })),
            "{recipe:?}: {result:?}"
        );
    }
}

#[test]
fn the_callback_can_stop_a_walk() {
    let mut painter = tiny_painter();
    let recipe = painter.recipe(1);
    let mut steps = 0;
    let result = painter.paint(&recipe, None, &mut |step| {
        steps += 1;
        if step.index == 4 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(result, Err(Error::Stopped)));
    assert_eq!(steps, 5);
}

/// The bound must find a painted scene far likelier than the noise it came from.
#[test]
fn the_bound_tells_a_picture_from_noise() {
    let library = Library::new(None);
    let package = library.open("scenes-32").unwrap();
    let mut painter = default_painter(2);
    let recipe = Recipe {
        steps: 10,
        ..painter.recipe(8)
    };
    let scene = paint(&mut painter, &recipe);
    let noise = driftglass::diffusion::noise::start(1, (1, 3, 32, 32));
    let noise = Picture::from_tensor(noise.index_axis(ndarray::Axis(0), 0));
    let precision = package.manifest().defaults.precision;
    let bits = |picture| elbo(&package, precision, 2, picture, None, Some(20)).unwrap();
    let (scene, noise) = (bits(&scene), bits(&noise));
    assert!(
        scene.prior < 1e-3 && noise.prior < 1e-3,
        "{scene:?} {noise:?}"
    );
    assert!(scene.total + 1.0 < noise.total, "{scene:?} {noise:?}");
}
