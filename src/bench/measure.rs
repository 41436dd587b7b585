//! Timing: operations on several copies of a layer in turn, so that none finds its tensors in a cache.

use super::ceilings::Ceilings;
use super::check::check;
use super::operation::{Operation, Work};
use super::record::{Failure, Measured, Record};
use super::shape::{LayerShape, Part};
use super::tensors::{Activity, Layer, Shifts, share};
use super::timing::{TURN, Timing, repetitions, take_turns};
use crate::backend::Backend;
use anyhow::Result;
use std::sync::atomic::AtomicBool;

/// The copies of a layer's tensors together should exceed this many bytes, more than any cache holds.
const CACHE: f64 = 256e6;
/// The most copies, and the most bytes of them; within these limits small tensors stay in the cache.
pub const COPIES: usize = 64;
const MEMORY: usize = 2 << 30;

/// Copies of one layer.
pub struct Copies<B: Backend> {
    backend: B,
    layers: Vec<Layer<B>>,
    /// See [`Record::registers`].
    registers: Vec<(Operation, Option<u32>)>,
}

/// An operation prepared for timing.
pub struct Ready<B: Backend> {
    operation: Operation,
    /// One pass over all copies.
    graph: Option<B::Graph>,
    passes: usize,
    compared: usize,
}

impl<B: Backend> Copies<B> {
    /// As many copies as are needed to defeat the caches, at most `most`, each with newly drawn tensors.
    pub fn new(backend: &B, shape: LayerShape, operations: &[Operation], rate: f64, most: usize) -> Result<Self> {
        let mut registers = vec![None; operations.len()];
        if let Some(rehearsal) = backend.rehearsal() {
            let mut layer =
                Layer::new(&rehearsal, shape, &Operation::parts(operations), rate, Some(Shifts::default()), 0)?;
            for (operation, registers) in operations.iter().zip(&mut registers) {
                let before = rehearsal.launched().len();
                operation.run(&rehearsal, &mut layer)?;
                let kernels = &rehearsal.launched()[before..];
                *registers = kernels.iter().filter_map(|kernel| backend.registers(kernel)).max();
            }
            backend.reserve(rehearsal.working_memory())?;
        }
        let first = Layer::new(backend, shape, &Operation::parts(operations), rate, None, 0)?;
        first.verify(backend, rate)?;
        let least =
            operations.iter().map(|operation| operation.work(backend, &first).bytes).fold(f64::INFINITY, f64::min);
        let room = (MEMORY / Layer::size(backend, shape, &Operation::parts(operations))).clamp(1, most);
        let count = (CACHE / least).ceil().clamp(1.0, room as f64) as u64;
        let shifts = Some(first.shifts());
        let others =
            (1..count).map(|seed| Layer::new(backend, shape, &Operation::parts(operations), rate, shifts, seed));
        let layers = std::iter::once(Ok(first)).chain(others).collect::<Result<_>>()?;
        let registers = operations.iter().copied().zip(registers).collect();
        Ok(Self { backend: backend.clone(), layers, registers })
    }

    /// Checks operations and times the correct ones, which take turns; operations that the device lacks are
    /// left out. `None` if `stop` was set.
    pub fn measure(
        &mut self,
        operations: &[Operation],
        ceilings: &Ceilings,
        rounds: usize,
        stop: &AtomicBool,
    ) -> Option<Measured> {
        let mut ready = Vec::new();
        let mut measured = Measured::default();
        for &operation in operations {
            match self.ready(operation) {
                Ok(is_ready) => ready.extend(is_ready),
                Err(error) => measured.failures.push(Failure::of(operation, self.layers[0].shape, &error)),
            }
        }
        let times = take_turns(ready.len(), rounds, stop, |i| {
            let passes = ready[i].passes;
            Ok([self.time(&mut ready[i], passes)?])
        });
        let times = match times {
            Ok(times) => times?,
            Err(error) => {
                let failed = ready.iter().map(|ready| Failure::of(ready.operation, self.layers[0].shape, &error));
                measured.failures.extend(failed);
                return Some(measured);
            }
        };
        let record = |(i, ready): (usize, &Ready<B>)| {
            let layer = &self.layers[0];
            let work = self.work(ready.operation);
            let below = layer.synapses.as_ref().filter(|_| ready.operation.part() == Part::Synapses);
            Record {
                operation: ready.operation.name().into(),
                variant: ready.operation.variant(),
                shape: layer.shape.to_string(),
                copies: self.layers.len(),
                firing_rate: below.map_or(layer.neurons.rate, |synapses| synapses.below.rate),
                compared: ready.compared,
                seconds: Timing::of(&times[i][0]),
                ratio: (ready.operation != operations[0]).then(|| Timing::of_ratios(&times[i][0], &times[0][0])),
                bytes: work.bytes,
                flops: work.flops,
                floor: ceilings.floor(work).0,
                registers: self.registers.iter().find(|of| of.0 == ready.operation).and_then(|of| of.1),
                images_per_second: None,
            }
        };
        measured.records = ready.iter().enumerate().map(record).collect();
        Some(measured)
    }

