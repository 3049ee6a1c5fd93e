//! The network of a model package as a [`Denoiser`].

use std::sync::Arc;

use ndarray::{ArrayView4, ArrayViewMut4, Axis};
use tract_onnx::prelude::*;

use super::network::{Network, Options, Port};
use crate::diffusion::{Conditioning, Denoiser, Timestep};
use crate::error::{Error, Result};
use crate::model::{Manifest, Package, Precision};
use crate::npz::Dtype;

/// A U-Net that predicts ε, v or x0, bound to its inputs by the manifest's names.
pub struct UNet {
    network: Network,
    timestep_scale: f64,
    sample: usize,
    timestep: usize,
    class: Option<usize>,
    output: usize,
    /// Channels of the output: c, or 2c with learned variance.
    output_channels: usize,
    /// One tensor per input, filled again for every evaluation.
    inputs: Vec<Arc<Tensor>>,
}

impl UNet {
    /// Loads the network of `package` in `precision`.
    ///
    /// # Errors
    ///
    /// When the package has no such file or its bytes are not the manifest's; as [`UNet::load`].
    pub fn open(package: &Package, precision: Precision, threads: usize) -> Result<Self> {
        let bytes = package.network_bytes(precision)?;
        let place = package.network_place(precision)?;
        Self::load(&bytes, &place, package.manifest(), threads)
    }

    /// Loads the network in `bytes` and finds the manifest's inputs and output in it.
    ///
    /// `place` is the file's name for the errors; `threads` those of one evaluation.
    ///
    /// # Errors
    ///
    /// As [`Network::load`]; when an input or the output that the manifest names is missing, has
    /// another shape, or there is an input that the manifest does not name.
    pub fn load(bytes: &[u8], place: &str, manifest: &Manifest, threads: usize) -> Result<Self> {
        let image = manifest.image;
        let sample_shape = vec![1, image.channels, image.height, image.width];
        let ports = &manifest.network;
        let mut shapes = vec![(ports.sample.clone(), sample_shape.clone())];
        let vectors = [Some(&ports.timestep), ports.class.as_ref()];
        shapes.extend(
            vectors
                .into_iter()
                .flatten()
                .map(|name| (name.clone(), vec![1])),
        );
        let options = Options {
            threads,
            shapes: shapes.into_iter().collect(),
        };
        let network = Network::load(bytes, place, &options)?;

        let sample = input_index(&network, &ports.sample)?;
        expect_port(
            &network.inputs()[sample],
            place,
            &[Dtype::F32, Dtype::F16],
            &[&sample_shape],
        )?;
        let timestep = input_index(&network, &ports.timestep)?;
        let numbers = [Dtype::I64, Dtype::I32, Dtype::F32, Dtype::F16, Dtype::F64];
        expect_port(&network.inputs()[timestep], place, &numbers, &[&[], &[1]])?;
        let scale = manifest.network.timestep_scale;
        let whole = [Dtype::I64, Dtype::I32].contains(&network.inputs()[timestep].dtype);
        if whole && scale.fract() != 0.0 {
            let place = format!("{place}: network.timestep-scale");
            let expected = "a whole number for an input of whole numbers";
            return Err(Error::unexpected(place, expected, scale));
        }
        let class = ports
            .class
            .as_ref()
            .map(|name| input_index(&network, name))
            .transpose()?;
        if let Some(class) = class {
            expect_port(&network.inputs()[class], place, &numbers[..2], &[&[], &[1]])?;
        }
        let named = [Some(sample), Some(timestep), class];
        let extra = (0..network.inputs().len()).find(|index| !named.contains(&Some(*index)));
        if let Some(extra) = extra {
            let found = format!("`{}` as well", network.inputs()[extra].name);
            return Err(Error::unexpected(
                place,
                "only the inputs of the manifest",
                found,
            ));
        }
        let (output, output_channels) = find_output(&network, &ports.output, &sample_shape)?;
        let inputs = network
            .inputs()
            .iter()
            .map(|port| Arc::new(input_tensor(port)))
            .collect();
        Ok(Self {
            timestep_scale: scale,
            network,
            sample,
            timestep,
            class,
            output,
            output_channels,
            inputs,
        })
    }

    /// Channels of the network's answer: c, or 2c with learned variance.
    pub fn output_channels(&self) -> usize {
        self.output_channels
    }

