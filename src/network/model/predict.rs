//! Inference on your own images.

use super::{Model, Pass};
use crate::backend::{Backend, Normalisation, Step};
use crate::data::SampleShape;
use crate::data::sampling::Augmentation;
use crate::{bail_input, host};
use anyhow::Result;

impl<B: Backend> Model<B> {
    /// Logits `[N, classes]`, averaged over the time steps, of `N` samples as bytes in the layout of a data set,
    /// `[N][frames][height][width][channels]`. `normalisation` is that of the training.
    ///
    /// # Errors
    /// If `values` is not a whole number of samples, or `shape` is not what the network reads.
    pub fn predict(&mut self, values: &[u8], shape: SampleShape, normalisation: &Normalisation) -> Result<Vec<f32>> {
        let (input, frames) = (self.plan.input, if self.plan.direct { 1 } else { self.plan.steps });
        if [shape.frames, shape.height, shape.width, shape.channels] != [frames, input.h, input.w, input.c] {
            bail_input!(
                "the network reads {frames} frames of {}x{}x{} (height, width, channels), not {} of {}x{}x{}",
                input.h,
                input.w,
                input.c,
                shape.frames,
                shape.height,
                shape.width,
                shape.channels
            );
        }
        if !values.len().is_multiple_of(shape.len()) {
            bail_input!("{} bytes are no whole number of samples of {} bytes", values.len(), shape.len());
        }
        let (count, classes, steps) = (values.len() / shape.len(), self.plan.classes, self.plan.steps);
        let mut set = self.backend.set(values.to_vec().into(), shape, normalisation, self.capacity())?;
        let mut logits = host::zeros(count * classes)?;
        let samples: Vec<u32> = (0..count as u32).collect();
        for (batch, logits) in samples.chunks(self.capacity()).zip(logits.chunks_mut(self.capacity() * classes)) {
            let labels = vec![0; batch.len()]; // no loss is asked for
            self.write_batch(&mut set, &Step::evaluate(batch, &labels))?;
            self.gather(&set, &Augmentation::default())?;
            self.forward(Pass::evaluate())?;
            self.release_batch(&mut set)?;
            for of_step in self.read_logits()?.chunks_exact(logits.len()) {
                logits.iter_mut().zip(of_step).for_each(|(mean, logit)| *mean += logit / steps as f32);
            }
        }
        Ok(logits)
    }
}
