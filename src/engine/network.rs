//! Any ONNX graph, ready to run: inputs and outputs by name.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use half::f16;
use tract_onnx::pb::{GraphProto, ModelProto, tensor_proto};
use tract_onnx::prelude::*;

use super::graph::{self, bounded_bytes, typed_port};
use super::import::import;
use super::ir::Graph;
use super::legalize::legalize;
use super::plan::{self, plan};
use super::program::Program;
use super::prologue;
use super::rewrite::rewrite;
use super::simd::Isa;
use super::tract::{self, computed_type, guarded};
use super::verify::verify;
use crate::error::{Error, Result};
use crate::npz::{Array, Dtype};

/// How a network is prepared.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads of one evaluation, at least 1. The result does not depend on it.
    pub threads: usize,
    /// Shapes for inputs whose dimensions the file leaves free.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Inputs that take few different values: what depends on them alone is computed once for
    /// each value and kept.
    pub kept: Vec<String>,
    /// The instruction set of the kernels.
    pub isa: Isa,
    /// Computes the products of a file with fp16 weights in fp16, where the core has it: fewer
    /// instructions, and three decimal digits less.
    pub half: bool,
    /// Leaves the whole graph to tract: slow, and what the engine's own results are tested
    /// against.
    pub reference: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: default_threads(),
            shapes: BTreeMap::new(),
            kept: Vec::new(),
            isa: Isa::best(),
            half: false,
            reference: false,
        }
    }
}

/// All cores but one, which is left to the rest of the board; on two cores a second thread was
/// slower than none for a network of this size.
pub fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    cores.saturating_sub(1).max(1)
}

/// One input or output of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The name in the graph.
    pub name: String,
    /// The element type in the file. An fp16 port is computed in fp32 and converted at the edge.
    pub dtype: Dtype,
    /// The shape; what the file leaves free is filled in from [`Options::shapes`].
    pub shape: Vec<usize>,
}

/// Where the time of an evaluation goes: one step of the program.
#[derive(Debug, Clone)]
pub struct NodeProfile {
    /// The name of the node in the file.
    pub name: String,
    /// The operator and what is fused into it.
    pub op: String,
    /// The sum over all rounds.
    pub elapsed: Duration,
    /// Multiplications of one evaluation, as a direct computation would do them.
    pub macs: u64,
    /// Bytes that one evaluation reads and writes, each once.
    pub bytes: u64,
}

/// A network that runs.
///
/// # Example
///
/// ```no_run
/// # fn main() -> driftglass::error::Result<()> {
/// use driftglass::engine::{Network, Options};
/// let bytes = std::fs::read("unet.onnx").expect("the file is there");
/// let network = Network::load(&bytes, "unet.onnx", &Options::default())?;
/// for port in network.inputs() {
///     println!("{} {:?}", port.name, port.shape);
/// }
/// # Ok(()) }
/// ```
pub struct Network {
    place: String,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    engine: Engine,
    /// How often each rewrite of the graph was applied.
    rewrites: Vec<(&'static str, usize)>,
}

/// What evaluates the graph.
enum Engine {
    /// Our own operators, with tract for what they leave.
    Program {
        program: Box<Program>,
        prologue: Option<Box<Prologue>>,
    },
    /// tract alone.
    Reference {
        model: Box<tract::Model>,
        inputs: Vec<Vec<u8>>,
        outputs: Vec<Vec<u8>>,
    },
}

/// Most bytes of what depends on kept inputs that are remembered.
const MOST_KEPT_BYTES: usize = 16 << 20;

/// What depends on the kept inputs alone, and the results for the values they had.
struct Prologue {
    program: Program,
    /// The kept inputs, as indices into the network's inputs.
    inputs: Vec<usize>,
    /// The network's inputs that the results are.
    results: Vec<usize>,
    /// The results one after the other, by the inputs' bytes.
    known: HashMap<Vec<u8>, Vec<u8>>,
    /// The key that is asked for.
    key: Vec<u8>,
}

impl Network {
    /// Loads `bytes`, fixes the shapes, rewrites the graph and packs its weights for this core.
    ///
    /// `place` is the file's name for the errors.
    ///
    /// # Errors
    ///
    /// When the bytes are no ONNX model that this engine can run; when an input has a free
    /// dimension and [`Options::shapes`] does not name it.
    pub fn load(bytes: &[u8], place: &str, options: &Options) -> Result<Self> {
        Self::build(graph::decode(bytes, place)?, place, options)
    }

