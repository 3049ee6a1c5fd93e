//! Recipe → picture, on real networks.

use std::ops::ControlFlow;
use std::path::Path;

use driftglass::diffusion::sampler::{SamplerKind, Step, VarianceKind};
use driftglass::diffusion::timesteps::Spacing;
use driftglass::error::Error;
use driftglass::model::{Library, Package, Precision};
use driftglass::picture::Picture;
use driftglass::pipeline::check::{elbo, replay};
use driftglass::pipeline::recipe::{Init, Morph};
use driftglass::pipeline::{Changes, Painter, Recipe, picture_sha256};

use super::fixtures::{data, foreign_packages};
use super::golden;

fn default_painter(threads: usize) -> Painter {
    Painter::open(Library::new(None).open("scenes-32").unwrap(), None, threads).unwrap()
}

fn tiny_painter() -> Painter {
    Painter::open(Package::open(data("foreign/cosine")).unwrap(), None, 1).unwrap()
}

/// The model's own way to paint `seed` in `steps` steps.
fn recipe_of(painter: &Painter, seed: u64, steps: usize) -> Recipe {
    let changes = Changes {
        steps: Some(steps),
        ..Changes::default()
    };
    painter.changed(&painter.recipe(seed), &changes)
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

/// As this one was painted by a program that knew no table in a recipe, of a model whose own walk
/// was another one.
const OLD_RECIPE: &str = r#"{"version":"0.1.0","noise":"philox4x32-10/as241 v1","model":"scenes-32",
    "sha256":"2cd6297f94b353d6870fc7f445db3dcc36c68b4caf29e4b2b95524bd6a918bff","precision":"fp16",
    "seed":3,"steps":50,"sampler":"ddpm","spacing":"linspace","variance":"fixed-small",
    "class":"planet"}"#;

#[test]
fn an_old_recipe_is_still_the_same_picture() {
    let texts = [("driftglass".to_owned(), OLD_RECIPE.to_owned())];
    let png = Picture::filled(1, 1, [0; 3]).encode_png(&texts);
    let recipe = Recipe::from_png("old.png", &png).unwrap();
    let package = Library::new(None).open("scenes-32").unwrap();
    let mut painter = Painter::open(package, Some(Precision::Fp16), 1).unwrap();
    golden::assert_painted("scenes-32-fp16-linspace", &paint(&mut painter, &recipe));
    let again = painter.changed(&recipe, &Changes::default());
    assert_eq!(again, recipe, "what nobody asks to change stays");
}

