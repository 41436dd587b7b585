//! What the network's comparison with the oracle leaves out: histograms, running statistics over several updates, optimisers,
//! crops and flips of the input, and ([`extents`]) convolutions and pools whose two axes differ.

#[path = "operations/extents.rs"]
mod extents;

use crate::oracle::{AdamW, AdamWState, Rng, Sgd, norm};
use crate::support::compare::{pass, run_model_at};
use crate::support::layers::{conv, linear, max_pool, network, readout};
use crate::support::lists::random_input;
use crate::support::structures::vary;
use crate::support::{Case, draw, run_model};
use adali::autotune::{BINS, Histogram, RANGE};
use adali::backend::cpu::Cpu;
use adali::backend::{Histograms, Step, Update, UpdateRule};
use adali::data::sampling::placement;
use adali::data::{Augmentation, SampleShape};
use adali::network::model::Pass;
use adali::network::parameters::{Parameter, Part};
use adali::network::{Model, Norm};
use adali::surrogate::Surrogate;
use adali::surrogate::SurrogateKind;
use std::collections::BTreeSet;

/// Every count lies between the number of membranes certainly in a bin and the number possibly in it.
#[track_caller]
fn assert_counts(got: &Histogram, potentials: &[f64]) {
    let (mut sure, mut possible) = (vec![0u64; BINS + 2], vec![0u64; BINS + 2]);
    for &z in potentials {
        let bin = |z: f64| ((z + RANGE) * BINS as f64 / (2.0 * RANGE)).floor().clamp(-1.0, BINS as f64) as isize + 1;
        let error = 1e-5 * z.abs().max(1.0);
        let (low, high) = (bin(z - error) as usize, bin(z + error) as usize);
        sure[low] += u64::from(low == high);
        (low..=high).for_each(|bin| possible[bin] += 1);
    }
    let counts: Vec<u64> = [got.underflow].into_iter().chain(got.bins.iter().copied()).chain([got.overflow]).collect();
    for (bin, count) in counts.iter().enumerate() {
        assert!((sure[bin]..=possible[bin]).contains(count), "bin {bin}: {count}, {} to {}", sure[bin], possible[bin]);
    }
    assert_eq!(got.total(), potentials.len() as u64);
    assert_eq!(got.non_finite, 0);
    assert_eq!(got.spikes(), potentials.iter().filter(|z| **z >= 0.0).count() as u64);
}

#[test]
fn histograms_count_the_membranes() {
    let mut rng = Rng::fresh("histograms");
    let mut compared = 0;
    for norm in [Norm::None, Norm::Batch, Norm::Weight] {
        for &kind in SurrogateKind::all() {
            for per_channel in [false, true] {
                let layers = vec![conv(33, 3, 1, 1, norm), max_pool(2, 2, 0), linear(17, norm), readout(3)];
                let mut spec = vary(network(4, layers), &mut rng);
                spec.surrogate = Surrogate::new(kind);
                let mut case = Case::new(spec, [3, 5, 7], 5);
                case.capacity = 6;
                let drawn = draw(&case, &mut rng);
                let mut model = drawn.model(&case);
                model.set_histograms(per_channel).expect("histograms");
                drawn.set_bounds(&mut model);
                // Counts add up over passes, except passes without `histogram`.
                for histogram in [true, false, true] {
                    run_model(&mut model, &case, &drawn, Pass { histogram, update_running: false, ..pass(&case) });
                }
                model.collect_counts().expect("counts");
                assert_eq!(model.totals().expect("sums").fault, None);
                for (stage, &layer) in drawn.stages.iter().enumerate().take(2) {
                    let trace = &drawn.forward.layers[layer].neuron.as_ref().expect("neurons").membrane;
                    let theta = f64::from(case.spec.neuron.threshold);
                    let counted = model.histograms(stage).expect("counts");
                    let count = if per_channel { trace.dims5()[2] } else { 1 };
                    assert_eq!(counted, Histograms { recent: counted.epoch.clone(), flags: vec![], ..counted.clone() });
                    assert_eq!(counted.epoch.len(), count);
                    for (c, histogram) in counted.epoch.iter().enumerate() {
                        let mine = (0..trace.data.len()).filter(|&i| !per_channel || trace.channel(i) == c);
                        let once: Vec<f64> = mine.map(|i| (trace.data[i] - theta) / theta).collect();
                        assert_counts(histogram, &once.repeat(2));
                        compared += 1;
                    }
                    // Collected counts are not counted again.
                    model.collect_counts().expect("counts");
                    assert_eq!(model.histograms(stage).expect("counts"), counted);
                    model.set_histograms_of(stage, &Histograms::empty(count)).expect("counts");
                    model.collect_counts().expect("counts");
                    assert_eq!(model.histograms(stage).expect("counts"), Histograms::empty(count), "nothing is left");
                }
            }
        }
    }
    assert_eq!(compared, 3 * SurrogateKind::all().len() * (2 + 33 + 17));
}

