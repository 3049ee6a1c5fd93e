//! Every shape of a [`Graph`] must follow from its nodes.
//!
//! The kernels take shapes at their word. A file may say anything, and tract's analysis is of the
//! file; what is planned is checked here, in one place, after the import and after the rewrites.

use super::ir::{Convolution, Graph, Node, Op};
use crate::error::{Error, Result};

/// Checks every node and every constant.
///
/// # Errors
///
/// When a node's shapes contradict what it computes; `place` is the file's name.
pub(super) fn verify(graph: &Graph, place: &str) -> Result<()> {
    for value in &graph.values {
        let expected = value.len() * value.dtype.bytes();
        if let Some(constant) = value
            .constant
            .as_ref()
            .filter(|c| c.bytes.len() != expected)
        {
            let found = format!("{} bytes", constant.bytes.len());
            let place = format!("{place}: `{}`", value.name);
            return Err(Error::unexpected(place, format!("{expected} bytes"), found));
        }
    }
    match graph.nodes.iter().find(|node| fits(graph, node).is_none()) {
        None => Ok(()),
        Some(node) => {
            let shapes = node
                .inputs
                .iter()
                .chain(&node.outputs)
                .map(|id| graph.shape(*id));
            Err(Error::unexpected(
                format!("{place}: node `{}`", node.name),
                "shapes that fit each other",
                format!("{:?}", shapes.collect::<Vec<_>>()),
            ))
        }
    }
}

/// `Some` if the node's output has the shape that its inputs ask for.
fn fits(graph: &Graph, node: &Node) -> Option<()> {
    if let Op::Tract(_) = node.op {
        return Some(());
    }
    let output = graph.shape(*node.outputs.first()?);
    let input = |index: usize| node.inputs.get(index).map(|id| graph.shape(*id));
    let x = input(0)?;
    let bias_fits =
        |outputs: usize| input(2).is_none_or(|b| b.iter().product::<usize>() == outputs);
    let ok = match &node.op {
        Op::Conv(convolution) => {
            let &[outputs, channels, kh, kw] = input(1)? else {
                return None;
            };
            let &[n, c, h, w] = x else { return None };
            let [oh, ow] = convolved(convolution, [h, w])?;
            channels == c
                && convolution.kernel == [kh, kw]
                && output == [n, outputs, oh, ow]
                && bias_fits(outputs)
        }
        Op::Linear { transposed } => {
            let &[a, b] = input(1)? else { return None };
            let (n, k) = if *transposed { (b, a) } else { (a, b) };
            let (rows, last) = (x.split_last()?.1, *x.last()?);
            last == k && output.split_last()? == (&n, rows) && bias_fits(n)
        }
        Op::MatMul => {
            let ([a @ .., m, k], [b @ .., k2, n]) = (x, input(1)?) else {
                return None;
            };
            k == k2 && a == b && *output == [a, &[*m, *n]].concat()
        }
        Op::Attention { .. } => {
            let ([a @ .., n, d], [b @ .., m, d2], [c @ .., m2, dv]) = (x, input(1)?, input(2)?)
            else {
                return None;
            };
            (d, d, m, a, a) == (d2, dv, m2, b, c) && *output == [a, &[*n, *dv]].concat()
        }
        Op::Normalize(norm) => {
            let channels = *x.get(1)?;
            let each = [norm.scale.len(), norm.shift.len()] == [channels; 2];
            norm.groups > 0 && channels % norm.groups == 0 && each && output == x
        }
        Op::Softmax => !x.is_empty() && output == x,
        Op::Unary(_) | Op::Quantize(_) | Op::Dequantize(_) => output == x,
        Op::Binary(_) => [x, input(1)?].iter().all(|x| repeats(x, output)),
        Op::Reshape => output.iter().product::<usize>() == x.iter().product::<usize>(),
        Op::Transpose { perm } => {
            let mut axes = perm.clone();
            axes.sort_unstable();
            axes.into_iter().eq(0..x.len())
                && perm.iter().map(|&axis| x[axis]).eq(output.iter().copied())
        }
        Op::Slice { starts } => {
            let ends = starts
                .iter()
                .zip(output)
                .map(|(start, extent)| start + extent);
            starts.len() == x.len()
                && output.len() == x.len()
                && ends.zip(x).all(|(e, &dim)| e <= dim)
        }
        Op::Select { axis, index } => {
            let mut rest = x.to_vec();
            *axis < x.len() && *index < rest.remove(*axis) && output == rest
        }
        Op::Concat { axis } => {
            let parts: Vec<&[usize]> = node.inputs.iter().map(|id| graph.shape(*id)).collect();
            let alike = |part: &&[usize]| {
                part.len() == output.len()
                    && (0..part.len()).all(|a| a == *axis || part[a] == output[a])
            };
            parts.iter().all(alike)
                && parts.iter().map(|part| part[*axis]).sum::<usize>() == *output.get(*axis)?
        }
        Op::Upsample { factor } => {
            let &[n, c, h, w] = x else { return None };
            output == [n, c, h.checked_mul(*factor)?, w.checked_mul(*factor)?]
        }
        Op::Pad {
            padding: [top, left, bottom, right],
        } => {
            let &[n, c, h, w] = x else { return None };
            output == [n, c, sum([h, *top, *bottom])?, sum([w, *left, *right])?]
        }
        Op::DequantizeWeights { scale, zero, axis } => {
            let scales = scale.len() == 1 || scale.len() == *x.get(*axis)?;
            scales && zero.as_ref().is_none_or(|zero| zero.len() == scale.len()) && output == x
        }
        Op::Tract(_) => true,
    };
    let nothing_empty = output.iter().all(|&dim| dim > 0);
    (ok && nothing_empty).then_some(())
}

/// The height and width that a convolution makes of others.
fn convolved(convolution: &Convolution, size: [usize; 2]) -> Option<[usize; 2]> {
    let Convolution {
        kernel,
        stride,
        padding,
        upsample,
    } = convolution;
    let axis = |i: usize| {
        let enlarged = size[i].checked_mul(*upsample)?;
        let rest = sum([enlarged, padding[i], padding[i + 2]])?.checked_sub(kernel[i])?;
        Some(rest.checked_div(stride[i])? + 1).filter(|_| kernel[i] > 0)
    };
    Some([axis(0)?, axis(1)?])
}

fn sum(terms: [usize; 3]) -> Option<usize> {
    terms.into_iter().try_fold(0, usize::checked_add)
}

/// Whether a tensor of `shape` can be repeated to `target`, as ONNX does.
fn repeats(shape: &[usize], target: &[usize]) -> bool {
    let missing = target.len().checked_sub(shape.len());
    missing.is_some_and(|missing| {
        let axes = shape.iter().zip(&target[missing..]);
        axes.into_iter().all(|(&own, &dim)| own == dim || own == 1)
    })
}
