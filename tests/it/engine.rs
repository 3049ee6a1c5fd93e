//! ONNX files in every spelling, right and wrong.

use std::fs;
use std::path::PathBuf;

use driftglass::diffusion::noise::{Stream, word};
use driftglass::diffusion::{Conditioning, Denoiser, Timestep};
use driftglass::engine::{Network, Options, UNet, inspect};
use driftglass::model::Manifest;
use driftglass::npz::{Archive, Array, Dtype};
use ndarray::{ArrayD, Axis};

use super::fixtures::{FLOAT, Graph, INT64, Message, data, node, tensor, value};

fn spellings() -> Vec<PathBuf> {
    let entries = fs::read_dir(data("onnx"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().unwrap() == "onnx")
        .collect();
    files.sort();
    assert!(files.len() >= 18, "only {} files", files.len());
    files
}

fn load(path: &PathBuf, threads: usize) -> Network {
    let bytes = fs::read(path).unwrap();
    let options = Options {
        threads,
        ..Options::default()
    };
    Network::load(&bytes, &path.display().to_string(), &options).unwrap()
}

/// The answers to all inputs of `io.npz`, `[k, 1, 1, h, w]`.
fn answers(network: &mut Network, io: &Archive) -> ArrayD<f32> {
    let samples = io.require("sample").unwrap().to_f32();
    let timesteps = io.require("timestep").unwrap().to_i64().unwrap();
    let ports = network.inputs().to_vec();
    let mut found = ArrayD::zeros(samples.raw_dim());
    for (index, sample) in samples.axis_iter(Axis(0)).enumerate() {
        let t = timesteps[index];
        let inputs: Vec<Array> = ports
            .iter()
            .map(|port| match port.name.as_str() {
                "sample" if port.dtype == Dtype::F16 => Array::from_f16(sample.view()),
                "sample" => Array::from_f32(sample.view()),
                _ => number(port.dtype, &port.shape, t),
            })
            .collect();
        let output = network.run(&inputs).unwrap().remove(0);
        found
            .index_axis_mut(Axis(0), index)
            .assign(&output.to_f32());
    }
    found
}

/// One number in the type and shape that an input wants.
fn number(dtype: Dtype, shape: &[usize], value: i64) -> Array {
    let data = match dtype {
        Dtype::I64 => value.to_le_bytes().to_vec(),
        Dtype::I32 => (value as i32).to_le_bytes().to_vec(),
        Dtype::F32 => (value as f32).to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(value as f32).to_le_bytes().to_vec(),
        other => panic!("no time step is {other}"),
    };
    Array::new(dtype, shape.to_vec(), data)
}

/// Root of the mean squared difference over that of the expected values.
fn relative_rms(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> f64 {
    let square = |values: &ArrayD<f32>| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
    (square(&(found - expected)) / square(expected)).sqrt()
}

#[test]
fn every_spelling_is_computed_as_its_reference_does() {
    let io = Archive::read("io.npz", &fs::read(data("onnx/io.npz")).unwrap(), 1 << 24).unwrap();
    let pytorch = io.require("pytorch").unwrap().to_f32();
    let mut wrong = Vec::new();
    for path in spellings() {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let found = answers(&mut load(&path, 1), &io);
        // int8 is compared with ONNX Runtime's answer to the same file, everything else with
        // PyTorch's; what is stored in fp16 differs from PyTorch by the rounding of its weights.
        // An int8 sum that lies on the edge between two levels may fall to the other side.
        let (expected, allowed) = match name.as_str() {
            int8 if int8.starts_with('q') => (io.require(int8).unwrap().to_f32(), 5e-3),
            fp16 if fp16.starts_with("fp16") => (pytorch.clone(), 5e-3),
            _ => (pytorch.clone(), 1e-5),
        };
        let error = relative_rms(&found, &expected);
        if error.is_nan() || error > allowed {
            wrong.push(format!(
                "{name}: relative difference {error:.2e}, allowed {allowed:.0e}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A manifest for the small U-Net of `tests/data/onnx`, whatever its time step is.
fn small_manifest() -> Manifest {
    let path = data("foreign/cosine/model.toml");
    let text = fs::read_to_string(&path).unwrap();
    Manifest::parse(&text, &path.display().to_string()).unwrap()
}

#[test]
fn a_unet_takes_every_kind_of_time_step() {
    let io = Archive::read("io.npz", &fs::read(data("onnx/io.npz")).unwrap(), 1 << 24).unwrap();
    let samples = io.require("sample").unwrap().to_f32();
    let timesteps = io.require("timestep").unwrap().to_i64().unwrap();
    let expected = io.require("pytorch").unwrap().to_f32();
    let (mut manifest, cond) = (small_manifest(), Conditioning::default());
    for name in [
        "timestep-float",
        "timestep-int32",
        "timestep-scalar",
        "fp16-exported",
        "fp16-io32",
    ] {
        let bytes = fs::read(data(&format!("onnx/{name}.onnx"))).unwrap();
        manifest.network.output = inspect(&bytes, name).unwrap().outputs[0].name.clone();
        let mut unet = UNet::load(&bytes, name, &manifest, 1).unwrap();
        let mut found = ArrayD::zeros(samples.raw_dim());
        for (index, sample) in samples.axis_iter(Axis(0)).enumerate() {
            let sample = sample.into_dimensionality().unwrap();
            let out = found
                .index_axis_mut(Axis(0), index)
                .into_dimensionality()
                .unwrap();
            unet.predict(sample, Timestep(timesteps[index] as usize), &cond, out)
                .unwrap();
        }
        let allowed = if name.starts_with("fp16") { 5e-3 } else { 1e-5 };
        let error = relative_rms(&found, &expected);
        assert!(error < allowed, "{name}: {error}");
    }
    manifest.network.timestep_scale = 0.5;
    let bytes = fs::read(data("onnx/timestep-int32.onnx")).unwrap();
    let error = UNet::load(&bytes, "g.onnx", &manifest, 1)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("timestep-scale: expected a whole number"),
        "{error}"
    );
}

#[test]
fn the_number_of_threads_does_not_change_an_answer() {
    let io = Archive::read("io.npz", &fs::read(data("onnx/io.npz")).unwrap(), 1 << 24).unwrap();
    for name in ["torchscript-17", "qdq-s8", "qoperator-u8"] {
        let path = data(&format!("onnx/{name}.onnx"));
        let one = answers(&mut load(&path, 1), &io);
        assert_eq!(answers(&mut load(&path, 3), &io), one, "{name}");
    }
}

#[test]
fn a_free_dimension_is_filled_from_the_inputs() {
    let mut graph = Graph::doubling();
    graph.inputs = vec![value("x", FLOAT, &[-1, 2])];
    graph.outputs = vec![value("y", FLOAT, &[-1, 2])];
    let bytes = graph.model(17);
    let error = refused(&bytes);
    assert!(
        error.contains("input `x`: expected a fixed shape"),
        "{error}"
    );
    assert!(error.contains("[?, 2]"), "{error}");

    let shapes = |shape: Vec<usize>| Options {
        threads: 1,
        shapes: [("x".to_owned(), shape)].into_iter().collect(),
        ..Options::default()
    };
    let network = Network::load(&bytes, "g.onnx", &shapes(vec![3, 2])).unwrap();
    assert_eq!(network.outputs()[0].shape, [3, 2]);
    let error = Network::load(&bytes, "g.onnx", &shapes(vec![3, 5]))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("expected shape [?, 2], found [3, 5]"),
        "{error}"
    );
}

fn refused(bytes: &[u8]) -> String {
    let result = Network::load(
        bytes,
        "g.onnx",
        &Options {
            threads: 1,
            ..Options::default()
        },
    );
    let error = result.err().expect("this file must be refused").to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn files_that_must_not_be_built_are_refused() {
    struct Case {
        name: &'static str,
        graph: Graph,
        said: &'static [&'static str],
    }
    let doubling = Graph::doubling;
    let with = |initializer: Message| Graph {
        initializers: vec![initializer],
        ..doubling()
    };
    let weight = |dims: &[i64], raw: &[u8]| with(tensor("w", FLOAT, dims, raw));
    let external = {
        let entry = Message::default()
            .bytes(1, "location")
            .bytes(2, "weights.bin");
        tensor("w", FLOAT, &[4], &[]).bytes(13, entry).int(14, 1)
    };
    let shape = |dims: [i64; 2]| -> Vec<u8> { dims.iter().flat_map(|d| d.to_le_bytes()).collect() };
    let sized = |op: &str, inputs: &[&str]| Graph {
        nodes: vec![node(op, inputs, &["y"])],
        initializers: vec![tensor("dims", INT64, &[2], &shape([1 << 20, 1 << 20]))],
        ..doubling()
    };
    let cases = [
        Case {
            name: "external data",
            graph: with(external),
            said: &["tensor `w`: expected its data in this file, found external data"],
        },
        Case {
            name: "less data than the shape says",
            graph: weight(&[4], &[0; 12]),
            said: &["tensor `w`: expected 16 bytes for shape [4], found 12 bytes"],
        },
        Case {
            name: "a dimension no memory holds",
            graph: weight(&[1 << 40, 4], &[0; 16]),
            said: &["tensor `w`: expected a tensor of at most 1 GiB"],
        },
        Case {
            name: "dimensions whose product wraps",
            graph: weight(&[1 << 32, 1 << 32], &[]),
            said: &["tensor `w`: expected a tensor of at most 1 GiB"],
        },
        Case {
            name: "a negative dimension",
            graph: weight(&[-4], &[0; 16]),
            said: &["tensor `w`: expected a tensor of at most 1 GiB"],
        },
        Case {
            name: "an input no memory holds",
            graph: Graph {
                inputs: vec![value("x", FLOAT, &[1 << 40])],
                ..doubling()
            },
            said: &["input `x`: expected at most 1 GiB"],
        },
        Case {
            name: "a constant no memory holds",
            graph: sized("ConstantOfShape", &["dims"]),
            said: &["node `y`: expected ConstantOfShape of at most 1 GiB"],
        },
        Case {
            name: "an expansion no memory holds",
            graph: sized("Expand", &["x", "dims"]),
            said: &["node `y`: expected Expand of at most 1 GiB"],
        },
        Case {
            name: "an operator nobody knows",
            graph: Graph {
                nodes: vec![node("Divinate", &["x"], &["y"])],
                ..doubling()
            },
            said: &[
                "node `y`: expected an operator that this engine knows, found ai.onnx::Divinate",
            ],
        },
        Case {
            name: "an operator of another house",
            graph: Graph {
                nodes: vec![node("Add", &["x", "x"], &["y"]).bytes(7, "example.org")],
                ..doubling()
            },
            said: &["found example.org::Add"],
        },
        Case {
            name: "booleans that are none",
            graph: with(tensor("w", 9, &[2], &[0, 2])),
            said: &["tensor `w`: expected booleans of 0 and 1, found 2"],
        },
        Case {
            name: "an output nobody computes",
            graph: Graph {
                outputs: vec![value("z", FLOAT, &[4])],
                ..doubling()
            },
            said: &["expected a node that computes the output `z`, found none"],
        },
        Case {
            name: "an input nobody gives",
            graph: Graph {
                nodes: vec![node("Add", &["x", "nothing"], &["y"])],
                ..doubling()
            },
            said: &["the network cannot be loaded"],
        },
        Case {
            name: "shapes that do not fit",
            graph: Graph {
                nodes: vec![node("MatMul", &["x", "w"], &["y"])],
                initializers: vec![tensor("w", FLOAT, &[3, 3], &[0; 36])],
                ..doubling()
            },
            said: &["the network cannot be loaded"],
        },
    ];
    let mut wrong = Vec::new();
    for Case { name, graph, said } in cases {
        let error = refused(&graph.model(17));
        for part in said.iter().filter(|part| !error.contains(**part)) {
            wrong.push(format!("{name}: no `{part}` in: {error}"));
        }
        if !error.starts_with("g.onnx: ") {
            wrong.push(format!("{name}: no place in: {error}"));
        }
    }
    for opset in [0, 8, 25] {
        let error = refused(&doubling().model(opset));
        assert!(
            error.contains("expected ONNX operator set 9 to 24"),
            "{error}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn damaged_graphs_panic_nowhere() {
    let names = [
        "torchscript-17",
        "dynamo-21",
        "qoperator-s8",
        "fp16-exported",
    ];
    let originals = names.map(|name| fs::read(data(&format!("onnx/{name}.onnx"))).unwrap());
    let mut refusals = 0;
    for round in 0..200 {
        let draw = |index: u64| word(3, Stream::Draw(round), index) as usize;
        let mut bytes = originals[draw(0) % originals.len()].clone();
        match draw(1) % 3 {
            0 => bytes.truncate(draw(2) % bytes.len()),
            _ => {
                let place = draw(2) % bytes.len();
                bytes[place] ^= 1 << (draw(3) % 8);
            }
        }
        let options = Options {
            threads: 1,
            ..Options::default()
        };
        if let Err(error) = Network::load(&bytes, "g.onnx", &options) {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            refusals += 1;
        }
    }
    assert!(refusals > 60, "only {refusals} of 200 were refused");
}