    /// The least that an operation on one copy must do.
    pub fn work(&self, operation: Operation) -> Work {
        operation.work(&self.backend, &self.layers[0])
    }

    /// Shares of the first copy's neuron-steps that spike and that lie in AdaLi's window.
    pub fn activity(&self) -> Result<[f64; 2]> {
        let Activity { span, volume, inside, rate, .. } = &self.layers[0].neurons;
        Ok([*rate, share(&self.backend.read_spikes(inside, *span, *volume)?)])
    }

    /// Runs and checks; returns how many values were compared, or `None` if the device does not have the operation.
    ///
    /// # Errors
    /// If a result is wrong.
    pub fn checked(&mut self, operation: Operation) -> Result<Option<usize>> {
        let first = &mut self.layers[0];
        operation.prepare(&self.backend, first)?;
        if !operation.run(&self.backend, first)? {
            return Ok(None);
        }
        check(operation, &self.backend, first, 1).map(Some)
    }

    /// Runs, checks and warms up; `None` if the device does not have the operation.
    ///
    /// # Errors
    /// If a result is wrong.
    pub fn ready(&mut self, operation: Operation) -> Result<Option<Ready<B>>> {
        let Some(compared) = self.checked(operation)? else { return Ok(None) };
        let mut ready = Ready { operation, graph: None, passes: 1, compared };
        self.time(&mut ready, 1)?;
        ready.passes = repetitions(self.time(&mut ready, 1)? * self.layers.len() as f64, TURN);
        Ok(Some(ready))
    }

    /// Seconds for this many calls, measured over whole passes through the copies.
    pub fn seconds(&mut self, ready: &mut Ready<B>, calls: u64) -> Result<f64> {
        let passes = (calls as usize).div_ceil(self.layers.len());
        Ok(calls as f64 * self.time(ready, passes)?)
    }