    /// As [`Network::load`]; the bytes are given up as soon as they are decoded, which halves the
    /// memory that loading takes.
    ///
    /// # Errors
    ///
    /// As [`Network::load`].
    pub fn load_owned(bytes: impl AsRef<[u8]>, place: &str, options: &Options) -> Result<Self> {
        let proto = graph::decode(bytes.as_ref(), place)?;
        drop(bytes);
        Self::build(proto, place, options)
    }

    fn build(mut proto: ModelProto, place: &str, options: &Options) -> Result<Self> {
        let inputs = input_ports(graph::graph(&proto), place, &options.shapes)?;
        let named_outputs = output_dtypes(graph::graph(&proto), place)?;
        let half = options.half && has_half_weights(graph::graph(&proto));
        let isa = match options.isa.in_half() {
            Some(isa) if half => isa,
            _ => options.isa,
        };
        legalize(&mut proto, place)?;
        fix_inputs(
            proto
                .graph
                .as_mut()
                .expect("decode refuses a model without a graph"),
            &inputs,
        );
        let (engine, shapes, rewrites) = match options.reference {
            true => reference(proto, place, &inputs, &named_outputs)?,
            false => program(proto, place, &inputs, isa, options)?,
        };
        let outputs = named_outputs
            .into_iter()
            .zip(shapes)
            .map(|((name, dtype), shape)| Port { name, dtype, shape })
            .collect();
        Ok(Self {
            place: place.to_owned(),
            inputs,
            outputs,
            engine,
            rewrites,
        })
    }