/// Running statistics after several passes, and the resulting norm.
#[test]
fn running_statistics_follow_the_batches() {
    let mut rng = Rng::fresh("running statistics");
    let mut compared = 0;
    for batch in [1, 3, 5] {
        for steps in [1, 4] {
            let mut spec = network(steps, vec![conv(17, 3, 1, 1, Norm::Batch), readout(3)]);
            spec.input = random_input(&mut rng);
            let case = Case::new(spec, [3, 5, 7], batch);
            let drawn = draw(&case, &mut rng);
            let mut model = drawn.model(&case);
            let params = &drawn.params.layers[0];
            let x = &drawn.forward.layers[0].affine.as_ref().expect("weights").conv_output;
            let (mut mean, mut var) = (params.running_mean.clone(), params.running_var.clone());
            for _ in 0..6 {
                run_model(&mut model, &case, &drawn, pass(&case));
                let statistics = norm::training_statistics(x, &mean, &var);
                (mean, var) = (statistics.running_mean, statistics.running_var);
            }
            let evaluate = Pass { membranes: true, ..Pass::evaluate() };
            run_model(&mut model, &case, &drawn, evaluate);
            let (_, parameters) = model.populations().next().expect("a population");
            let own = parameters.batch_norms().next().and_then(|norm| norm.running.as_ref()).expect("a norm");
            for c in 0..17 {
                assert!((f64::from(own.mean[c]) - mean[c]).abs() < 1e-5);
                assert!((f64::from(own.variance[c]) - var[c]).abs() < 1e-5 * var[c].max(1.0));
                compared += 1;
            }
            // Membranes of the first step, which no reset has changed yet.
            let statistics = norm::BatchStatistics { running_mean: vec![], running_var: vec![], mean, var };
            let y = norm::batch_forward(x, &statistics, 1e-5, &params.norm_weight, &params.norm_bias);
            let membrane = model.read_membrane(0).expect("a membrane").expect("asked for");
            for (h, current) in membrane.iter().zip(&y.data).take(y.data.len() / steps) {
                assert!((f64::from(*h) - 0.5 * current).abs() < 2e-5 * current.abs().max(1.0), "{h} from {current}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 6 * 17 + 2 * (1 + 3 + 5) * 17 * 35);
}

/// The oracle's optimiser for one parameter.
struct Mirror {
    value: Vec<f64>,
    velocity: Vec<f64>,
    adam: AdamWState,
}

fn read(parameter: &Parameter<Cpu>, part: Part) -> Vec<f64> {
    parameter.read(&Cpu, part).expect("values").into_iter().map(f64::from).collect()
}

#[track_caller]
fn assert_near(name: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (a, b) in got.iter().zip(want) {
        assert!((a - b).abs() <= 2e-6 * b.abs().max(0.1), "{name}: {a}, not {b}");
    }
}

/// Updates of a training network: each optimiser is fed the model's own gradients.
#[test]
fn optimisers_match() {
    const UPDATES: u64 = 8;
    let mut rng = Rng::fresh("optimisers");
    let mut compared = 0;
    let adam = |decoupled| UpdateRule::Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-4, decoupled };
    let rules = [UpdateRule::Sgd { momentum: 0.0 }, UpdateRule::Sgd { momentum: 0.9 }, adam(true), adam(false)];
    for rule in rules {
        for decay in [0.0, 0.03] {
            // In units of the gradient's norm; 0: no clipping.
            for clip in [0.0, 2.0, 0.3] {
                let layers = vec![conv(17, 3, 1, 1, Norm::Batch), linear(33, Norm::Weight), readout(3)];
                let case = Case::new(network(2, layers), [2, 4, 5], 3);
                let drawn = draw(&case, &mut rng);
                let mut model = drawn.model(&case);
                let mirror = |p| Mirror { value: p, velocity: vec![], adam: AdamWState::new(0) };
                let mut mirrors: Vec<Mirror> = model.parameters().map(|p| mirror(read(p, Part::Value))).collect();
                for m in &mut mirrors {
                    (m.velocity, m.adam) = (vec![0.0; m.value.len()], AdamWState::new(m.value.len()));
                }
                for count in 1..=UPDATES {
                    let rate = 0.05 / count as f32;
                    run_model_at(&mut model, &case, &drawn, pass(&case), rate);
                    let gradients: Vec<Vec<f64>> = model.parameters().map(|p| read(p, Part::Gradient)).collect();
                    let norm = gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
                    assert!(norm > 0.0, "no gradient");
                    let update = Update { rule, decay, clip: clip * norm };
                    let scale = if clip > 0.0 && clip < 1.0 { update.clip / norm } else { 1.0 };
                    for (gradient, m) in gradients.iter().zip(&mut mirrors) {
                        m.follow(&update, rate, scale, gradient);
                    }
                    model.update(&update).expect("an update");
                    let totals = model.totals().expect("sums");
                    assert_eq!((totals.updates, totals.skipped, totals.failed), (count, 0, None));
                    assert!((totals.gradient_norm - norm).abs() <= 1e-9 * norm, "{} not {norm}", totals.gradient_norm);
                    for (parameter, m) in model.parameters().zip(&mirrors) {
                        assert_near(&format!("{rule:?} {}", parameter.name), &read(parameter, Part::Value), &m.value);
                        let moment = if matches!(rule, UpdateRule::Sgd { .. }) { &m.velocity } else { &m.adam.mean };
                        assert_near("first moment", &read(parameter, Part::Moment1), moment);
                        compared += 1;
                    }
                }
            }
        }
    }
    assert_eq!(compared, 4 * 2 * 3 * UPDATES * 8);
}

/// An update with a gradient that is not finite changes nothing; the first one is recorded with its step.
#[test]
fn updates_of_gradients_that_are_not_finite_are_left_out() {
    let mut rng = Rng::fresh("updates left out");
    let mut compared = 0;
    let adam = UpdateRule::Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-4, decoupled: true };
    for rule in [UpdateRule::Sgd { momentum: 0.9 }, adam] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let layers = vec![conv(17, 3, 1, 1, Norm::Batch), linear(33, Norm::Weight), readout(3)];
            let case = Case::new(network(2, layers), [2, 4, 5], 3);
            let drawn = draw(&case, &mut rng);
            let mut model = drawn.model(&case);
            let everything = |model: &Model<Cpu>| -> Vec<Vec<f64>> {
                let parts = [Part::Value, Part::Moment1, Part::Moment2];
                model.parameters().flat_map(|p| parts.map(|part| read(p, part))).collect()
            };
            let update = Update { rule, decay: 0.03, clip: 1.0 };
            let first = (1 << 33) + rng.next_u64() % 1000;
            let mut updates = 0;
            for (number, is_bad) in (first..).zip([false, true, false, true]) {
                run_model_at(&mut model, &case, &drawn, pass(&case), 0.05);
                let (samples, labels) = (drawn.indices(), drawn.model_labels());
                let step = Step { learning_rate: 0.05, count: number, ..Step::evaluate(&samples, &labels) };
                model.write_batch(&mut drawn.set(&case), &step).expect("a batch");
                if is_bad {
                    let (_, parameters) = model.populations_mut().nth(rng.below(3)).expect("a population");
                    let stage = parameters.synapses_mut().next().expect("synapses");
                    let mut gradient = stage.weight.read(&Cpu, Part::Gradient).expect("a gradient");
                    let at = rng.below(gradient.len());
                    gradient[at] = bad;
                    stage.weight.write(&Cpu, Part::Gradient, &gradient).expect("a gradient");
                } else {
                    updates += 1;
                }
                let before = everything(&model);
                model.update(&update).expect("an update");
                assert_eq!(everything(&model) == before, is_bad, "{rule:?} {bad} step {number}");
                let totals = model.totals().expect("sums");
                assert_eq!(totals.gradient_norm > 0.0, !is_bad, "the norm of a finite gradient is added");
                assert_eq!((totals.updates, totals.skipped), (updates, number - first + 1 - updates));
                assert_eq!(totals.failed, (number > first).then_some(first + 1), "the first stays");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 2 * 3 * 4);
}

impl Mirror {
    /// Applies the gradient times `scale`.
    fn follow(&mut self, update: &Update, rate: f32, scale: f64, gradient: &[f64]) {
        let [rate, decay] = [rate, update.decay].map(f64::from);
        let mut gradient: Vec<f64> = gradient.iter().map(|g| scale * g).collect();
        match update.rule {
            UpdateRule::Sgd { momentum } => {
                let sgd = Sgd { rate, momentum: f64::from(momentum), weight_decay: decay };
                sgd.step(&mut self.value, &gradient, &mut self.velocity);
            }
            UpdateRule::Adam { beta1, beta2, epsilon, decoupled } => {
                if !decoupled {
                    gradient.iter_mut().zip(&self.value).for_each(|(g, p)| *g += decay * p);
                }
                let [beta1, beta2, eps] = [beta1, beta2, epsilon].map(f64::from);
                let weight_decay = if decoupled { decay } else { 0.0 };
                AdamW { rate, beta1, beta2, eps, weight_decay }.step(&mut self.value, &gradient, &mut self.adam);
            }
        }
    }
}

/// Shifts and flips, frame by frame: `[T, N, C, H, W]` of bytes, 0 outside.
#[test]
fn crops_and_flips_match() {
    let mut rng = Rng::fresh("crops and flips");
    let (frames, c, h, w) = (2, 3, 5, 4);
    let case = Case::new(network(frames, vec![readout(2)]), [c, h, w], 4);
    let drawn = draw(&case, &mut rng);
    let mut model = drawn.model(&case);
    let mut compared = 0;
    let augmentation = Augmentation { crop_padding: 3, flip: true, ..Augmentation::default() };
    let shape = SampleShape { frames, height: h, width: w, channels: c };
    assert_eq!(shape, drawn.shape);
    let mut set = drawn.set(&case);
    let (mut flipped, mut shifts) = (0, [BTreeSet::new(), BTreeSet::new()]);
    for _ in 0..30 {
        let indices: Vec<u32> = (0..4).map(|_| rng.below(8) as u32).collect();
        let (seed, epoch) = (rng.next_u64(), rng.next_u64() as u32);
        model.write_batch(&mut set, &Step { seed, epoch, ..Step::evaluate(&indices, &[0; 4]) }).expect("a batch");
        model.gather(&set, &augmentation).expect("samples");
        let placements: Vec<_> = indices.iter().map(|&i| placement(&augmentation, seed, epoch, i)).collect();
        for at in &placements {
            flipped += u32::from(at.flip);
            shifts[0].insert(at.dx);
            shifts[1].insert(at.dy);
        }
        for (place, value) in model.read_input().expect("input").into_iter().enumerate() {
            let (x, y, channel) = (place % w, place / w % h, place / (w * h) % c);
            let (n, t) = (place / (w * h * c) % 4, place / (w * h * c * 4));
            let at = &placements[n];
            let column = (if at.flip { w - 1 - x } else { x }) as i32 + at.dx;
            let row = y as i32 + at.dy;
            let inside = (0..w as i32).contains(&column) && (0..h as i32).contains(&row);
            let pixel = ((indices[n] as usize * frames + t) * h + row.max(0) as usize) * w + column.max(0) as usize;
            let byte = if inside { drawn.bytes[pixel * c + channel] } else { 0 };
            let scale = &drawn.normalisation;
            assert_eq!(value, (f32::from(byte) / 128.0 - scale.mean[channel]) / scale.std[channel]);
            compared += 1;
        }
    }
    assert_eq!(compared, 30 * 4 * frames * c * h * w);
    assert!((30..90).contains(&flipped), "{flipped} of 120 are flipped");
    assert!(shifts.iter().all(|seen| seen.iter().copied().eq(-3..=3)), "every shift: {shifts:?}");
}
