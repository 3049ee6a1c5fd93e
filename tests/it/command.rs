//! The program as a user meets it: arguments in, files and sentences out.

use std::fs;
use std::path::Path;
use std::process::Output;

use driftglass::npz::{Archive, Array, Compression};
use driftglass::pipeline::Recipe;
use serde_json::Value;

use super::fixtures::{Copy, Graph, data, picture, program};

/// Runs the program in `folder` with these arguments.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    program()
        .args(arguments)
        .current_dir(folder)
        .env_remove("DRIFTGLASS_MODELS")
        .output()
        .unwrap()
}

/// Runs the program, which must succeed, and returns what it printed.
pub fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program, which must fail with this code, and returns its one sentence.
pub fn fail(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(folder, arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn without_a_command_it_paints_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let first = succeed(folder.path(), &["--steps", "3"]);
    assert_eq!(first, "pictures/scenes-32-5.png\n");
    let painted = folder.path().join("pictures/scenes-32-5.png");
    let bytes = fs::read(&painted).unwrap();
    assert_eq!(picture(&painted).width_px(), 256);
    fs::remove_file(&painted).unwrap();
    succeed(
        folder.path(),
        &["sample", "--steps", "3", "--threads", "1", "--quiet"],
    );
    assert_eq!(
        fs::read(&painted).unwrap(),
        bytes,
        "the second picture of a seed is the same file"
    );

    let like = painted.to_str().unwrap();
    succeed(folder.path(), &["--like", like, "--out", "again.png"]);
    assert_eq!(fs::read(folder.path().join("again.png")).unwrap(), bytes);
    succeed(
        folder.path(),
        &["--like", like, "--seed", "4", "--out", "other.png"],
    );
    assert_ne!(fs::read(folder.path().join("other.png")).unwrap(), bytes);
}

#[test]
fn options_reach_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "sample",
        "--seed",
        "9",
        "--steps",
        "4",
        "--sampler",
        "dpmpp-2m",
        "--spacing",
        "trailing",
        "--class",
        "planet",
        "--precision",
        "int8",
        "--count",
        "2",
        "--scale",
        "1",
        "--apng",
        "--preview",
        "xt",
        "--out",
        "here",
    ];
    let said = succeed(folder.path(), &arguments);
    let expected = [
        "scenes-32-9.png",
        "scenes-32-9.apng",
        "scenes-32-10.png",
        "scenes-32-10.apng",
    ];
    let expected: Vec<String> = expected.iter().map(|name| format!("here/{name}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    for name in &expected {
        let picture = picture(&folder.path().join(name));
        assert_eq!(
            (picture.width_px(), picture.height_px()),
            (32, 32),
            "{name}"
        );
    }
    let still = folder.path().join(&expected[0]);
    assert_eq!(picture(&still), picture(&folder.path().join(&expected[1])));
}

#[test]
fn a_picture_can_be_started_from_and_walked_between() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = data("foreign/cosine");
    let model = tiny.to_str().unwrap();
    succeed(folder.path(), &["--steps", "2", "--out", "start.png"]);
    let init = [
        "--model",
        model,
        "--init",
        "start.png",
        "--strength",
        "0.3",
        "--out",
        "from.png",
    ];
    succeed(folder.path(), &init);
    let like = [
        "--like",
        "from.png",
        "--model",
        model,
        "--init",
        "start.png",
        "--out",
        "again.png",
    ];
    succeed(folder.path(), &like);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("from.png"), read("again.png"));
    let error = fail(folder.path(), &["--like", "from.png", "--model", model], 1);
    assert!(
        error.contains("recipe: init: expected the picture it starts from"),
        "{error}"
    );

    let morph = [
        "--model", model, "--morph", "1", "2", "--frames", "3", "--quiet",
    ];
    let said = succeed(folder.path(), &morph);
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(said.ends_with("pictures/morph.apng\n"), "{said}");
}

