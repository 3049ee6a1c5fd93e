//! Packages: what is wrong with one is said in one sentence.

use std::fs;

use driftglass::diffusion::noise::{Stream, word};
use driftglass::engine::UNet;
use driftglass::error::{Error, Result};
use driftglass::model::{Library, Package, Precision};
use driftglass::npz::{Archive, Array, Compression};

use super::fixtures::{Copy, Graph};

/// Reads everything a package has and loads its network.
fn open_all(copy: &Copy) -> Result<()> {
    let package = Package::open(&copy.path)?;
    package.reference()?;
    let bytes = package.network_bytes(Precision::Fp32)?;
    let place = package.network_place(Precision::Fp32)?;
    UNet::load(&bytes, &place, package.manifest(), 1).map(drop)
}

/// The sentence must be one line and name the package's folder.
fn sentence(copy: &Copy, error: &Error) -> String {
    let sentence = error.to_string();
    assert_eq!(sentence.lines().count(), 1, "not one line: {sentence}");
    let folder = copy.path.display().to_string();
    assert!(sentence.contains(&folder), "no path in: {sentence}");
    assert!(
        sentence.len() < 2000,
        "{} characters: {sentence}",
        sentence.len()
    );
    sentence
}

/// Replaces `from` in the manifest by `to`.
fn edit(copy: &Copy, from: &str, to: &str) {
    let manifest = copy.manifest();
    assert!(manifest.contains(from), "no `{from}` in the manifest");
    copy.write("model.toml", manifest.replacen(from, to, 1).as_bytes());
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    struct Case {
        name: &'static str,
        damage: fn(&Copy),
        said: &'static [&'static str],
    }
    fn case(name: &'static str, damage: fn(&Copy), said: &'static [&'static str]) -> Case {
        Case { name, damage, said }
    }
    let cases = [
        case(
            "no manifest",
            |copy| fs::remove_file(copy.path.join("model.toml")).unwrap(),
            &["model.toml", "cannot"],
        ),
        case(
            "guidance without a null class",
            |copy| edit(copy, "[defaults]", "[defaults]\nguidance = 2.0"),
            &["defaults.guidance: expected 1 where there is no null class, found 2"],
        ),
        case(
            "guidance that is too much",
            |copy| edit(copy, "[defaults]", "[defaults]\nguidance = 21.0"),
            &["defaults.guidance: expected a number in 0 to 20, found 21"],
        ),
        case(
            "no network",
            |copy| fs::remove_file(copy.path.join("fp32.onnx")).unwrap(),
            &["fp32.onnx", "cannot"],
        ),
        case(
            "truncated network",
            |copy| copy.write("fp32.onnx", &copy.read("fp32.onnx")[..1000]),
            &["fp32.onnx", "expected 227431 bytes", "found 1000 bytes"],
        ),
        case(
            "one flipped bit",
            |copy| {
                let mut bytes = copy.read("fp32.onnx");
                bytes[5000] ^= 1;
                copy.write("fp32.onnx", &bytes);
            },
            &["fp32.onnx", "expected sha256", "found sha256"],
        ),
        case(
            "truncated reference",
            |copy| copy.write_vouched("reference.npz", &copy.read("reference.npz")[..5000]),
            &["reference.npz"],
        ),
        case(
            "another shape",
            |copy| edit(copy, "height = 16", "height = 32"),
            &["reference.npz", "start"],
        ),
        case(
            "a shape that no memory holds",
            |copy| edit(copy, "height = 16", "height = 1000000000000"),
            &["model.toml: image.height", "1 to 1024", "1000000000000"],
        ),
        case(
            "another format",
            |copy| edit(copy, "format = 1", "format = 2"),
            &["model.toml: format", "expected 1", "found 2"],
        ),
        case(
            "an unknown key",
            |copy| edit(copy, "[defaults]", "[defaults]\ncolour = \"blue\""),
            &["model.toml:", "colour"],
        ),
        case(
            "another name",
            |copy| edit(copy, "name = \"cosine\"", "name = \"sine\""),
            &[
                "model.toml: name",
                "expected the folder's name, cosine",
                "found sine",
            ],
        ),
        case(
            "an input that the graph has not",
            |copy| edit(copy, "sample = \"sample\"", "sample = \"image\""),
            &["fp32.onnx", "an input `image`", "`sample`"],
        ),
        case(
            "an output that the graph has not",
            |copy| edit(copy, "output = \"output\"", "output = \"epsilon\""),
            &["fp32.onnx", "an output `epsilon`"],
        ),
        case(
            "a file outside the folder",
            |copy| edit(copy, "file = \"fp32.onnx\"", "file = \"../fp32.onnx\""),
            &[
                "model.toml: fp32: file",
                "a plain file name",
                "../fp32.onnx",
            ],
        ),
        case(
            "a schedule that is none",
            |copy| {
                edit(
                    copy,
                    "schedule = \"cosine\"",
                    "schedule = \"table\"\nbetas = [0.1, 2.0]",
                )
            },
            &["model.toml: diffusion"],
        ),
        case(
            "an error that promises nothing",
            |copy| {
                let manifest = copy.manifest();
                let line = manifest
                    .lines()
                    .find(|line| line.starts_with("max-error"))
                    .unwrap();
                edit(copy, line, "max-error = inf");
            },
            &["model.toml: fp32: max-error: expected a number of at least 0, found inf"],
        ),
        case(
            "a schedule with keys of another",
            |copy| {
                edit(
                    copy,
                    "schedule = \"cosine\"",
                    "schedule = \"cosine\"\nbeta-end = 0.02",
                )
            },
            &["model.toml: diffusion: expected only the betas that a cosine schedule uses"],
        ),
        case(
            "clipping twice",
            |copy| {
                edit(
                    copy,
                    "clip = 1.0",
                    "clip = 1.0\nthreshold = { ratio = 0.9, max = 1.0 }",
                )
            },
            &["model.toml: diffusion: expected clip or threshold, found both"],
        ),
        case(
            "steps that cannot be kept",
            |copy| edit(copy, "steps = 50", "steps = 5000"),
            &["model.toml: defaults"],
        ),
        case(
            "a title that moves the cursor",
            |copy| edit(copy, "title = \"", "title = \"\\u001b[2J"),
            &["model.toml: expected texts without control characters"],
        ),
        case(
            "an ONNX file that is another graph",
            |copy| copy.write_vouched("fp32.onnx", &Graph::doubling().model(17)),
            &["fp32.onnx", "an input `sample`", "`x`"],
        ),
        case(
            "an operator set of the future",
            |copy| copy.write_vouched("fp32.onnx", &Graph::doubling().model(99)),
            &["fp32.onnx", "operator set 9 to 24", "operator set 99"],
        ),
        case(
            "no ONNX at all",
            |copy| copy.write_vouched("fp32.onnx", b"<html>not found</html>"),
            &["fp32.onnx", "expected an ONNX model"],
        ),
    ];
    let mut wrong = Vec::new();
    for Case { name, damage, said } in cases {
        let copy = Copy::of("cosine");
        damage(&copy);
        match open_all(&copy) {
            Ok(()) => wrong.push(format!("{name}: was accepted")),
            Err(error) => {
                let sentence = sentence(&copy, &error);
                for part in said.iter().filter(|part| !sentence.contains(**part)) {
                    wrong.push(format!("{name}: no `{part}` in: {sentence}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_few_hundred_damaged_packages_panic_nowhere() {
    let copy = Copy::of("cosine");
    let files = ["model.toml", "fp32.onnx", "reference.npz"];
    let originals = files.map(|file| copy.read(file));
    let (mut refused, mut accepted) = (0, 0);
    for round in 0..400 {
        let draw = |index: u64| word(7, Stream::Draw(round), index) as usize;
        let file = draw(0) % files.len();
        let mut bytes = originals[file].clone();
        if draw(1) % 4 == 0 {
            bytes.truncate(draw(2) % bytes.len());
        } else {
            // Half of the flips go where the structure is: to the beginning and the end.
            let place = match draw(3) % 4 {
                0 => draw(4) % bytes.len().min(400),
                1 => bytes.len() - 1 - draw(4) % bytes.len().min(400),
                _ => draw(4) % bytes.len(),
            };
            bytes[place] ^= 1 << (draw(5) % 8);
        }
        for (name, original) in files.iter().zip(&originals) {
            copy.write(name, original);
        }
        // The manifest vouches for the damaged bytes, so that it is the parsers that are tried.
        match files[file] {
            "model.toml" => copy.write("model.toml", &bytes),
            name => copy.write_vouched(name, &bytes),
        }
        match open_all(&copy) {
            Ok(()) => accepted += 1,
            Err(error) => {
                sentence(&copy, &error);
                refused += 1;
            }
        }
    }
    // A flipped bit in a weight or a title is still a package.
    assert!(
        refused > 100,
        "only {refused} of {} were refused",
        refused + accepted
    );
    assert!(
        accepted > 10,
        "only {accepted} of {} were accepted",
        refused + accepted
    );
}

#[test]
fn a_reference_that_is_no_number_is_refused() {
    let copy = Copy::of("cosine");
    let archive = Archive::read("reference", &copy.read("reference.npz"), 1 << 28).unwrap();
    let mut damaged = archive.clone();
    let mut epsilon = archive.get("epsilon").unwrap().to_f32();
    epsilon[[3, 0, 0, 2, 2]] = f32::NAN;
    damaged.insert("epsilon", Array::from_f32(epsilon.view()));
    copy.write_vouched("reference.npz", &damaged.write(Compression::Deflated));
    let error = open_all(&copy).unwrap_err();
    assert!(sentence(&copy, &error).contains("epsilon: expected finite numbers, found NaN"));
}

#[test]
fn a_library_prefers_the_folder_that_is_given() {
    let copy = Copy::of("cosine");
    let library = Library::new(Some(copy.path.parent().unwrap().to_owned()));
    assert!(library.names().unwrap().contains(&"cosine".to_owned()));
    assert_eq!(
        library.open("cosine").unwrap().place(),
        copy.path.display().to_string()
    );
    // The default model is always there.
    assert!(Library::new(None).open("scenes-32").is_ok());
    let error = Library::new(None)
        .open("no-such-model")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("scenes-32") && error.contains("no-such-model"),
        "{error}"
    );
}