    /// The inputs, in the order of the file.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs, in the order of the file.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The file this network came from, for errors.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The rewrites of the graph and how often each was applied.
    pub fn rewrites(&self) -> &[(&'static str, usize)] {
        &self.rewrites
    }

    /// Evaluates the network on one array per input, in order; one array per output comes back.
    ///
    /// # Errors
    ///
    /// When an array has another element type or shape than its input, or the engine fails.
    pub fn run(&mut self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.set_inputs(inputs)?;
        self.evaluate()?;
        let outputs = self.outputs.iter().enumerate();
        Ok(outputs
            .map(|(index, port)| narrow(port, self.output(index)))
            .collect())
    }

    /// Evaluates the network `rounds` times and adds up the time of every step.
    ///
    /// # Errors
    ///
    /// As [`Network::run`].
    pub fn profile(&mut self, inputs: &[Array], rounds: usize) -> Result<Vec<NodeProfile>> {
        self.set_inputs(inputs)?;
        self.evaluate()?;
        let Engine::Program { program, .. } = &mut self.engine else {
            return Ok(Vec::new());
        };
        let elapsed = guarded(&self.place, "evaluated", || Ok(program.profile(rounds)))?;
        let steps = program.steps().iter().zip(elapsed);
        Ok(steps
            .map(|(step, elapsed)| NodeProfile {
                name: step.name.clone(),
                op: step.operator.describe(),
                elapsed,
                macs: step.operator.macs(),
                bytes: step.operator.bytes(),
            })
            .collect())
    }

    /// The bytes of an input as it is computed with (fp16 as f32), to be written before
    /// [`Network::evaluate`]; they stay until they are written again.
    pub(super) fn input(&mut self, index: usize) -> &mut [u8] {
        match &mut self.engine {
            Engine::Program { program, .. } => program.input(index),
            Engine::Reference { inputs, .. } => &mut inputs[index],
        }
    }

    /// The bytes of an output as it is computed with (fp16 as f32), after [`Network::evaluate`].
    pub(super) fn output(&self, index: usize) -> &[u8] {
        match &self.engine {
            Engine::Program { program, .. } => program.output(index),
            Engine::Reference { outputs, .. } => &outputs[index],
        }
    }

    /// Computes and remembers what depends on the kept inputs alone, as they are now.
    pub(super) fn prepare(&mut self) -> Result<()> {
        match &mut self.engine {
            Engine::Program {
                program,
                prologue: Some(prologue),
            } => prologue.prepare(program, &self.place),
            _ => Ok(()),
        }
    }

    /// Evaluates the network on what has been written to its inputs. Nothing is allocated when
    /// the kept inputs have values that they had before and no node is left to tract.
    pub(super) fn evaluate(&mut self) -> Result<()> {
        match &mut self.engine {
            Engine::Program { program, prologue } => {
                if let Some(prologue) = prologue {
                    prologue.prepare(program, &self.place)?;
                    prologue.recall(program);
                }
                evaluate(program, &self.place)
            }
            Engine::Reference {
                model,
                inputs,
                outputs,
            } => {
                let tensors = self.inputs.iter().zip(inputs.iter());
                let tensors = tensors.map(|(port, bytes)| tensor(port, bytes, &self.place));
                let values = model.run(tensors.collect::<Result<_>>()?)?;
                for ((output, value), port) in outputs.iter_mut().zip(&values).zip(&self.outputs) {
                    *output = computed_bytes(value, port.dtype, &self.place)?;
                }
                Ok(())
            }
        }
    }

    fn set_inputs(&mut self, arrays: &[Array]) -> Result<()> {
        assert_eq!(arrays.len(), self.inputs.len(), "one array per input");
        for (index, array) in arrays.iter().enumerate() {
            let port = &self.inputs[index];
            if (array.dtype(), array.shape()) != (port.dtype, port.shape.as_slice()) {
                return Err(Error::unexpected(
                    format!("{}: input `{}`", self.place, port.name),
                    format!("{} {:?}", port.dtype, port.shape),
                    format!("{} {:?}", array.dtype(), array.shape()),
                ));
            }
            match port.dtype {
                Dtype::F16 => {
                    let halves = array.data().chunks_exact(2);
                    let wide = halves.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
                    let target = self.input(index).chunks_exact_mut(4);
                    target
                        .zip(wide)
                        .for_each(|(to, value)| to.copy_from_slice(&value.to_le_bytes()));
                }
                _ => self.input(index).copy_from_slice(array.data()),
            }
        }
        Ok(())
    }
}

impl Prologue {
    /// Makes sure that the results for the inputs as they are now are known.
    fn prepare(&mut self, network: &mut Program, place: &str) -> Result<()> {
        self.key.clear();
        for &input in &self.inputs {
            self.key.extend_from_slice(network.input(input));
        }
        if self.known.contains_key(&self.key) {
            return Ok(());
        }
        for (own, &input) in self.inputs.iter().enumerate() {
            self.program
                .input(own)
                .copy_from_slice(network.input(input));
        }
        evaluate(&mut self.program, place)?;
        let outputs = (0..self.results.len()).map(|index| self.program.output(index));
        let bytes = outputs.collect::<Vec<_>>().concat();
        if (self.known.len() + 1) * bytes.len() > MOST_KEPT_BYTES {
            self.known.clear();
        }
        self.known.insert(self.key.clone(), bytes);
        Ok(())
    }