#[test]
fn the_number_of_threads_does_not_change_a_picture() {
    let mut painter = default_painter(1);
    let recipe = recipe_of(&painter, 3, 3);
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

/// Whether neighbours in a picture differ by more than a shade: black and white do.
fn is_speckled(x0: &ndarray::Array4<f32>) -> bool {
    let columns = x0.dim().3;
    let left = x0.slice(ndarray::s![.., .., .., ..columns - 1]);
    let right = x0.slice(ndarray::s![.., .., .., 1..]);
    left.iter()
        .zip(right)
        .any(|(left, right)| (left - right).abs() > 0.5)
}

#[test]
fn the_first_step_draws_from_the_prior_of_the_package() {
    let package =
        Package::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scenes-64")).unwrap();
    let sha256 = package.manifest().prior.as_ref().unwrap().sha256.clone();
    let mut painter = Painter::open(package, None, 2).unwrap();
    let own = Recipe {
        class: Some("planet".into()),
        ..recipe_of(&painter, 3, 3)
    };
    assert_eq!(own.prior.as_ref(), Some(&sha256));
    let changes = Changes {
        no_prior: true,
        ..Changes::default()
    };
    let without = painter.changed(&own, &changes);
    assert_eq!(without.prior, None);
    let none = Recipe {
        class: Some("none".into()),
        ..own.clone()
    };
    let estimates = [&own, &none, &without].map(|recipe| first_step(&mut painter, recipe).0);
    assert_eq!(estimates.each_ref().map(is_speckled), [false, false, true]);
    assert_ne!(estimates[0], estimates[1]);
    // A planet is before the night.
    assert!(estimates[0].mean().unwrap() < -0.2);

    let other = Recipe {
        prior: Some("00".repeat(32)),
        ..own.clone()
    };
    let error = painter.check(&other).unwrap_err().to_string();
    let expected = format!("recipe: prior: expected the package's, {sha256}, found 00");
    assert!(error.starts_with(&expected), "{error}");
    let texts = own.to_texts();
    assert!(texts[1].1.contains(&format!("\"prior\":\"{sha256}\"")));
    assert!(!without.to_texts()[1].1.contains("prior"));

    let picture = Picture::filled(64, 64, [90, 60, 200]);
    let from = |recipe: &Recipe| Recipe {
        init: Some(Init {
            sha256: picture_sha256(&picture),
            strength: 0.7,
        }),
        ..recipe.clone()
    };
    let [drawn, asked] = [from(&own), from(&without)].map(|recipe| {
        painter
            .paint(&recipe, Some(&picture), &mut |_| ControlFlow::Continue(()))
            .unwrap()
    });
    assert_eq!(drawn, asked, "a picture is there to be seen");
    let mut buried = from(&own);
    buried.steps = 1000;
    buried.init.as_mut().unwrap().strength = 0.999;
    let mut first = None;
    let stopped = painter.paint(&buried, Some(&picture), &mut |step| {
        first = Some((step.index, is_speckled(&step.x0.to_owned())));
        ControlFlow::Break(())
    });
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert_eq!(first, Some((1, false)), "nothing is left of the picture");

    let at = |position, seed| Recipe {
        seed: 3,
        morph: Some(Morph { seed, position }),
        ..own.clone()
    };
    let two = Recipe {
        seed: 5,
        ..own.clone()
    };
    let pictures =
        [at(0.0, 5), own.clone(), at(1.0, 5), two].map(|recipe| paint(&mut painter, &recipe));
    let [start, one, end, two] = pictures;
    assert!(start.psnr_db(&one) > 50.0 && end.psnr_db(&two) > 50.0);
}

#[test]
fn the_null_class_can_be_painted_and_a_step_that_shows_noise_cannot() {
    let mut painter = default_painter(2);
    let null = painter.manifest().class_index("none").unwrap();
    assert_eq!(painter.manifest().class_name(null), "none");
    let mut recipe = Recipe {
        class: Some("none".into()),
        ..recipe_of(&painter, 1, 2)
    };
    paint(&mut painter, &recipe);
    (recipe.steps, recipe.spacing) = (1, Spacing::Linspace);
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
    let scene = recipe_of(&painter, 8, 10);
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
fn the_analytic_variance_is_taken_where_it_was_measured() {
    let painter = default_painter(1);
    let tables = painter.manifest().analytic_variance.clone();
    let analytic = Changes {
        variance: Some(VarianceKind::Analytic),
        spacing: Some(Spacing::Linspace),
        ..Changes::default()
    };
    let own = painter.changed(&painter.recipe(1), &analytic);
    assert_eq!((own.steps, own.variance), (25, VarianceKind::Analytic));
    assert_eq!(own.variance_table.as_ref(), Some(&tables["25"]));
    let changed = |from: &Recipe, changes: &Changes| {
        let recipe = painter.changed(from, changes);
        (recipe.variance, recipe.variance_table.clone(), recipe)
    };
    let steps = |steps| Changes {
        steps: Some(steps),
        ..Changes::default()
    };
    let table = |steps: &str| Some(tables[steps].clone());

    let (variance, found, quick) = changed(&own, &steps(10));
    assert_eq!((variance, found), (VarianceKind::Analytic, table("10")));
    let (variance, found, odd) = changed(&own, &steps(24));
    assert_eq!((variance, found), (VarianceKind::FixedSmall, None));
    assert!(painter.walk(&quick).is_ok() && painter.walk(&odd).is_ok());
    let trailing = Changes {
        spacing: Some(Spacing::Trailing),
        ..Changes::default()
    };
    let (variance, found, _) = changed(&own, &trailing);
    assert_eq!((variance, found), (VarianceKind::FixedSmall, None));

    // Whoever asks for it by name is told where there is none.
    let asked = Changes {
        variance: Some(VarianceKind::Analytic),
        ..steps(24)
    };
    let (variance, found, missing) = changed(&own, &asked);
    assert_eq!((variance, found), (VarianceKind::Analytic, None));
    let error = painter.walk(&missing).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "variance: expected linspace with a table's steps (10, 20, 25, 50, 100), \
             found linspace with 24"
        ),
        "{error}"
    );

    // Samplers that inject no noise need none; the way back finds it again.
    let sampler = |sampler| Changes {
        sampler: Some(sampler),
        ..Changes::default()
    };
    let (_, found, quiet) = changed(&own, &sampler(SamplerKind::Ddim));
    assert_eq!(found, None);
    let (_, found, back) = changed(&quiet, &sampler(SamplerKind::Ddpm));
    assert_eq!((found, back), (table("25"), own));
}