#[test]
fn mistakes_are_one_sentence_and_an_exit_code() {
    struct Case(&'static [&'static str], i32, &'static str);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text.png"), "no picture").unwrap();
    let cases = [
        Case(
            &["--model", "no-such"],
            1,
            "driftglass: model: expected one of",
        ),
        Case(&["--model", "./no-such"], 1, "./no-such/model.toml: cannot"),
        Case(
            &["--class", "dragons"],
            1,
            "class: expected one of mountains",
        ),
        Case(
            &["--steps", "0"],
            1,
            "trailing: expected 1 to 1000 steps, found 0",
        ),
        Case(
            &["--steps", "1001"],
            1,
            "trailing: expected 1 to 1000 steps, found 1001",
        ),
        Case(
            &["--spacing", "explicit:1,5"],
            1,
            "in falling order, found explicit:1,5",
        ),
        Case(&["--sampler", "euler"], 2, "euler"),
        Case(
            &["--variance", "learned-range"],
            1,
            "a network with 6 output channels, found 3",
        ),
        Case(
            &["--variance", "analytic", "--steps", "7"],
            1,
            "expected linspace with a table's steps (10, 20, 25, 50, 100), found trailing with 7",
        ),
        Case(
            &["--guidance", "-1"],
            1,
            "recipe: guidance: expected a number in 0 to 20, found -1",
        ),
        Case(&["--guidance", "much"], 2, "--guidance"),
        Case(&["--precision", "fp64"], 2, "fp64"),
        Case(&["--seed=-1"], 2, "--seed"),
        Case(&["--count", "0"], 2, "--count"),
        Case(&["--threads", "0"], 2, "expected 1 to 256"),
        Case(&["--threads", "100000"], 2, "expected 1 to 256"),
        Case(&["--scale", "0"], 2, "--scale"),
        Case(&["--morph", "1", "2", "--frames", "1"], 2, "--frames"),
        Case(
            &["--spacing", "linspace", "--steps", "1"],
            1,
            "expected a first step that is mostly noise",
        ),
        Case(
            &["--out", "picture.jpg"],
            1,
            "picture.jpg: expected a .png file or a folder",
        ),
        Case(
            &["--out", "text.png/folder"],
            1,
            "text.png/folder: cannot create",
        ),
        Case(
            &["--models", "absent"],
            1,
            "absent: expected a folder of model packages",
        ),
        Case(
            &["noise", "text.png", "--out", "noise.jpg"],
            1,
            "noise.jpg: expected a .png or",
        ),
        Case(&["--like", "text.png"], 1, "text.png: expected"),
        Case(&["--init", "absent.png"], 1, "absent.png: cannot read"),
        Case(
            &["--count", "2", "--out", "one.png", "--steps", "1"],
            1,
            "one.png: expected a folder",
        ),
        Case(&["noise", "text.png"], 1, "text.png: expected"),
        Case(
            &["schedule", "--steps", "5000"],
            1,
            "expected 1 to 1000 steps, found 5000",
        ),
        Case(
            &["onnx", "info", "text.png"],
            1,
            "text.png: expected an ONNX model",
        ),
        Case(&["no-such-command"], 2, "no-such-command"),
    ];
    for Case(arguments, code, said) in cases {
        let error = fail(folder.path(), arguments, code);
        assert!(
            error.contains(said),
            "{arguments:?}: no `{said}` in: {error}"
        );
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
        if code == 1 {
            assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
            let words = error.trim_end().rsplit(": ").collect::<Vec<_>>();
            assert_ne!(
                words[0], words[1],
                "{arguments:?} says its cause twice: {error}"
            );
        }
    }
}

#[test]
fn models_are_listed_shown_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    assert!(succeed(folder.path(), &["models", "list"]).contains("scenes-32"));
    let list = json(&succeed(folder.path(), &["models", "list", "--json"]));
    assert_eq!(list[0]["name"], "scenes-32");
    let shown = succeed(folder.path(), &["models", "show", "scenes-32"]);
    assert!(shown.contains("mountains, planet"), "{shown}");
    assert!(
        shown.contains("analytic   10, 20, 25, 50, 100 steps"),
        "{shown}"
    );

    let checks = json(&succeed(folder.path(), &["models", "check", "--json"]));
    let checks = checks.as_array().unwrap();
    assert_eq!(checks.len(), list[0]["files"].as_object().unwrap().len());
    for check in checks {
        assert_eq!(check["passed"], true);
        assert_eq!(check["steps"].as_array().unwrap().len(), 10);
    }
    let tiny = data("foreign/linear-large");
    let checked = succeed(folder.path(), &["models", "check", tiny.to_str().unwrap()]);
    assert!(
        checked.starts_with("linear-large fp32: passed"),
        "{checked}"
    );
}

