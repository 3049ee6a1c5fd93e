//! The engine's own operators against tract alone, on real exports.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use driftglass::diffusion::noise::{Stream, word};
use driftglass::engine::simd::Isa;
use driftglass::engine::{Network, Options};
use driftglass::npz::{Array, Dtype};
use ndarray::ArrayD;

use super::fixtures::{allocations, data};

/// Options for a file whose other inputs than the picture take few values.
fn options(threads: usize) -> Options {
    Options {
        threads,
        kept: vec!["timestep".into(), "class_labels".into()],
        ..Options::default()
    }
}

fn load(path: &Path, options: &Options) -> Network {
    let bytes = fs::read(path).unwrap();
    Network::load(&bytes, &path.display().to_string(), options).unwrap()
}

/// Numbers of about unit variance for the picture, `t` for everything else.
fn inputs(network: &Network, t: i64) -> Vec<Array> {
    let ports = network.inputs().iter();
    ports
        .map(|port| {
            let uniform = |i: usize| {
                let bits = word(7, Stream::Draw(0), i as u64);
                (bits as f64 / f64::from(u32::MAX) - 0.5) as f32 * 12f32.sqrt()
            };
            let len: usize = port.shape.iter().product();
            match (port.dtype, len) {
                (Dtype::F32 | Dtype::F16, 2..) => {
                    let values = (0..len).map(uniform).collect();
                    let values = ArrayD::from_shape_vec(port.shape.clone(), values).unwrap();
                    match port.dtype {
                        Dtype::F16 => Array::from_f16(values.view()),
                        _ => Array::from_f32(values.view()),
                    }
                }
                (Dtype::F32, _) => {
                    Array::from_f32(ArrayD::from_elem(port.shape.clone(), t as f32).view())
                }
                (Dtype::I64, _) => {
                    // The networks have few classes.
                    let value = if port.name.starts_with("class") { 1 } else { t };
                    Array::from_i64(ArrayD::from_elem(port.shape.clone(), value).view())
                }
                _ => Array::zeros(port.dtype, &port.shape),
            }
        })
        .collect()
}

