//! What a backend keeps on its device.

use super::shape::{Conv, Span, Volume};
use super::{Histograms, LayerExtents, Normalisation, Step, Totals, Trained};
use crate::data::{SampleShape, Values};
use crate::surrogate::Bounds;
use anyhow::Result;

/// A device and its memory: what is kept there, written and read back.
pub trait Storage: Clone {
    /// Dense numbers.
    type Floats;
    /// Bit-packed spikes, or which potentials lie inside the window.
    type Bits;
    /// The samples of a data set.
    type Set;
    /// What changes from step to step, in the form that the operations read.
    type Batch;
    /// AdaLi's bounds of a layer.
    type Bounds;
    /// [`Histograms`] of a layer's membrane potentials, and fresh counts not yet added to them.
    type Counts;
    /// A weight prepared for the convolutions.
    type Packed;
    /// The locations of all parameters.
    type Optimizer;
    /// [`Totals`], in the form that the operations add to.
    type Tally;
    /// Operations prepared to be repeated.
    type Graph;

    /// Description for users: which device, how many threads.
    fn describe(&self) -> String;

    /// Bytes of memory still available; `None` if the system does not say.
    fn available_memory(&self) -> Option<usize>;

    /// Where they are available, as the end of a sentence.
    fn available_where(&self) -> String {
        format!("on {}", self.describe())
    }

    /// Whether its memory is that of the process, shared with data sets, checkpoints and the program itself.
    fn is_host(&self) -> bool {
        false
    }

    /// The same device without memory or work, on which a network is built and stepped to see what it needs; `None` if
    /// operations take no memory of their own that is worth planning.
    fn rehearsal(&self) -> Option<Self> {
        None
    }

    /// The largest magnitude of a weight that convolutions accept; a larger one would become infinite.
    fn largest_weight(&self) -> f32 {
        f32::MAX
    }

    /// The largest relative error of storing an activation.
    fn rounding(&self) -> f64 {
        f64::from(f32::EPSILON) / 2.0
    }

    /// The initial factor of gradients on their way through 16 bits.
    fn first_loss_scale(&self) -> f32 {
        1.0
    }

    /// On a rehearsal: bytes allocated to be kept.
    fn kept_memory(&self) -> usize {
        0
    }

    /// On a rehearsal: the most working memory, in bytes, that any operation has needed.
    fn working_memory(&self) -> usize {
        0
    }

    /// Without a rehearsal: the most working memory, in bytes, that the operations of these layers need.
    fn working_size(&self, _span: Span, _layers: &[LayerExtents]) -> usize {
        0
    }

    /// On a rehearsal: the kernels launched, in order.
    fn launched(&self) -> Vec<String> {
        Vec::new()
    }

    /// Registers per thread of a kernel, if the device has such a thing.
    fn registers(&self, _kernel: &str) -> Option<u32> {
        None
    }

    /// Reserves memory for the operations, so that none allocates later.
    fn reserve(&self, _bytes: usize) -> Result<()> {
        Ok(())
    }

    // Memory. Activations are `batch x steps x volume`; vectors are per-channel values.
    fn activations(&self, span: Span, volume: Volume) -> Result<Self::Floats>;
    /// Activations in f32, whatever the storage type of the others: a readout's outputs and the logits.
    fn readouts(&self, span: Span, volume: Volume) -> Result<Self::Floats>;
    fn samples(&self, span: Span, volume: Volume) -> Result<Self::Floats>;
    fn spikes(&self, span: Span, volume: Volume) -> Result<Self::Bits>;
    fn vector(&self, values: &[f32]) -> Result<Self::Floats>;
    fn weight(&self, conv: &Conv, values: &[f32]) -> Result<Self::Floats>;
    fn packed(&self, conv: &Conv) -> Result<Self::Packed>;
    /// Bounds of a layer, or of each of its channels, for neurons with this threshold.
    fn bounds(&self, bounds: &[Bounds], threshold: f32) -> Result<Self::Bounds>;
    /// Empty histograms: one, or one per channel.
    fn counts(&self, count: usize) -> Result<Self::Counts>;
    /// Room for a step of up to `capacity` samples through `stages` stages.
    fn batch(&self, capacity: usize, stages: usize) -> Result<Self::Batch>;
    fn optimizer(&self, parameters: &[Trained<Self>]) -> Result<Self::Optimizer>;
    fn tally(&self) -> Result<Self::Tally>;
    /// A data set of samples of this shape, for batches of up to `capacity`; it stays on the host if it is too large for the
    /// device.
    fn set(
        &self,
        values: Values,
        shape: SampleShape,
        normalisation: &Normalisation,
        capacity: usize,
    ) -> Result<Self::Set>;