/// A package's table may be measured anew; what a picture was painted with is in its recipe.
#[test]
fn a_recipe_s_own_table_goes_before_the_package_s() {
    let mut painter = tiny_painter();
    let table = |variance: f64| Recipe {
        steps: 3,
        variance: VarianceKind::Analytic,
        variance_table: Some(vec![variance, variance, 0.0]),
        ..painter.recipe(1)
    };
    let (small, large, short) = (table(0.01), table(0.5), table(0.5));
    assert_ne!(paint(&mut painter, &small), paint(&mut painter, &large));
    let kept = painter.changed(&large, &Changes::default());
    assert_eq!(kept, large);
    let short = Recipe { steps: 4, ..short };
    let error = painter.walk(&short).unwrap_err().to_string();
    assert_eq!(
        error,
        "variance table: expected 4 values, one per step, found 3"
    );
}

/// What the first step of `recipe` takes for the picture, and the answer that it comes from.
fn first_step(
    painter: &mut Painter,
    recipe: &Recipe,
) -> (ndarray::Array4<f32>, ndarray::Array4<f32>) {
    let mut found = None;
    let result = painter.paint(recipe, None, &mut |step| {
        found = Some((step.x0.to_owned(), step.output.to_owned()));
        ControlFlow::Break(())
    });
    assert!(matches!(result, Err(Error::Stopped)));
    found.unwrap()
}

#[test]
fn guidance_goes_on_from_no_class_through_the_class() {
    let mut painter = default_painter(1);
    let planet = Recipe {
        class: Some("planet".into()),
        ..recipe_of(&painter, 6, 10)
    };
    let guided = |guidance| Recipe {
        guidance,
        ..planet.clone()
    };
    let no_class = Recipe {
        class: Some("none".into()),
        ..planet.clone()
    };
    let class = first_step(&mut painter, &planet).1;
    let null = first_step(&mut painter, &no_class).1;
    for weight in [0.0, 0.5, 3.0] {
        let found = first_step(&mut painter, &guided(weight)).1;
        let expected = &null + (&class - &null) * weight as f32;
        let off = (&found - &expected).mapv(f32::abs);
        let off = off.iter().copied().fold(0.0, f32::max);
        assert!(off < 1e-5, "{weight}: {off}");
    }
    // Whoever asks for no class has nothing to be guided to; 1 is no guidance, and says nothing.
    let unguided = Recipe {
        guidance: 3.0,
        ..no_class.clone()
    };
    assert_eq!(
        paint(&mut painter, &unguided),
        paint(&mut painter, &no_class)
    );
    assert!(!planet.to_texts()[1].1.contains("guidance"));
    assert_ne!(
        paint(&mut painter, &guided(3.0)),
        paint(&mut painter, &planet)
    );
    let told = guided(3.0).to_texts();
    let png = Picture::filled(1, 1, [0; 3]).encode_png(&told);
    assert_eq!(Recipe::from_png("p.png", &png).unwrap(), guided(3.0));
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
            guidance: 2.0,
            ..recipe.clone()
        },
        Recipe {
            guidance: -1.0,
            ..recipe.clone()
        },
        Recipe {
            prior: Some("00".repeat(32)),
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
    let recipe = recipe_of(&painter, 8, 10);
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
