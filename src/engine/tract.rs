//! What is left to tract: whole graphs, and nodes without an operator of ours.

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use tract_onnx::onnx;
use tract_onnx::pb::{GraphProto, ModelProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::format_err;
use tract_onnx::tract_core::model::TypedSimpleState;

use super::dequantize::keep_dequantize;
use super::graph::{data_type_of, typed_port};
use super::ir::{Graph, Node, Op, ValueId};
use super::operators::{Memory, Operator, Scratch};
use super::pool::THREAD_NAME;
use super::registers::clear_upper_halves;
use crate::error::{Error, Result};
use crate::npz::Dtype;

/// A model that tract has loaded and optimised, with its one plan state.
#[derive(Debug)]
pub(super) struct Model {
    state: TypedSimpleState,
    /// The shape of every output.
    pub output_shapes: Vec<Vec<usize>>,
    place: String,
}

impl Model {
    /// Loads a model whose free inputs all have fixed shapes.
    pub fn load(proto: ModelProto, place: &str) -> Result<Self> {
        let (state, output_shapes) = guarded(place, "loaded", || {
            let framework = onnx().with_ignore_value_info(true);
            let model = framework.model_for_proto_model(&proto)?;
            drop(proto);
            let mut typed = model.into_typed()?;
            keep_dequantize(&mut typed)?;
            let optimized = typed.into_optimized()?;
            let shape = |outlet: &OutletId| {
                let fact = optimized.outlet_fact(*outlet)?;
                let shape = fact.shape.as_concrete().map(<[usize]>::to_vec);
                shape.ok_or_else(|| format_err!("an output without a fixed shape"))
            };
            let shapes = optimized
                .outputs
                .iter()
                .map(shape)
                .collect::<TractResult<_>>()?;
            Ok((TypedSimplePlan::new(optimized)?.spawn()?, shapes))
        })?;
        Ok(Self {
            state,
            output_shapes,
            place: place.to_owned(),
        })
    }

    /// Runs the model once.
    pub fn run(&mut self, inputs: TVec<TValue>) -> Result<TVec<TValue>> {
        let outputs = guarded(&self.place, "evaluated", || self.state.run(inputs));
        clear_upper_halves();
        outputs
    }
}

/// One node that tract computes, among operators of our own.
#[derive(Debug)]
pub(super) struct Island {
    model: Mutex<Model>,
    op_type: String,
    inputs: Vec<(Dtype, Vec<usize>)>,
    outputs: Vec<(Dtype, Vec<usize>)>,
    /// The values that it reads anew on every evaluation.
    pub variables: Vec<ValueId>,
}

impl Island {
    /// Makes a model of the one node; the constants it reads go into the model.
    pub fn load(graph: &Graph, node: &Node, place: &str) -> Result<Self> {
        let Op::Tract(proto) = &node.op else {
            unreachable!("other nodes have operators")
        };
        let port = |id: &ValueId| {
            let value = graph.value(*id);
            (value.dtype, value.shape.clone())
        };
        let mut names: HashSet<&str> = HashSet::new();
        let distinct = node
            .inputs
            .iter()
            .filter(|id| names.insert(&graph.value(**id).name));
        let distinct: Vec<_> = distinct.copied().collect();
        let (constants, variables): (Vec<_>, Vec<_>) = distinct
            .into_iter()
            .partition(|id| graph.constant(*id).is_some());
        let info = |id: &ValueId| -> ValueInfoProto {
            let value = graph.value(*id);
            typed_port(&value.name, data_type_of(value.dtype) as i32, &value.shape)
        };
        let initializer = constants.iter().map(|id| {
            let value = graph.value(*id);
            TensorProto {
                name: value.name.clone(),
                dims: value.shape.iter().map(|&dim| dim as i64).collect(),
                data_type: data_type_of(value.dtype) as i32,
                raw_data: value.constant.clone().map(|c| c.bytes).unwrap_or_default(),
                ..TensorProto::default()
            }
        });
        // Rewrites may have put other values in the place of those that the file names.
        let mut proto = proto.clone();
        let given = proto.input.iter_mut().filter(|name| !name.is_empty());
        for (name, id) in given.zip(&node.inputs) {
            name.clone_from(&graph.value(*id).name);
        }
        let op_type = proto.op_type.clone();
        let model = ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: graph.opset,
            }],
            graph: Some(GraphProto {
                name: node.name.clone(),
                node: vec![*proto],
                initializer: initializer.collect(),
                input: variables.iter().map(info).collect(),
                output: node.outputs.iter().map(info).collect(),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        Ok(Self {
            model: Mutex::new(Model::load(
                model,
                &format!("{place}: node `{}`", node.name),
            )?),
            op_type,
            inputs: variables.iter().map(port).collect(),
            outputs: node.outputs.iter().map(port).collect(),
            variables,
        })
    }
}

/// An island whose operands have their places.
#[derive(Debug)]
struct Placed {
    island: Island,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

impl Island {
    /// The operator that reads its inputs and writes its outputs at these bytes, row-major.
    pub fn at(self, inputs: Vec<usize>, outputs: Vec<usize>) -> impl Operator {
        Placed {
            island: self,
            inputs,
            outputs,
        }
    }
}

impl Operator for Placed {
    fn phases(&self) -> &[usize] {
        &[1]
    }

    unsafe fn run(&self, _phase: usize, _task: usize, memory: Memory, _scratch: Scratch) {
        let island = &self.island;
        let inputs = island
            .inputs
            .iter()
            .zip(&self.inputs)
            .map(|((dtype, shape), &offset)| {
                let mut tensor = Tensor::zero_dt(computed_type(*dtype), shape)?;
                let mut plain = tensor.try_as_plain_ram_mut()?;
                let bytes = plain.as_bytes_mut();
                // SAFETY: the plan gave the input these bytes, and nobody writes them meanwhile.
                let source =
                    unsafe { std::slice::from_raw_parts(memory.at::<u8>(offset), bytes.len()) };
                bytes.copy_from_slice(source);
                Ok(tensor.into_tvalue())
            });
        let mut model = island
            .model
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let inputs = inputs.collect::<TractResult<TVec<TValue>>>();
        let outputs = inputs.map_err(|error| error.to_string());
        let outputs =
            outputs.and_then(|inputs| model.run(inputs).map_err(|error| error.to_string()));
        // The program catches the panic and makes an error of it.
        let outputs = outputs.unwrap_or_else(|reason| panic!("{reason}"));
        for ((value, (dtype, _)), &offset) in outputs.iter().zip(&island.outputs).zip(&self.outputs)
        {
            let value = value
                .cast_to_dt(computed_type(*dtype))
                .expect("numbers cast to numbers");
            let plain = value.try_as_plain_ram().expect("a tensor in memory");
            let bytes = plain.as_bytes();
            // SAFETY: the plan gave the output these bytes, and nobody else touches them meanwhile.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.at(offset), bytes.len())
            };
        }
    }

    fn bytes(&self) -> u64 {
        let ports = self.island.inputs.iter().chain(&self.island.outputs);
        ports
            .map(|(dtype, shape)| (dtype.bytes() * shape.iter().product::<usize>()) as u64)
            .sum()
    }

    fn describe(&self) -> String {
        format!("tract {}", self.island.op_type)
    }
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside the engine, where a panic becomes an [`Error`]: a panic hook
/// that asks can stay quiet about it.
pub fn is_evaluating() -> bool {
    let is_worker = |name: &str| name.starts_with(THREAD_NAME) && name != THREAD_NAME;
    INSIDE.get() || std::thread::current().name().is_some_and(is_worker)
}

/// Runs `work` with tract in it: its errors, and its panics on graphs it did not foresee, become
/// one sentence about `place`.
pub(super) fn guarded<T>(
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

/// The element type of an array, where arrays have it.
pub(super) fn npz_type(datum_type: DatumType) -> Option<Dtype> {
    Some(match datum_type.unquantized() {
        DatumType::F32 => Dtype::F32,
        DatumType::F64 => Dtype::F64,
        DatumType::I8 => Dtype::I8,
        DatumType::U8 => Dtype::U8,
        DatumType::I16 => Dtype::I16,
        DatumType::U16 => Dtype::U16,
        DatumType::I32 => Dtype::I32,
        DatumType::I64 | DatumType::TDim => Dtype::I64,
        DatumType::Bool => Dtype::Bool,
        _ => return None,
    })
}
