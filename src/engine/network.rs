//! Any ONNX graph, ready to run: inputs and outputs by name, one live plan state.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use half::f16;
use tract_linalg::multithread::Executor;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::model::TypedSimpleState;
use tract_onnx::tract_core::plan;
use tract_onnx::tract_core::runtime::RunOptions;

use super::dequantize::keep_dequantize;
use super::graph::{self, bounded_bytes};
use super::legalize::legalize;
use super::registers::clear_upper_halves;
use crate::error::{Error, Result};
use crate::npz::{Array, Dtype};

/// How a network is prepared.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads of one evaluation, at least 1. The result does not depend on it.
    pub threads: usize,
    /// Shapes for inputs whose dimensions the file leaves free.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: default_threads(),
            shapes: BTreeMap::new(),
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

/// Where the time of an evaluation goes: one node of the optimised graph.
#[derive(Debug, Clone)]
pub struct NodeProfile {
    /// The node's name, made from the name in the file.
    pub name: String,
    /// The operator's name.
    pub op: String,
    /// The sum over all rounds.
    pub elapsed: Duration,
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
    state: TypedSimpleState,
}

impl Network {
    /// Loads `bytes`, fixes the shapes, optimises the graph and spawns its one plan state.
    ///
    /// `place` is the file's name for the errors.
    ///
    /// # Errors
    ///
    /// When the bytes are no ONNX model that this engine can run; when an input has a free
    /// dimension and [`Options::shapes`] does not name it.
    pub fn load(bytes: &[u8], place: &str, options: &Options) -> Result<Self> {
        let mut proto = graph::decode(bytes, place)?;
        let inputs = input_ports(graph::graph(&proto), place, &options.shapes)?;
        let named_outputs = output_dtypes(graph::graph(&proto), place)?;
        legalize(&mut proto, place)?;
        let model = guarded(place, "loaded", || {
            let framework = onnx().with_ignore_value_info(true);
            let mut model = framework.model_for_proto_model(&proto)?;
            drop(proto);
            for (index, port) in inputs.iter().enumerate() {
                let fact = InferenceFact::dt_shape(computed_type(port.dtype), &port.shape);
                model.set_input_fact(index, fact)?;
            }
            let mut typed = model.into_typed()?;
            keep_dequantize(&mut typed)?;
            Ok(typed)
        })?;
        let output_shapes = check_sizes(&model, place)?;
        let state = guarded(place, "loaded", || {
            let optimized = model.into_optimized()?;
            let executor = match options.threads {
                0 | 1 => Executor::SingleThread,
                threads => Executor::multithread_with_name(threads, THREAD_NAME),
            };
            let run_options = RunOptions {
                executor: Some(executor),
                ..RunOptions::default()
            };
            TypedSimplePlan::new_with_options(optimized, &run_options)?.spawn()
        })?;
        let outputs = named_outputs
            .into_iter()
            .zip(output_shapes)
            .map(|((name, dtype), shape)| Port { name, dtype, shape })
            .collect();
        Ok(Self {
            place: place.to_owned(),
            inputs,
            outputs,
            state,
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

    /// Evaluates the network on one array per input, in order; one array per output comes back.
    ///
    /// # Errors
    ///
    /// When an array has another element type or shape than its input, or the engine fails.
    pub fn run(&mut self, inputs: &[Array]) -> Result<Vec<Array>> {
        let tensors = self.tensors(inputs)?;
        let outputs = self.evaluate(tensors)?;
        let ports = self.outputs.iter().zip(outputs);
        ports
            .map(|(port, value)| array_of(&value, port.dtype, &self.place))
            .collect()
    }

    /// Evaluates the network `rounds` times and adds up the time of every node.
    ///
    /// # Errors
    ///
    /// As [`Network::run`].
    pub fn profile(&mut self, inputs: &[Array], rounds: usize) -> Result<Vec<NodeProfile>> {
        let tensors = self.tensors(inputs)?;
        let mut elapsed: BTreeMap<usize, NodeProfile> = BTreeMap::new();
        let Self { place, state, .. } = self;
        for _ in 0..rounds {
            guarded(place, "evaluated", || {
                state.run_plan_with_eval(tensors.clone(), |ctx, op_state, node, values| {
                    let start = Instant::now();
                    let result = plan::eval(ctx, op_state, node, values);
                    let entry = elapsed.entry(node.id).or_insert_with(|| NodeProfile {
                        name: node.name.clone(),
                        op: node.op().name().into_owned(),
                        elapsed: Duration::ZERO,
                    });
                    entry.elapsed += start.elapsed();
                    result
                })
            })?;
        }
        Ok(elapsed.into_values().collect())
    }

    /// Evaluates the network on tensors of the types and shapes of [`Network::inputs`].
    pub(super) fn evaluate(&mut self, inputs: TVec<TValue>) -> Result<TVec<TValue>> {
        let outputs = guarded(&self.place, "evaluated", || self.state.run(inputs));
        clear_upper_halves();
        outputs
    }

    fn tensors(&self, inputs: &[Array]) -> Result<TVec<TValue>> {
        assert_eq!(inputs.len(), self.inputs.len(), "one array per input");
        let pairs = self.inputs.iter().zip(inputs);
        pairs
            .map(|(port, array)| self.tensor(port, array).map(Into::into))
            .collect()
    }

    fn tensor(&self, port: &Port, array: &Array) -> Result<Tensor> {
        if (array.dtype(), array.shape()) != (port.dtype, port.shape.as_slice()) {
            return Err(Error::unexpected(
                format!("{}: input `{}`", self.place, port.name),
                format!("{} {:?}", port.dtype, port.shape),
                format!("{} {:?}", array.dtype(), array.shape()),
            ));
        }
        guarded(&self.place, "evaluated", || {
            let mut tensor = Tensor::zero_dt(computed_type(port.dtype), &port.shape)?;
            let wide: Vec<u8>;
            let data = match port.dtype {
                Dtype::F16 => {
                    let halves = array.data().chunks_exact(2);
                    let halves = halves.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
                    wide = halves.flat_map(f32::to_le_bytes).collect();
                    &wide
                }
                _ => array.data(),
            };
            tensor
                .try_as_plain_ram_mut()?
                .as_bytes_mut()
                .copy_from_slice(data);
            Ok(tensor)
        })
    }
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The name of the threads that evaluate networks.
const THREAD_NAME: &str = "driftglass";

/// Whether this thread is inside the engine, where a panic becomes an [`Error`]: a panic hook
/// that asks can stay quiet about it.
pub fn is_evaluating() -> bool {
    let is_worker = |name: &str| name.starts_with(THREAD_NAME);
    INSIDE.get() || std::thread::current().name().is_some_and(is_worker)
}

/// Runs `work` inside tract: its errors, and its panics on graphs it did not foresee, become one
/// sentence about `place`.
fn guarded<T>(
    place: &str,
    action: &'static str,
    work: impl FnOnce() -> TractResult<T>,
) -> Result<T> {
    let was_inside = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(was_inside);
    let reason = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => (panic.downcast_ref::<String>().map(String::as_str))
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("the engine panicked")
            .to_owned(),
    };
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(Error::Network {
        place: place.to_owned(),
        action,
        reason,
    })
}

fn input_ports(
    graph: &tract_onnx::pb::GraphProto,
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

fn output_dtypes(graph: &tract_onnx::pb::GraphProto, place: &str) -> Result<Vec<(String, Dtype)>> {
    let outputs = graph.output.iter();
    outputs
        .map(|value| Ok((value.name.clone(), graph::port_type(value, place)?.0)))
        .collect()
}

/// Every computed tensor must have a fixed shape below the size limit; the outputs' shapes.
fn check_sizes(model: &TypedModel, place: &str) -> Result<Vec<Vec<usize>>> {
    for node in model.nodes() {
        for output in &node.outputs {
            let place = || format!("{place}: node `{}`", node.name);
            let shape = output.fact.shape.as_concrete().ok_or_else(|| {
                Error::unexpected(place(), "a fixed shape", format!("{:?}", output.fact.shape))
            })?;
            let item_bytes = output.fact.datum_type.size_of();
            if bounded_bytes(shape.iter().copied(), item_bytes).is_none() {
                let found = format!("shape {shape:?}");
                return Err(Error::unexpected(
                    place(),
                    "a tensor of at most 1 GiB",
                    found,
                ));
            }
        }
    }
    let shape = |outlet: &OutletId| model.outlet_fact(*outlet).ok()?.shape.as_concrete();
    let outlets = model.outputs.iter();
    let shapes = outlets.map(|outlet| shape(outlet).expect("every shape was found fixed").to_vec());
    Ok(shapes.collect())
}

/// The type tract computes with: fp16 is widened by `legalize`.
pub(super) fn computed_type(dtype: Dtype) -> DatumType {
    match dtype {
        Dtype::F16 | Dtype::F32 => DatumType::F32,
        Dtype::F64 => DatumType::F64,
        Dtype::I8 => DatumType::I8,
        Dtype::U8 => DatumType::U8,
        Dtype::I16 => DatumType::I16,
        Dtype::U16 => DatumType::U16,
        Dtype::I32 => DatumType::I32,
        Dtype::I64 => DatumType::I64,
        Dtype::Bool => DatumType::Bool,
    }
}

fn array_of(value: &Tensor, dtype: Dtype, place: &str) -> Result<Array> {
    guarded(place, "evaluated", || {
        let tensor = value.cast_to_dt(computed_type(dtype))?;
        let plain = tensor.try_as_plain_ram()?;
        let data = match dtype {
            Dtype::F16 => {
                let values = plain.as_slice::<f32>()?.iter();
                values
                    .flat_map(|&value| f16::from_f32(value).to_le_bytes())
                    .collect()
            }
            _ => plain.as_bytes().to_vec(),
        };
        Ok(Array::new(dtype, value.shape().to_vec(), data))
    })
}
