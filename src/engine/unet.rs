//! The network of a model package as a [`Denoiser`].

use ndarray::{ArrayView4, ArrayViewMut4, Axis};

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
        Self::build(&place, package.manifest(), threads, |options| {
            Network::load_owned(bytes, &place, options)
        })
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
        Self::build(place, manifest, threads, |options| {
            Network::load(bytes, place, options)
        })
    }

    fn build(
        place: &str,
        manifest: &Manifest,
        threads: usize,
        load: impl FnOnce(&Options) -> Result<Network>,
    ) -> Result<Self> {
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
        let kept = vectors.into_iter().flatten().cloned().collect();
        let options = Options {
            threads,
            shapes: shapes.into_iter().collect(),
            kept,
            ..Options::default()
        };
        let network = load(&options)?;

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
        Ok(Self {
            timestep_scale: scale,
            network,
            sample,
            timestep,
            class,
            output,
            output_channels,
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

    /// Writes a number into an input of one element, in the input's type.
    fn set_number(&mut self, input: usize, value: f64) {
        let dtype = self.network.inputs()[input].dtype;
        let bytes = self.network.input(input);
        match dtype {
            Dtype::I64 => bytes.copy_from_slice(&(value as i64).to_le_bytes()),
            Dtype::I32 => bytes.copy_from_slice(&(value as i32).to_le_bytes()),
            Dtype::F64 => bytes.copy_from_slice(&value.to_le_bytes()),
            // fp16 is computed in fp32.
            _ => bytes.copy_from_slice(&(value as f32).to_le_bytes()),
        }
    }

    /// Tells the network the time step and the class.
    ///
    /// # Panics
    ///
    /// When a conditional network gets no class.
    fn set_conditions(&mut self, t: Timestep, cond: &Conditioning) {
        self.set_number(self.timestep, t.0 as f64 * self.timestep_scale);
        if let Some(input) = self.class {
            let class = cond.class.expect("a conditional network is given a class");
            self.set_number(input, class as f64);
        }
    }
}

impl Denoiser for UNet {
    fn prepare(&mut self, timesteps: &[Timestep], cond: &Conditioning) -> Result<()> {
        for &t in timesteps {
            self.set_conditions(t, cond);
            self.network.prepare()?;
        }
        Ok(())
    }

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
        self.set_conditions(t, cond);
        for (image, mut answer) in x
            .axis_chunks_iter(Axis(0), 1)
            .zip(out.axis_chunks_iter_mut(Axis(0), 1))
        {
            let words = self.network.input(self.sample).as_chunks_mut::<4>().0;
            words
                .iter_mut()
                .zip(image)
                .for_each(|(word, x)| *word = x.to_le_bytes());
            self.network.evaluate()?;
            let words = self.network.output(self.output).as_chunks::<4>().0;
            // A caller that ignores the learned variance takes the first half.
            let values = words.iter().map(|&word| f32::from_le_bytes(word));
            answer
                .iter_mut()
                .zip(values)
                .for_each(|(to, value)| *to = value);
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
