//! One population on a backend: its parameters, the results of its forward pass, and its operations in order.

mod backward;
mod projection;
mod state;

use crate::backend::shape::{Span, Volume};
use crate::backend::{Affine, Backend, BatchNorm, Input, Neurons, NormState, SpikeOutput, Summand, bits_suffice};
use crate::network::parameters::NormParameters;
use crate::network::plan::{Plan, Population, Source};
use crate::network::spec::Combination;
use crate::neuron::Neuron;
use crate::surrogate::Surrogate;
use anyhow::Result;
pub use projection::{borrowed_currents, keeps_currents};
use state::{Activations, norm_state};
pub use state::{NeuronState, PopulationState, keeps_sum};

/// How a forward pass is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    /// Batch norms use the batch's statistics, not the running ones.
    pub batch_statistics: bool,
    /// Batch norms move their running statistics.
    pub update_running: bool,
    /// Dropouts drop.
    pub dropout: bool,
    /// A backward pass will follow.
    pub backward: bool,
    /// Count membrane potentials.
    pub histogram: bool,
    /// Keep membrane potentials; see [`Model::read_membrane`](crate::network::Model::read_membrane).
    pub membranes: bool,
}

impl Pass {
    /// A training step.
    pub fn train(histogram: bool) -> Self {
        Self {
            batch_statistics: true,
            update_running: true,
            dropout: true,
            backward: true,
            histogram,
            membranes: false,
        }
    }

    /// Inference.
    pub fn evaluate() -> Self {
        Self::default()
    }
}

/// An affine map: a batch norm's, or one that changes nothing.
fn affine<'a, B: Backend>(
    norm: Option<&'a NormState<B::Floats>>,
    ones: &'a B::Floats,
    zeros: &'a B::Floats,
) -> Affine<'a, B> {
    norm.map_or(Affine { scale: ones, shift: zeros }, |norm| Affine { scale: &norm.scale, shift: &norm.shift })
}

/// A batch norm as the operations take it.
fn batch_norm<B: Backend>(norm: &mut NormParameters<B>) -> BatchNorm<'_, B> {
    let channels = norm.channels();
    let running = norm.running.as_mut().expect("a batch norm has running statistics");
    BatchNorm {
        channels,
        gain: &norm.gain.value,
        bias: &norm.bias.value,
        running_mean: &mut running.mean,
        running_variance: &mut running.variance,
    }
}

/// What a source holds.
fn read<'s, B: Backend>(source: Source, below: &'s [PopulationState<B>], input: &'s B::Floats) -> Input<'s, B> {
    match source {
        Source::Input => Input::Dense(input),
        Source::Output(i) => below[i].output(),
        Source::Currents(i) => Input::Dense(below[i].summed()),
    }
}

/// One population's operations.
pub struct Layer<'a, B: Backend> {
    pub backend: &'a B,
    /// Its index among all populations.
    pub index: usize,
    pub population: &'a Population,
    pub neuron: Neuron,
    pub surrogate: Surrogate,
    /// Samples and steps of the spikes.
    pub span: Span,
    /// See [`Plan::recompute`].
    pub recompute: bool,
}

impl<'a, B: Backend> Layer<'a, B> {
    /// Population `index` of `plan`, for batches of `batch`.
    pub fn new(
        backend: &'a B,
        plan: &'a Plan,
        neuron: Neuron,
        surrogate: Surrogate,
        batch: usize,
        index: usize,
    ) -> Self {
        let population = &plan.populations[index];
        // A factor of the sum is a factor of what the neurons make of it.
        let neuron = Neuron { gain: neuron.gain * population.sum_scale, ..neuron };
        let (span, recompute) = (Span { batch, steps: plan.steps }, plan.recompute);
        Self { backend, index, population, neuron, surrogate, span, recompute }
    }

    /// Whether the neurons' bits suffice for their backward pass.
    fn keeps_bits(&self) -> bool {
        self.population.spiking && bits_suffice(&self.neuron, &self.surrogate)
    }

    fn volume(&self) -> Volume {
        self.population.volume
    }

    /// The same samples with this many steps.
    fn of_steps(&self, steps: usize) -> Span {
        Span { steps, ..self.span }
    }

    /// Samples and steps of the output.
    fn of_output(&self) -> Span {
        self.of_steps(self.population.output_steps(self.span.steps))
    }