/// The largest difference of the first outputs.
fn largest_difference(a: &[Array], b: &[Array]) -> f32 {
    let (a, b) = (a[0].to_f32(), b[0].to_f32());
    a.iter()
        .zip(&b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// How often each rewrite fired on a file.
fn fired(name: &str) -> BTreeMap<&'static str, usize> {
    let network = load(&data(&format!("onnx/{name}.onnx")), &options(1));
    network.rewrites().iter().copied().collect()
}

#[test]
fn the_rewrites_fire_on_every_exporters_spelling() {
    for name in [
        "dynamo-17",
        "dynamo-18",
        "dynamo-21",
        "torchscript-17",
        "torchscript-18",
        "torchscript-21",
        "fp16-converted",
        "fp16-exported",
        "fp16-io32",
        "timestep-float",
    ] {
        let fired = fired(name);
        // The network has six norms, five of them with a SiLU behind, one attention and one
        // upsampling; opset 21 spells the norm with its groups and its affine.
        let groups = if name.ends_with("21") && name.starts_with("dynamo") {
            0
        } else {
            6
        };
        assert_eq!(fired["group norm"], groups, "{name}");
        assert_eq!(fired["affine of a group norm"], 2 * groups, "{name}");
        assert_eq!(fired["SiLU"], 5, "{name}");
        assert_eq!(fired["SiLU after a group norm"], 5, "{name}");
        assert_eq!(fired["attention"], 1, "{name}");
        assert_eq!(fired["upsampling before a convolution"], 1, "{name}");
    }
    for name in ["qdq-s8", "qdq-u8"] {
        let fired = fired(name);
        assert_eq!(
            (fired["group norm"], fired["SiLU after a group norm"]),
            (6, 5),
            "{name}"
        );
        assert_eq!(fired["upsampling before a convolution"], 1, "{name}");
    }
    for name in ["qoperator-s8", "qoperator-u8"] {
        assert_eq!(fired(name)["group norm"], 6, "{name}");
    }
}

#[test]
fn padding_goes_into_the_convolution_of_a_foreign_network() {
    let network = load(&data("foreign/linear-large/fp32.onnx"), &options(1));
    let fired: BTreeMap<_, _> = network.rewrites().iter().copied().collect();
    assert_eq!(fired["padding before a convolution"], 1);
    assert_eq!(fired["attention"], 4);
}

#[test]
fn convolutions_norms_and_attention_are_computed_by_our_own_operators() {
    let mut network = load(&data("onnx/torchscript-17.onnx"), &options(1));
    let inputs = inputs(&network, 3);
    let profile = network.profile(&inputs, 1).unwrap();
    let of = |kind: &str| {
        profile
            .iter()
            .filter(|node| node.op.starts_with(kind))
            .count()
    };
    assert_eq!(of("tract"), 0, "{profile:?}");
    assert_eq!(of("group norm"), 6);
    assert_eq!(of("attention"), 1);
    assert!(
        of("elementwise") + of("add") + of("mul") == 0,
        "{profile:?}"
    );
}

/// Every network of the repository computes on every instruction set what tract computes.
#[test]
fn the_rewritten_network_answers_as_the_file_does() {
    let mut files: Vec<_> = fs::read_dir(data("onnx"))
        .unwrap()
        .chain(fs::read_dir(data("foreign")).unwrap())
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            if path.is_dir() {
                path.join("fp32.onnx")
            } else {
                path
            }
        })
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "onnx")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 24, "{} files", files.len());
    for path in files {
        let reference = Options {
            reference: true,
            ..options(1)
        };
        let mut reference = load(&path, &reference);
        let inputs = inputs(&reference, 5);
        let expected = reference.run(&inputs).unwrap();
        let quantized = path.file_name().unwrap().to_str().unwrap().starts_with('q');
        let allowed = match (quantized, reference.outputs()[0].dtype) {
            // A level more or less, where a sum in another order lies on the edge of one.
            (true, _) => 2e-2,
            // The last bit of a number below 2.
            (_, Dtype::F16) => 1e-3,
            _ => 1e-4,
        };
        // With and without a prologue, and on every instruction set.
        let whole = Options {
            kept: Vec::new(),
            ..options(1)
        };
        let each = Isa::available()
            .into_iter()
            .map(|isa| Options { isa, ..options(1) });
        for options in each.chain([whole]) {
            let found = load(&path, &options).run(&inputs).unwrap();
            let difference = largest_difference(&found, &expected);
            assert!(
                difference <= allowed,
                "{}: {difference} with {options:?}",
                path.display()
            );
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scenes-32");
    for file in ["fp16.onnx", "int8.onnx"] {
        let path = models.join(file);
        let mut one = load(&path, &options(1));
        let inputs = inputs(&one, 500);
        let expected = one.run(&inputs).unwrap();
        for threads in [2, 3, 5] {
            let found = load(&path, &options(threads)).run(&inputs).unwrap();
            assert_eq!(
                found[0].data(),
                expected[0].data(),
                "{file}, {threads} threads"
            );
        }
    }
}

#[test]
fn nothing_is_allocated_after_the_first_step() {
    use driftglass::diffusion::{Conditioning, Denoiser, Timestep};
    use driftglass::engine::UNet;
    use driftglass::model::Precision;
    use driftglass::model::library::Library;
    let package = Library::new(None).open("scenes-32").unwrap();
    for precision in [Precision::Fp16, Precision::Int8] {
        let mut unet = UNet::open(&package, precision, 1).unwrap();
        let timesteps: Vec<Timestep> = (0..10).map(|i| Timestep(i * 100)).collect();
        let cond = Conditioning { class: Some(2) };
        let x = ndarray::Array4::from_elem((1, 3, 32, 32), 0.3);
        let mut out = x.clone();
        unet.prepare(&timesteps, &cond).unwrap();
        unet.predict(x.view(), timesteps[0], &cond, out.view_mut())
            .unwrap();
        let before = allocations();
        for &t in &timesteps {
            unet.predict(x.view(), t, &cond, out.view_mut()).unwrap();
        }
        assert_eq!(allocations() - before, 0, "{precision}");
    }
}