    /// Like [`Storage::set`], but it stays on the host, where [`Step::augmentation`] may change the samples of each batch.
    fn set_on_host(
        &self,
        values: Values,
        shape: SampleShape,
        normalisation: &Normalisation,
        capacity: usize,
    ) -> Result<Self::Set> {
        self.set(values, shape, normalisation, capacity)
    }

    /// Whether a data set is on the device; otherwise its batches are copied there step by step.
    fn is_resident(&self, _: &Self::Set) -> bool {
        true
    }

    // Bytes of memory.
    fn floats_size(&self, span: Span, volume: Volume) -> usize;
    fn readouts_size(&self, span: Span, volume: Volume) -> usize;
    fn samples_size(&self, span: Span, volume: Volume) -> usize;
    fn bits_size(&self, span: Span, volume: Volume) -> usize;
    fn vector_size(&self, len: usize) -> usize;
    fn weight_size(&self, conv: &Conv) -> usize;
    fn packed_size(&self, conv: &Conv) -> usize;

    /// Histograms of a layer; 0 if a rehearsal counts them.
    fn counts_size(&self, _count: usize) -> usize {
        0
    }

    // Writing and reading back. Tensors are in PyTorch's order.
    fn write_vector(&self, floats: &mut Self::Floats, values: &[f32]) -> Result<()>;
    fn write_weight(&self, conv: &Conv, floats: &mut Self::Floats, values: &[f32]) -> Result<()>;
    fn read_activations(&self, floats: &Self::Floats, span: Span, volume: Volume) -> Result<Vec<f32>>;
    fn read_samples(&self, floats: &Self::Floats, span: Span, volume: Volume) -> Result<Vec<f32>>;
    fn read_spikes(&self, bits: &Self::Bits, span: Span, volume: Volume) -> Result<Vec<u8>>;
    fn read_vector(&self, floats: &Self::Floats, len: usize) -> Result<Vec<f32>>;
    fn read_weight(&self, conv: &Conv, floats: &Self::Floats) -> Result<Vec<f32>>;
    /// The number of bounds stays the same.
    fn write_bounds(&self, to: &mut Self::Bounds, bounds: &[Bounds]) -> Result<()>;
    fn read_bounds(&self, from: &Self::Bounds) -> Result<Vec<Bounds>>;
    /// The number of histograms stays the same; afterwards no counts are fresh.
    fn write_counts(&self, counts: &mut Self::Counts, histograms: &Histograms) -> Result<()>;
    fn read_counts(&self, counts: &Self::Counts) -> Result<Histograms>;
    fn write_tally(&self, tally: &mut Self::Tally, totals: &Totals) -> Result<()>;
    fn read_tally(&self, tally: &Self::Tally) -> Result<Totals>;
    /// Earlier totals, if they have arrived; requests the next. Never waits.
    fn poll_totals(&self, tally: &mut Self::Tally) -> Result<Option<Totals>>;

    /// Writes the next step's batch; operations on the previous batch do not see it.
    fn write_batch(&self, batch: &mut Self::Batch, set: &mut Self::Set, step: &Step) -> Result<()>;
    /// Sets another [`Step::position`] for the same step.
    fn move_batch(&self, batch: &mut Self::Batch, position: f64) -> Result<()>;
    /// To be called once every operation on the batch has been issued.
    fn release_batch(&self, batch: &mut Self::Batch, set: &mut Self::Set) -> Result<()>;
}