    /// Seconds per call, over this many passes.
    fn time(&mut self, ready: &mut Ready<B>, passes: usize) -> Result<f64> {
        let Ready { operation, graph, .. } = ready;
        let Self { backend, layers, .. } = self;
        let mut pass = |layers: &mut Vec<Layer<B>>| {
            backend.repeat(graph, &mut || {
                layers.iter_mut().try_for_each(|layer| operation.run(backend, layer).map(|_| ()))
            })
        };
        let prepare =
            |layers: &mut Vec<Layer<B>>| layers.iter_mut().try_for_each(|layer| operation.prepare(backend, layer));
        prepare(layers)?;
        pass(layers)?;
        let passes = if operation.consumes() { 1 } else { passes };
        if operation.consumes() {
            prepare(layers)?;
        }
        backend.seconds(&mut || Ok(()))?;
        let seconds = backend.seconds(&mut || (0..passes).try_for_each(|_| pass(layers)))?;
        Ok(seconds / (passes * layers.len()) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    const CEILINGS: Ceilings = Ceilings { copy: 1e10, products: 1e11 };

    fn records(shape: LayerShape, rate: f64) -> Vec<Record> {
        let operations = Operation::all();
        let mut copies = Copies::new(&Cpu, shape, &operations, rate, 2).unwrap();
        copies.measure(&operations, &CEILINGS, 2, &AtomicBool::new(false)).unwrap().sound().unwrap()
    }

    #[test]
    fn every_operation_is_right_and_timed() {
        let mut measured = 0;
        for (text, rate) in
            [("T=3,N=2,C=33,H=6,W=7", 0.1), ("T=4,N=3,C=70,H=1,K=40", 0.3), ("T=2,N=2,C=8,H=5,K=9,stride=2", 0.2)]
        {
            let records = records(text.parse().unwrap(), rate);
            for record in &records {
                assert!(record.compared > 0 && record.seconds.min > 0.0 && record.bytes > 0.0, "{record:?}");
                assert!((record.firing_rate - rate).abs() < 0.6 * rate, "{record:?}");
                measured += 1;
            }
        }
        // All but conv_input_grad_lif, which the CPU does not have.
        assert_eq!(measured, 3 * (Operation::all().len() - 1));
    }

    #[test]
    fn one_failure_leaves_the_others() {
        let shape: LayerShape = "T=4,N=2,C=32,H=8".parse().unwrap();
        let operations = [Operation::NormLifForward { histogram: false }, Operation::BiasGrad];
        let mut copies = Copies::new(&Cpu, shape, &operations, 0.2, 1).unwrap();
        // The reference uses another shift than the operation.
        copies.layers[0].neurons.shift += 1.0;
        let measured = copies.measure(&operations, &CEILINGS, 1, &AtomicBool::new(false)).unwrap();
        assert_eq!((measured.records.len(), measured.failures.len()), (1, 1));
        assert_eq!(measured.records[0].operation, "bias_grad");
        assert!(measured.sound().unwrap_err().to_string().contains("norm_lif_forward"));
    }

    #[test]
    fn a_layer_that_was_not_drawn_as_asked_is_found() {
        let shape: LayerShape = "T=4,N=8,C=32,H=8".parse().unwrap();
        let layer = || Layer::new(&Cpu, shape, &Operation::parts(&Operation::all()), 0.2, None, 0).unwrap();
        layer().verify(&Cpu, 0.2).unwrap();
        assert!(layer().verify(&Cpu, 0.8).unwrap_err().to_string().contains("80.0 %"));
        let mut still = layer();
        still.neurons.currents.fill(0.0);
        assert!(still.verify(&Cpu, 0.2).unwrap_err().to_string().contains("currents"));
        let mut below = layer();
        below.synapses.as_mut().unwrap().below.gradient.fill(f32::NAN);
        assert!(below.verify(&Cpu, 0.2).unwrap_err().to_string().contains("gradients"));
    }

    #[test]
    fn a_wrong_result_is_found() {
        let shape: LayerShape = "T=4,N=2,C=32,H=8".parse().unwrap();
        let mut found = 0;
        for operation in Operation::all().into_iter().chain(Operation::surrogates()) {
            let mut layer = Layer::new(&Cpu, shape, &[operation.part()], 0.2, None, 5).unwrap();
            operation.prepare(&Cpu, &mut layer).unwrap();
            if !operation.run(&Cpu, &mut layer).unwrap() {
                continue;
            }
            check(operation, &Cpu, &mut layer, 1).unwrap();
            spoil(&mut layer);
            // The check would repack a weight for the convolution from the spoilt one, so this spoils what it reads instead.
            assert!(check(operation, &Cpu, &mut layer, 1).is_err(), "{operation:?}");
            found += 1;
        }
        assert!(found >= 56, "{found}");
    }

    /// Doubles the outputs of operations, inverts their bits and clears their sums.
    fn spoil(layer: &mut Layer<Cpu>) {
        let double = |values: &mut Vec<f32>| values.iter_mut().for_each(|x| *x = 2.0 * *x + 1.0);
        let turn = |bits: &mut Vec<u32>| bits.iter_mut().for_each(|word| *word = !*word);
        let neurons = &mut layer.neurons;
        double(&mut neurons.currents_grad);
        double(&mut neurons.bias_grad);
        double(&mut layer.means);
        turn(&mut layer.pooled);
        turn(&mut neurons.inside);
        neurons.counts.kept.recent[0].overflow += 1;
        if let Some(synapses) = &mut layer.synapses {
            double(&mut synapses.below.currents_grad);
            double(&mut synapses.weight);
            double(&mut synapses.weight_grad);
            double(&mut synapses.effective);
        }
        if let Some(branches) = &mut layer.branches {
            double(&mut branches.state.mean);
            double(&mut branches.gain_grad);
            double(&mut branches.factor);
        }
        if let Some(training) = &mut layer.training {
            double(&mut training.samples);
            double(&mut training.logits);
            double(&mut training.logits_grad);
            double(&mut training.spikes.currents_grad);
            double(&mut training.moved.value);
            training.bounds[1][0].left *= 2.0;
        }
    }
}