#[test]
fn every_model_of_the_repository_paints_what_pytorch_saw() {
    let folder = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let entries = fs::read_dir(models).unwrap();
    let mut packages: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    packages.retain(|path| path.is_dir());
    assert!(packages.len() > 1, "{packages:?}");
    for path in packages {
        let checked = succeed(folder.path(), &["models", "check", path.to_str().unwrap()]);
        assert_eq!(checked.matches(": passed").count(), 2, "{checked}");
    }
}

#[test]
fn a_model_that_paints_something_else_fails_its_check() {
    let copy = Copy::of("cosine");
    let mut archive = Archive::read("reference", &copy.read("reference.npz"), 1 << 28).unwrap();
    let mut epsilon = archive.get("epsilon").unwrap().to_f32();
    epsilon += 0.01;
    archive.insert("epsilon", Array::from_f32(epsilon.view()));
    copy.write_vouched("reference.npz", &archive.write(Compression::Deflated));
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        folder.path(),
        &["models", "check", copy.path.to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(3));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("cosine fp32: FAILED")
    );
}

#[test]
fn the_bound_of_a_picture_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["--steps", "2", "--out", "p.png"]);
    let tiny = data("foreign/cosine");
    let model = tiny.to_str().unwrap();
    let arguments = [
        "models",
        "check",
        model,
        "--elbo",
        "p.png",
        "--elbo-steps",
        "5",
        "--json",
    ];
    let check = json(&succeed(folder.path(), &arguments));
    let elbo = &check[0]["elbo"][0];
    let sum = ["prior", "denoising", "reconstruction"].map(|term| elbo[term].as_f64().unwrap());
    assert!(
        (sum.iter().sum::<f64>() - elbo["total"].as_f64().unwrap()).abs() < 1e-9,
        "{elbo}"
    );
}

#[test]
fn a_schedule_is_a_table_and_three_plots() {
    let folder = tempfile::tempdir().unwrap();
    let rows = json(&succeed(
        folder.path(),
        &["schedule", "--steps", "10", "--json"],
    ));
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 10);
    // The golden values of respacing the cosine schedule to ten steps.
    assert_eq!(rows[1]["t"], 888);
    assert!((rows[0]["beta"].as_f64().unwrap() - 0.999_999_918_023).abs() < 1e-12);
    assert!((rows[8]["posterior_variance"].as_f64().unwrap() - 4.1236e-5).abs() < 1e-9);
    let text = succeed(folder.path(), &["schedule", "--schedule", "linear"]);
    assert!(text.contains("SNR") && text.contains("alpha_bar"), "{text}");
    succeed(folder.path(), &["schedule", "--model", "scenes-32"]);
}

#[test]
fn a_broken_package_does_not_hide_the_others() {
    let copy = Copy::of("cosine");
    copy.write("model.toml", b"format = 7");
    let folder = copy.path.parent().unwrap();
    let arguments = ["models", "list", "--models", folder.to_str().unwrap()];
    let output = run(folder, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("scenes-32"), "{said}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("model.toml: format: expected 1, found 7"),
        "{error}"
    );
}

#[test]
fn a_sheet_holds_all_pictures_and_the_first_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = data("foreign/cosine");
    let arguments = [
        "--model",
        tiny.to_str().unwrap(),
        "--count",
        "9",
        "--scale",
        "1",
        "-q",
    ];
    let arguments = [&arguments[..], &["--steps", "2", "--sheet", "sheet.png"]].concat();
    succeed(folder.path(), &arguments);
    let sheet = picture(&folder.path().join("sheet.png"));
    assert_eq!(
        (sheet.width_px(), sheet.height_px()),
        (8 * 16 + 7 * 4, 2 * 16 + 4)
    );
    let bytes = fs::read(folder.path().join("sheet.png")).unwrap();
    assert_eq!(Recipe::from_png("sheet.png", &bytes).unwrap().seed, 5);
}

#[test]
fn an_animation_without_a_preview_still_moves() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "--steps",
        "3",
        "--apng",
        "--preview",
        "none",
        "--scale",
        "1",
    ];
    succeed(folder.path(), &arguments);
    let bytes = fs::read(folder.path().join("pictures/scenes-32-5.apng")).unwrap();
    let frames = bytes.windows(4).filter(|word| word == b"fcTL").count();
    assert_eq!(frames, 4, "three steps and the finished picture");
}

