//! What depends on the time step and the class alone is computed once.
//!
//! The nodes between those inputs and the rest of the network become a model of their own, run
//! once per kept step, before the first one; in the network that is left, what they compute are
//! inputs.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// Takes the prologue out of `proto`: the nodes that depend on inputs called one of `names`, and
/// on no other input. `None` where there are none of them.
///
/// The outputs of the prologue that the rest reads are its outputs, in their order. They are not
/// yet inputs of the rest: their shapes are not known.
pub(super) fn split(proto: &mut ModelProto, names: &[String]) -> Option<ModelProto> {
    let graph = proto.graph.as_mut()?;
    let (mut early, mut late) = (HashSet::new(), HashSet::new());
    for input in super::graph::free_inputs(graph) {
        let known = names.contains(&input.name);
        if known { &mut early } else { &mut late }.insert(input.name.clone());
    }
    let (mut first, mut rest): (Vec<NodeProto>, Vec<NodeProto>) = (Vec::new(), Vec::new());
    for node in std::mem::take(&mut graph.node) {
        let reads = |names: &HashSet<String>| node.input.iter().any(|name| names.contains(name));
        // A subgraph may read anything.
        let closed = node
            .attribute
            .iter()
            .all(|a| a.g.is_none() && a.graphs.is_empty());
        let is_first = reads(&early) && !reads(&late) && closed;
        if is_first {
            early.extend(node.output.iter().cloned());
            first.push(node);
        } else {
            if reads(&late) || reads(&early) || !closed {
                late.extend(node.output.iter().cloned());
            }
            rest.push(node);
        }
    }
    // Constants may be computed by nodes; those that the prologue reads go with it as well.
    let constants = closure(&rest, &first, &late);
    graph.node = rest;
    if first.is_empty() {
        return None;
    }
    let inner: HashSet<&String> = first.iter().flat_map(|node| &node.output).collect();
    let mut needed: Vec<String> = Vec::new();
    let read = graph.node.iter().flat_map(|node| &node.input);
    for name in read.chain(graph.output.iter().map(|output| &output.name)) {
        if inner.contains(name) && !needed.contains(name) {
            needed.push(name.clone());
        }
    }
    let constants: Vec<NodeProto> = graph
        .node
        .iter()
        .filter(|node| constants.contains(&node.output[0]))
        .cloned()
        .collect();
    first.splice(0..0, constants);
    let initializer = move_initializers(graph, &first);
    let input = graph
        .input
        .iter()
        .filter(|input| names.contains(&input.name))
        .cloned();
    let output = needed.into_iter().map(|name| ValueInfoProto {
        name,
        ..Default::default()
    });
    let prologue = GraphProto {
        name: "prologue".into(),
        input: input.collect(),
        output: output.collect(),
        node: first,
        initializer,
        ..GraphProto::default()
    };
    Some(ModelProto {
        graph: Some(prologue),
        ..header(proto)
    })
}

/// The model without its graph.
fn header(proto: &ModelProto) -> ModelProto {
    ModelProto {
        ir_version: proto.ir_version,
        opset_import: proto.opset_import.clone(),
        ..ModelProto::default()
    }
}

/// The first outputs of those nodes of `rest` that `first` reads, directly or through others, and
/// that depend on no input.
fn closure(rest: &[NodeProto], first: &[NodeProto], late: &HashSet<String>) -> HashSet<String> {
    let makers: HashMap<&str, &NodeProto> = rest
        .iter()
        .flat_map(|node| node.output.iter().map(move |o| (o.as_str(), node)))
        .collect();
    let mut found = HashSet::new();
    let mut pending: Vec<&str> = first
        .iter()
        .flat_map(|n| &n.input)
        .map(String::as_str)
        .collect();
    while let Some(name) = pending.pop() {
        let Some(node) = makers.get(name).filter(|_| !late.contains(name)) else {
            continue;
        };
        if found.insert(node.output[0].clone()) {
            pending.extend(node.input.iter().map(String::as_str));
        }
    }
    found
}

/// The initializers that `nodes` read: moved out of `graph`, or copied where it reads them too.
fn move_initializers(graph: &mut GraphProto, nodes: &[NodeProto]) -> Vec<TensorProto> {
    let wanted: HashSet<&str> = nodes
        .iter()
        .flat_map(|n| &n.input)
        .map(String::as_str)
        .collect();
    let kept: HashSet<&str> = graph
        .node
        .iter()
        .flat_map(|n| &n.input)
        .map(String::as_str)
        .collect();
    let (mut moved, mut left) = (Vec::new(), Vec::new());
    for tensor in std::mem::take(&mut graph.initializer) {
        let name = tensor.name.as_str();
        match (wanted.contains(name), kept.contains(name)) {
            (true, false) => moved.push(tensor),
            (true, true) => {
                moved.push(tensor.clone());
                left.push(tensor);
            }
            _ => left.push(tensor),
        }
    }
    graph.initializer = left;
    moved
}