    /// The network behind it.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    fn set_sample(&mut self, x: ArrayView4<f32>) {
        // The plan drops its inputs when it is done, so that this writes in place.
        let tensor = Arc::make_mut(&mut self.inputs[self.sample]);
        let mut values = tensor
            .to_plain_array_view_mut::<f32>()
            .expect("the type was checked");
        values.assign(&x.into_dyn());
    }

    fn set_number(&mut self, input: usize, value: f64) {
        // A scalar or a vector of one: a fresh tensor of a few bytes is as cheap as filling one.
        let number = Tensor::from(value);
        let cast = number.cast_to_dt(self.inputs[input].datum_type());
        let cast = cast.expect("f64 casts to every number").into_owned();
        let shaped = cast.into_shape(self.inputs[input].shape());
        self.inputs[input] = Arc::new(shaped.expect("one item is one item"));
    }
}

impl Denoiser for UNet {
    /// Evaluates the pictures of the batch one after another: the graph's batch is 1.
    ///
    /// # Panics
    ///
    /// When `out` has neither c nor the network's own number of channels, or a conditional network
    /// gets no class.
    fn predict(
        &mut self,
        x: ArrayView4<f32>,
        t: Timestep,
        cond: &Conditioning,
        mut out: ArrayViewMut4<f32>,
    ) -> Result<()> {
        self.set_number(self.timestep, t.0 as f64 * self.timestep_scale);
        if let Some(input) = self.class {
            let class = cond.class.expect("a conditional network is given a class");
            self.set_number(input, class as f64);
        }
        for (image, answer) in x
            .axis_chunks_iter(Axis(0), 1)
            .zip(out.axis_chunks_iter_mut(Axis(0), 1))
        {
            self.set_sample(image);
            let inputs = self
                .inputs
                .iter()
                .map(|tensor| tensor.clone().into_tvalue())
                .collect();
            let outputs = self.network.evaluate(inputs)?;
            let values = outputs[self.output].to_plain_array_view::<f32>();
            let values = values.expect("the output's type was checked");
            // A caller that ignores the learned variance takes the first half.
            let kept = values.slice_axis(Axis(1), (0..answer.len_of(Axis(1))).into());
            answer.into_dyn().assign(&kept);
        }
        Ok(())
    }
}

fn input_index(network: &Network, name: &str) -> Result<usize> {
    network
        .inputs()
        .iter()
        .position(|port| port.name == name)
        .ok_or_else(|| {
            let found = names(network.inputs());
            Error::unexpected(network.place(), format!("an input `{name}`"), found)
        })
}

fn find_output(network: &Network, name: &str, sample: &[usize]) -> Result<(usize, usize)> {
    let index = network
        .outputs()
        .iter()
        .position(|port| port.name == name)
        .ok_or_else(|| {
            let found = names(network.outputs());
            Error::unexpected(network.place(), format!("an output `{name}`"), found)
        })?;
    let learned = [&[1, 2 * sample[1]], &sample[2..]].concat();
    let port = &network.outputs()[index];
    expect_port(
        port,
        network.place(),
        &[Dtype::F32, Dtype::F16],
        &[sample, &learned],
    )?;
    Ok((index, port.shape[1]))
}

fn expect_port(port: &Port, place: &str, dtypes: &[Dtype], shapes: &[&[usize]]) -> Result<()> {
    if dtypes.contains(&port.dtype) && shapes.contains(&port.shape.as_slice()) {
        return Ok(());
    }
    let dtypes = dtypes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" or ");
    let shapes = shapes
        .iter()
        .map(|shape| format!("{shape:?}"))
        .collect::<Vec<_>>()
        .join(" or ");
    Err(Error::unexpected(
        format!("{place}: `{}`", port.name),
        format!("{dtypes} {shapes}"),
        format!("{} {:?}", port.dtype, port.shape),
    ))
}

fn names(ports: &[Port]) -> String {
    let quoted = ports.iter().map(|port| format!("`{}`", port.name));
    quoted.collect::<Vec<_>>().join(", ")
}

fn input_tensor(port: &Port) -> Tensor {
    let datum_type = super::network::computed_type(port.dtype);
    Tensor::zero_dt(datum_type, &port.shape).expect("numbers have a zero")
}
