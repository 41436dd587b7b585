//! The cost of single operations on random data at a stated firing rate, without training: three questions that must
//! not be mixed into one number.
//!
//! 1. The cost of a slope: the same backward pass of neurons on the same tensors, with the membranes recomputed from
//!    the currents, for every surrogate.
//! 2. The saving of the packed state: AdaLi's backward pass from spike and window bits against the one from currents.
//! 3. The cost of a membrane histogram in the forward pass of neurons.

use crate::backend::Backend;
use crate::bench::ceilings::Ceilings;
use crate::bench::measure::{COPIES, Copies};
use crate::bench::operation::Operation;
use crate::bench::record::{Measured, Record};
use crate::bench::shape::LayerShape;
use crate::bench::tensors::usual_neuron;
use crate::bench::timing::{ROUNDS, Timing};
use crate::surrogate::SurrogateKind;
use anyhow::Result;
use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// Every slope with kernels of its own; AdaLi comes first.
fn kinds() -> impl Iterator<Item = SurrogateKind> {
    SurrogateKind::all().iter().copied().filter(|&kind| kind != SurrogateKind::Rectangle)
}

/// Early and late layers of image networks, and one of event frames.
pub const SHAPES: [LayerShape; 3] =
    [LayerShape::conv(4, 64, 32, 28, 32), LayerShape::conv(4, 32, 128, 14, 128), LayerShape::conv(16, 16, 64, 16, 64)];

/// The three answers for one shape.
#[derive(Clone, Debug, Serialize)]
pub struct OperationCosts {
    /// Steps, samples, height x width x channels.
    pub shape: String,
    /// Neurons times steps times samples.
    pub neuron_steps: usize,
    pub rounds: usize,
    /// Measured share of neuron-steps that spike.
    pub firing_rate: f64,
    /// Measured share of neuron-steps inside AdaLi's window, `[-0.5, 0.5]`.
    pub inside: f64,
    /// Backward pass from currents, by surrogate.
    pub slopes: Vec<Cost>,
    /// AdaLi's backward pass from currents and from bits.
    pub saved: Vec<Cost>,
    /// Forward pass without and with a histogram.
    pub histogram: Vec<Cost>,
}

/// One alternative.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub name: String,
    /// Seconds per call.
    pub seconds: Timing,
    /// Ratio to the first alternative, round by round.
    pub ratio: Timing,
    /// Bytes kept from the forward pass per neuron-step, if that is the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<f64>,
}

/// Measures one shape; `firing_rate` is the target, the measured one is reported. `None` if `stop` was set.
pub fn operation_costs<B: Backend>(
    backend: &B,
    shape: LayerShape,
    firing_rate: f64,
    stop: &AtomicBool,
) -> Result<Option<OperationCosts>> {
    let backward = |kind, bits| Operation::SpikeBackward { kind, neuron: usual_neuron(), bits };
    let slopes: Vec<_> = kinds().map(|kind| backward(kind, false)).collect();
    let names: Vec<_> = kinds().map(SurrogateKind::name).collect();
    let saved = [backward(SurrogateKind::Adali, false), backward(SurrogateKind::Adali, true)];
    let histogram = [false, true].map(|histogram| Operation::NormLifForward { histogram });
    let all = [&slopes[..], &saved, &histogram].concat();
    let mut copies = Copies::new(backend, shape, &all, firing_rate, COPIES)?;
    // Nothing is compared with the device's limits.
    let ceilings = Ceilings { copy: f64::INFINITY, products: f64::INFINITY };
    let mut costs = |operations: &[Operation], names: &[&str]| {
        let measured = copies.measure(operations, &ceilings, ROUNDS, stop);
        Ok::<_, anyhow::Error>(
            measured
                .map(Measured::sound)
                .transpose()?
                .map(|records| records.iter().zip(names).map(Cost::of).collect::<Vec<_>>()),
        )
    };
    let Some(slopes) = costs(&slopes, &names)? else { return Ok(None) };
    let Some(mut saved) = costs(&saved, &["currents", "bits"])? else { return Ok(None) };
    let Some(histogram) = costs(&histogram, &["without", "with"])? else { return Ok(None) };
    let (span, volume) = (shape.span, shape.neurons());
    let bits = backend.bits_size(span, volume);
    let per_neuron_step = |bytes: usize| bytes as f64 / shape.neuron_steps() as f64;
    saved[0].bytes = Some(per_neuron_step(backend.floats_size(span, volume) + bits));
    saved[1].bytes = Some(per_neuron_step(2 * bits));
    let [firing_rate, inside] = copies.activity()?;
    Ok(Some(OperationCosts {
        shape: format!("T = {}, N = {}, {}x{}x{}", span.steps, span.batch, volume.h, volume.w, volume.c),
        neuron_steps: shape.neuron_steps(),
        rounds: ROUNDS,
        firing_rate,
        inside,
        slopes,
        saved,
        histogram,
    }))
}

impl Cost {
    fn of((record, name): (&Record, &&str)) -> Self {
        let first = Timing { median: 1.0, min: 1.0, max: 1.0 };
        Self { name: name.to_string(), seconds: record.seconds, ratio: record.ratio.unwrap_or(first), bytes: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    #[test]
    fn a_small_shape_answers_all_three_questions() {
        let shape: LayerShape = "T=3,N=5,C=33,H=6,W=7".parse().unwrap();
        let mut cases = 0;
        for wanted in [0.02, 0.2, 0.5] {
            let costs = operation_costs(&Cpu, shape, wanted, &AtomicBool::new(false)).unwrap().unwrap();
            assert!((costs.firing_rate - wanted).abs() < 0.2 * wanted, "{costs:?}");
            assert!(costs.inside > 0.0 && costs.inside < 0.7, "{costs:?}");
            let names = |costs: &[Cost]| costs.iter().map(|cost| cost.name.clone()).collect::<Vec<_>>().join(" ");
            assert_eq!(names(&costs.slopes), "adali sigmoid arctan triangle softsign");
            assert_eq!((names(&costs.saved), names(&costs.histogram)), ("currents bits".into(), "without with".into()));
            for all in [&costs.slopes, &costs.saved, &costs.histogram] {
                assert_eq!(all[0].ratio, Timing { median: 1.0, min: 1.0, max: 1.0 });
                assert!(all.iter().all(|cost| cost.seconds.min > 0.0 && cost.seconds.max >= cost.seconds.median));
                cases += all.len();
            }
            assert!(costs.saved[1].bytes.unwrap() < 0.25 * costs.saved[0].bytes.unwrap());
        }
        assert_eq!(cases, 3 * (kinds().count() + 2 + 2));
    }
}