    /// Projections, neurons, combination, pool and dropout.
    pub fn forward(
        &self,
        state: &mut PopulationState<B>,
        below: &[PopulationState<B>],
        input: &B::Floats,
        pass: Pass,
        batch: &B::Batch,
    ) -> Result<()> {
        self.prepare(state, below, input, pass)?;
        if self.population.spiking {
            let wanted = (pass.membranes, &state.neurons.membrane);
            match wanted {
                (true, None) => state.neurons.membrane = Some(self.backend.activations(self.span, self.volume())?),
                (false, Some(_)) => state.neurons.membrane = None,
                _ => {}
            }
        }
        let pooled = if self.population.is_single() {
            self.single(state, below, input, pass)?
        } else {
            self.sum(state, below, input, pass)?;
            false
        };
        self.combine(state, below)?;
        if !pooled {
            self.pool(state)?;
        }
        self.drop(state, pass, batch)
    }

    /// A convolution and the neurons that receive its output alone, in one operation if nothing needs the currents; returns
    /// whether that included the pool.
    fn single(
        &self,
        state: &mut PopulationState<B>,
        below: &[PopulationState<B>],
        input: &B::Floats,
        pass: Pass,
    ) -> Result<bool> {
        let (backend, volume) = (self.backend, self.volume());
        let batch_norm = self.population.has_batch_norm();
        let saves_currents = pass.backward && (batch_norm || !bits_suffice(&self.neuron, &self.surrogate));
        let stores_currents = !self.population.spiking || saves_currents || (batch_norm && pass.batch_statistics);
        self.project(state, 0, below, input, pass, stores_currents)?;
        let PopulationState { parameters, projections, neurons, pooled, combined, ones, zeros, .. } = state;
        let (projection, steps) = (&projections[0], self.population.projections[0].steps);
        let affine = affine::<B>(projection.batch_norm(), ones, zeros);
        let Some((neurons, out)) = self.neurons(neurons, pass) else { return Ok(false) };
        if let Some(currents) = projection.currents.as_ref().filter(|_| stores_currents) {
            backend.norm_lif_forward(volume, self.span, currents, steps, affine, &neurons, out)?;
            return Ok(false);
        }
        let projected = &self.population.projections[0];
        let conv = &projected.convolution.as_ref().expect("a single projection is a convolution").conv;
        let (weights, bias) = projection.operands(&parameters.projections[0], zeros);
        let input = read(projected.source, below, input);
        let pooled = match (&self.population.pool, pooled, combined) {
            (Some(pool), Activations::Spikes(pooled), Activations::None) => Some((pool, pooled)),
            _ => None,
        };
        let done = pooled.is_some();
        backend.conv_lif_forward(conv, self.span, input, steps, weights, bias, affine, &neurons, out, pooled)?;
        Ok(done)
    }

    /// Projections and the neurons that receive their sum, if any.
    fn sum(
        &self,
        state: &mut PopulationState<B>,
        below: &[PopulationState<B>],
        input: &B::Floats,
        pass: Pass,
    ) -> Result<()> {
        let (backend, volume, steps) = (self.backend, self.volume(), self.population.current_steps);
        for k in 0..self.population.projections.len() {
            self.project(state, k, below, input, pass, true)?;
        }
        let PopulationState { parameters, projections, sum, sum_norm, neurons, ones, zeros, .. } = state;
        let each = self.population.projections.iter().zip(projections.iter());
        let summands: Vec<Summand<B>> = each
            .map(|(projection, state)| {
                let affine = affine::<B>(state.batch_norm(), state.factor.as_ref().unwrap_or(ones), zeros);
                let as_it_is = || read(projection.source, below, input);
                let input = state.currents.as_ref().map_or_else(as_it_is, Input::Dense);
                Summand { input, steps: projection.steps, affine }
            })
            .collect();
        let Some((neurons, out)) = self.neurons(neurons, pass) else {
            let sum = sum.as_mut().expect("without neurons the sum is the output");
            return backend.sum_currents(volume, self.of_steps(steps), &summands, sum);
        };
        let Some(norm) = sum_norm else {
            let wanted =
                self.population.hands_on_currents || pass.backward && !bits_suffice(&self.neuron, &self.surrogate);
            let sum = sum.as_mut().filter(|_| wanted);
            return backend.sum_lif_forward(volume, self.span, &summands, sum, &neurons, out);
        };
        let sum = sum.as_mut().expect("a norm reads the sum");
        backend.sum_currents(volume, self.of_steps(steps), &summands, sum)?;
        let parameters = batch_norm(parameters.sum_norm.as_mut().expect("a norm has parameters"));
        if pass.batch_statistics {
            let of_sum = self.of_steps(steps);
            backend.batch_norm_statistics(
                volume,
                of_sum,
                sum,
                self.span.steps,
                parameters,
                pass.update_running,
                norm,
            )?;
        } else {
            backend.batch_norm_running(parameters, norm)?;
        }
        backend.norm_lif_forward(volume, self.span, sum, steps, affine(Some(norm), ones, zeros), &neurons, out)
    }