    /// Gives the results for the key to the network.
    fn recall(&self, network: &mut Program) {
        let mut bytes = self.known[&self.key].as_slice();
        for &result in &self.results {
            let input = network.input(result);
            let (own, rest) = bytes.split_at(input.len());
            input.copy_from_slice(own);
            bytes = rest;
        }
    }
}

/// Whether any weights lie in the file as fp16.
fn has_half_weights(graph: &GraphProto) -> bool {
    let weights = &graph.initializer;
    weights
        .iter()
        .any(|tensor| tensor.data_type == tensor_proto::DataType::Float16 as i32)
}

/// An engine, the shapes of its outputs, and the rewrites that were applied.
type Built = (Engine, Vec<Vec<usize>>, Vec<(&'static str, usize)>);

fn reference(
    proto: ModelProto,
    place: &str,
    inputs: &[Port],
    outputs: &[(String, Dtype)],
) -> Result<Built> {
    let model = tract::Model::load(proto, place)?;
    let bytes =
        |port: &Port| port.shape.iter().product::<usize>() * computed_dtype(port.dtype).bytes();
    let inputs = inputs.iter().map(|port| vec![0; bytes(port)]).collect();
    let (shapes, outputs) = (model.output_shapes.clone(), vec![Vec::new(); outputs.len()]);
    Ok((
        Engine::Reference {
            model: Box::new(model),
            inputs,
            outputs,
        },
        shapes,
        Vec::new(),
    ))
}

fn program(
    mut proto: ModelProto,
    place: &str,
    inputs: &[Port],
    isa: Isa,
    options: &Options,
) -> Result<Built> {
    let target = plan::Target {
        isa,
        threads: options.threads.max(1),
        place,
    };
    let prologue = match prologue::split(&mut proto, &options.kept) {
        None => None,
        Some(first) => Some(Box::new(load_prologue(first, &mut proto, inputs, target)?)),
    };
    let (graph, rewrites) = rewritten(proto, place)?;
    let outputs = graph.outputs.iter();
    let shapes = outputs.map(|id| graph.shape(*id).to_vec()).collect();
    let program = Box::new(guarded(place, "loaded", || Ok(plan(graph, target)))??);
    Ok((Engine::Program { program, prologue }, shapes, rewrites))
}

/// The graph of `proto`, ready to be planned, and the rewrites that were applied to it.
fn rewritten(proto: ModelProto, place: &str) -> Result<(Graph, Vec<(&'static str, usize)>)> {
    let mut graph = import(proto, place)?;
    verify(&graph, place)?;
    let rewrites = guarded(place, "loaded", || Ok(rewrite(&mut graph)))?;
    verify(&graph, place)?;
    Ok((graph, rewrites))
}

/// Runs all steps; a panic of tract's inside one becomes an error.
fn evaluate(program: &mut Program, place: &str) -> Result<()> {
    guarded(place, "evaluated", || {
        program.run();
        Ok(())
    })
}

/// Loads the prologue and makes its results inputs of the rest. It is small and runs once a step:
/// one thread is enough.
fn load_prologue(
    first: ModelProto,
    rest: &mut ModelProto,
    inputs: &[Port],
    target: plan::Target,
) -> Result<Prologue> {
    let index = |name: &str| inputs.iter().position(|port| port.name == name);
    let kept = graph::graph(&first).input.iter();
    let kept = kept.filter_map(|input| index(&input.name)).collect();
    let (graph, _) = rewritten(first, target.place)?;
    let rest = rest
        .graph
        .as_mut()
        .expect("decode refuses a model without a graph");
    let results = (inputs.len()..inputs.len() + graph.outputs.len()).collect();
    rest.input.extend(graph.outputs.iter().map(|id| {
        let value = graph.value(*id);
        typed_port(
            &value.name,
            graph::data_type_of(value.dtype) as i32,
            &value.shape,
        )
    }));
    let target = plan::Target {
        threads: 1,
        ..target
    };
    let program = guarded(target.place, "loaded", || Ok(plan(graph, target)))??;
    Ok(Prologue {
        program,
        inputs: kept,
        results,
        known: HashMap::new(),
        key: Vec::new(),
    })
}

/// Writes the shapes into the graph, and leaves only free inputs among its inputs.
fn fix_inputs(graph: &mut GraphProto, ports: &[Port]) {
    graph.input = (ports.iter())
        .map(|port| {
            let dtype = graph::data_type_of(computed_dtype(port.dtype));
            typed_port(&port.name, dtype as i32, &port.shape)
        })
        .collect();
}

/// The type that a port is computed in.
fn computed_dtype(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::F16 => Dtype::F32,
        other => other,
    }
}

fn tensor(port: &Port, bytes: &[u8], place: &str) -> Result<TValue> {
    guarded(place, "evaluated", || {
        let mut tensor = Tensor::zero_dt(computed_type(port.dtype), &port.shape)?;
        tensor
            .try_as_plain_ram_mut()?
            .as_bytes_mut()
            .copy_from_slice(bytes);
        Ok(tensor.into_tvalue())
    })
}

fn computed_bytes(value: &Tensor, dtype: Dtype, place: &str) -> Result<Vec<u8>> {
    guarded(place, "evaluated", || {
        let tensor = value.cast_to_dt(computed_type(dtype))?;
        Ok(tensor.try_as_plain_ram()?.as_bytes().to_vec())
    })
}

/// What was computed, in the port's own type.
fn narrow(port: &Port, bytes: &[u8]) -> Array {
    let data = match port.dtype {
        Dtype::F16 => {
            let words = bytes.as_chunks::<4>().0.iter();
            words
                .flat_map(|&w| f16::from_f32(f32::from_le_bytes(w)).to_le_bytes())
                .collect()
        }
        _ => bytes.to_vec(),
    };
    Array::new(port.dtype, port.shape.clone(), data)
}

fn input_ports(
    graph: &GraphProto,
    place: &str,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<Vec<Port>> {
    let ports = graph::free_inputs(graph).map(|value| {
        let (dtype, declared) = graph::port_type(value, place)?;
        let name = value.name.clone();
        let place = format!("{place}: input `{name}`");
        let fixed: Option<Vec<usize>> = declared.iter().copied().collect();
        let shape = match (fixed, shapes.get(&name)) {
            (Some(fixed), _) => fixed,
            (None, Some(given)) => fill(&declared, given, &place)?,
            (None, None) => {
                let expected = "a fixed shape, or one given with the inputs";
                return Err(Error::unexpected(&place, expected, Dims(&declared)));
            }
        };
        if bounded_bytes(shape.iter().copied(), dtype.bytes()).is_none() {
            return Err(Error::unexpected(
                &place,
                "at most 1 GiB",
                format!("shape {shape:?}"),
            ));
        }
        Ok(Port { name, dtype, shape })
    });
    ports.collect()
}

/// `shape`, if it agrees with every dimension that the file declares.
fn fill(declared: &[Option<usize>], shape: &[usize], place: &str) -> Result<Vec<usize>> {
    let agrees = declared.len() == shape.len()
        && declared
            .iter()
            .zip(shape)
            .all(|(declared, &dim)| declared.is_none_or(|d| d == dim));
    if agrees {
        return Ok(shape.to_vec());
    }
    Err(Error::unexpected(
        place,
        format!("shape {}", Dims(declared)),
        format!("{shape:?}"),
    ))
}

/// A shape with free dimensions, as `[1, 3, ?, ?]`.
struct Dims<'a>(&'a [Option<usize>]);

impl std::fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let dims = self
            .0
            .iter()
            .map(|dim| dim.map_or("?".into(), |dim| dim.to_string()));
        write!(f, "[{}]", dims.collect::<Vec<_>>().join(", "))
    }
}

fn output_dtypes(graph: &GraphProto, place: &str) -> Result<Vec<(String, Dtype)>> {
    let outputs = graph.output.iter();
    outputs
        .map(|value| Ok((value.name.clone(), graph::port_type(value, place)?.0)))
        .collect()
}