#[test]
fn a_picture_is_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    succeed(
        folder.path(),
        &["--steps", "2", "--out", "p.png", "--scale", "1"],
    );
    let said = succeed(
        folder.path(),
        &["noise", "p.png", "--steps", "4", "--out", "strip.png"],
    );
    assert!(said.ends_with("strip.png\n"), "{said}");
    let strip = picture(&folder.path().join("strip.png"));
    // The clean picture and four noisy ones, with a gap between.
    assert_eq!((strip.width_px(), strip.height_px()), (5 * 32 + 4 * 4, 32));
    let clean = picture(&folder.path().join("p.png"));
    assert_eq!(strip.pixel(5, 5), clean.pixel(5, 5));
    succeed(
        folder.path(),
        &[
            "noise",
            "p.png",
            "--model",
            "scenes-32",
            "--out",
            "film.apng",
        ],
    );
    assert!(folder.path().join("film.apng").is_file());
}

#[test]
fn a_bench_reports_what_an_engineer_compares() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "bench",
        "--steps",
        "5",
        "--profile",
        "--json",
        "--threads",
        "1",
    ];
    let report = json(&succeed(folder.path(), &arguments));
    let numbers = [
        "median_ms",
        "min_ms",
        "steps_per_second",
        "load_ms",
        "first_step_ms",
        "sampler_share",
        "preview_share",
        "peak_rss_bytes",
        "threads",
    ];
    for number in numbers {
        assert!(
            report[number].as_f64().unwrap() > 0.0,
            "{number} in {report}"
        );
    }
    for rate in ["gflops", "int8_gops", "read_gb_per_second"] {
        assert!(
            report["profile"]["peak"][rate].as_f64().unwrap() > 0.0,
            "{rate}"
        );
    }
    assert!(report["profile"]["nodes"].as_array().unwrap().len() > 20);
    let shares = report["profile"]["operators"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["share"].as_f64().unwrap());
    assert!((shares.sum::<f64>() - 1.0).abs() < 1e-6);
}

#[test]
fn any_graph_can_be_inspected_run_and_timed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("double.onnx", &Graph::doubling().model(17));
    let mut inputs = Archive::default();
    let x = ndarray::array![1.0_f32, -2.5, 0.0, 3.0];
    inputs.insert("x", Array::from_f32(x.view()));
    write("in.npz", &inputs.write(Compression::Stored));

    let info = json(&succeed(
        folder.path(),
        &["onnx", "info", "double.onnx", "--json"],
    ));
    assert_eq!(info["inputs"][0]["name"], "x");
    assert_eq!(info["outputs"][0]["shape"], serde_json::json!(["4"]));
    let arguments = [
        "onnx",
        "run",
        "double.onnx",
        "--inputs",
        "in.npz",
        "--outputs",
        "out.npz",
    ];
    succeed(folder.path(), &arguments);
    let outputs = fs::read(folder.path().join("out.npz")).unwrap();
    let outputs = Archive::read("out.npz", &outputs, 1 << 20).unwrap();
    let y = outputs.require_f32("y", &[4]).unwrap();
    assert_eq!(y, (x * 2.0).into_dyn());

    let arguments = [
        "onnx",
        "bench",
        "double.onnx",
        "--inputs",
        "in.npz",
        "--rounds",
        "5",
        "--json",
    ];
    let timing = json(&succeed(folder.path(), &arguments));
    for number in [
        "median_ms",
        "min_ms",
        "load_ms",
        "peak_rss_bytes",
        "threads",
    ] {
        assert!(
            timing[number].as_f64().unwrap() > 0.0,
            "{number} in {timing}"
        );
    }

    let mut wrong = Archive::default();
    wrong.insert("x", Array::from_i64(ndarray::array![1, 2, 3, 4].view()));
    write("in.npz", &wrong.write(Compression::Stored));
    let error = fail(
        folder.path(),
        &[
            "onnx",
            "run",
            "double.onnx",
            "--inputs",
            "in.npz",
            "--outputs",
            "o.npz",
        ],
        1,
    );
    assert!(
        error.contains("input `x`: expected float32 [4], found int64 [4]"),
        "{error}"
    );
}