    /// The neurons, and what they write in this pass; `None` for a layer without neurons.
    fn neurons<'s>(&self, state: &'s mut NeuronState<B>, pass: Pass) -> Option<(Neurons<'s, B>, SpikeOutput<'s, B>)> {
        let NeuronState { bounds, spikes, inside, membrane, counts, .. } = state;
        let out = SpikeOutput {
            spikes: spikes.as_mut()?,
            inside: inside.as_mut().filter(|_| pass.backward),
            membrane: membrane.as_mut(),
            histogram: pass.histogram.then_some(counts),
        };
        Some((Neurons { neuron: self.neuron, surrogate: self.surrogate, bounds }, out))
    }

    fn combine(&self, state: &mut PopulationState<B>, below: &[PopulationState<B>]) -> Result<()> {
        let Some((other, with)) = self.population.combine else { return Ok(()) };
        let (volume, span, other) = (self.volume(), self.span, below[other].output());
        let own = state.neurons.spikes.as_ref().expect("a combined population has neurons");
        match (&mut state.combined, other) {
            (Activations::Floats(out), other) => self.backend.add_spikes(volume, span, own, other, out),
            (Activations::Spikes(out), Input::Spikes { bits, .. }) => {
                self.backend.and_spikes(volume, span, own, with == Combination::Iand, bits, out)
            }
            _ => unreachable!("spikes are combined with spikes"),
        }
    }

    fn pool(&self, state: &mut PopulationState<B>) -> Result<()> {
        let Some(pool) = &self.population.pool else { return Ok(()) };
        let PopulationState { pooled, combined, neurons, sum, .. } = state;
        match (pooled, &neurons.spikes, sum) {
            (Activations::Spikes(pooled), Some(spikes), _) => {
                self.backend.max_pool_forward(pool, self.span, spikes, pooled)
            }
            (Activations::Floats(pooled), Some(spikes), _) => {
                let input = combined.as_input(1.0).unwrap_or(Input::Spikes { bits: spikes, scale: 1.0 });
                self.backend.avg_pool_forward(pool, self.span, input, pooled)
            }
            (Activations::Floats(pooled), None, Some(sum)) => {
                self.backend.avg_pool_forward(pool, self.of_output(), Input::Dense(sum), pooled)
            }
            _ => unreachable!("a pool reads spikes or a sum"),
        }
    }

    fn drop(&self, state: &mut PopulationState<B>, pass: Pass, batch: &B::Batch) -> Result<()> {
        state.scale = 1.0;
        let Some(probability) = self.population.dropout.filter(|_| pass.dropout) else { return Ok(()) };
        let (volume, span, index) = (self.population.output(), self.of_output(), self.index);
        let spikes = match (&mut state.pooled, &mut state.combined, &state.neurons.spikes) {
            (Activations::Floats(values), ..) | (Activations::None, Activations::Floats(values), _) => {
                return self.backend.dropout_floats(volume, span, probability, batch, index, values);
            }
            (Activations::Spikes(spikes), ..) | (Activations::None, Activations::Spikes(spikes), _) => spikes,
            (Activations::None, Activations::None, Some(spikes)) => spikes,
            (Activations::None, Activations::None, None) => unreachable!("a dropout follows spikes or a pool"),
        };
        let kept = state.kept.as_mut().expect("allocated for a population that drops spikes");
        self.backend.dropout_spikes(volume, span, probability, batch, index, spikes, kept)?;
        // If nothing can be dropped, the spikes themselves are passed on.
        state.scale = 1.0 / (1.0 - probability);
        Ok(())
    }
}
