//! Which gradient lives when: the backward pass in the few buffers, all of one size, that are in use at the same time.
//!
//! A gradient that several readers contribute to is written by the first and added to by the others. A population's summed
//! currents have the same gradient as each summand that is passed on as it is, so the buffer itself is handed on if it can
//! be.

use crate::backend::Put;
use crate::network::plan::{Plan, Population, Projection, Source};
use crate::network::spec::Combination;

/// The gradients of one population.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gradients {
    /// Of its output; the readers have written it. Unused by a layer without neurons.
    pub output: usize,
    /// Of what its pool reads, if the neurons' backward pass does not include the pool.
    pub unpooled: usize,
    /// Of its spikes, if it is combined with another's; else the output's.
    pub spikes: usize,
    /// Where the gradient of the other population's output goes.
    pub other: Route,
    /// Whether a single convolution reads its output and nothing lies in between.
    pub one_reader: bool,
    /// Of its summed currents.
    pub sum: Target,
    /// For a gradient on its way to `sum`, where a norm lies in between and `sum` is added to.
    pub before_norm: usize,
    pub projections: Vec<Through>,
}

/// The gradients on the way through a projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    /// Of its currents; the sum's if both are equal.
    pub currents: usize,
    /// Of what its own pool writes.
    pub pooled: usize,
    /// Of its source.
    pub source: Route,
}

/// A buffer, and whether it is written or added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub slot: usize,
    pub put: Put,
}

/// Where a gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The input needs none.
    Nowhere,
    To(Target),
    /// It stays in its buffer, which the source takes over.
    Handed,
}

/// The backward pass of a network.
#[derive(Clone, Debug)]
pub struct Lifetimes {
    /// By population.
    pub populations: Vec<Gradients>,
    /// Buffers needed.
    pub slots: usize,
}

impl Lifetimes {
    /// Walks backward through `plan`.
    pub fn new(plan: &Plan) -> Self {
        let count = plan.populations.len();
        let mut walk = Walk { output: vec![None; count], sum: vec![None; count], free: Vec::new(), slots: 0 };
        let mut populations: Vec<Gradients> =
            plan.populations.iter().enumerate().rev().map(|(i, population)| walk.population(i, population)).collect();
        populations.reverse();
        for (i, (gradients, population)) in populations.iter_mut().zip(&plan.populations).enumerate() {
            gradients.one_reader =
                plan.readers(i) == 1 && !population.hands_on_currents && population.combine.is_none();
        }
        Self { populations, slots: walk.slots }
    }
}

struct Walk {
    /// The buffers of gradients that are being gathered, by population.
    output: Vec<Option<usize>>,
    sum: Vec<Option<usize>>,
    free: Vec<usize>,
    slots: usize,
}

impl Walk {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    fn gathered(&mut self, source: Source) -> &mut Option<usize> {
        match source {
            Source::Output(i) => &mut self.output[i],
            Source::Currents(i) => &mut self.sum[i],
            Source::Input => unreachable!("the input has no gradient"),
        }
    }

    fn target(&mut self, source: Source) -> Target {
        if let Some(slot) = *self.gathered(source) {
            return Target { slot, put: Put::Add };
        }
        let slot = self.take();
        *self.gathered(source) = Some(slot);
        Target { slot, put: Put::Write }
    }

    fn population(&mut self, i: usize, population: &Population) -> Gradients {
        // The readout's gradient comes from the loss.
        let output = self.output[i].take().unwrap_or_else(|| self.take());
        let mut gradients = Gradients {
            output,
            unpooled: output,
            spikes: output,
            other: Route::Nowhere,
            one_reader: false,
            sum: Target { slot: output, put: Put::Write },
            before_norm: output,
            projections: Vec::new(),
        };
        if population.spiking {
            self.neurons(i, population, &mut gradients);
        } else if population.pool.is_some() {
            gradients.sum = self.sum_of(i);
            self.free.push(gradients.output);
        }
        self.projections(population, &mut gradients);
        gradients
    }

    fn neurons(&mut self, i: usize, population: &Population, gradients: &mut Gradients) {
        if let Some((other, with)) = population.combine {
            if population.pool.is_some() {
                gradients.unpooled = self.take();
                self.free.push(gradients.output);
            }
            gradients.spikes = gradients.unpooled;
            if with != Combination::Add {
                gradients.spikes = self.take();
                gradients.other = Route::To(self.target(Source::Output(other)));
                self.free.push(gradients.unpooled);
            }
        }
        gradients.sum = self.sum_of(i);
        gradients.before_norm = gradients.sum.slot;
        if population.has_batch_norm() && gradients.sum.put == Put::Add {
            gradients.before_norm = self.take();
            self.free.push(gradients.before_norm);
        }
        if let Some((other, Combination::Add)) = population.combine {
            gradients.other = self.hand_on(Source::Output(other), gradients.spikes);
        } else {
            self.free.push(gradients.spikes);
        }
    }

    /// Where the gradient of a population's summed currents goes.
    fn sum_of(&mut self, i: usize) -> Target {
        match self.sum[i].take() {
            Some(slot) => Target { slot, put: Put::Add },
            None => Target { slot: self.take(), put: Put::Write },
        }
    }

    /// Hands a buffer to the gradient of a source, or frees it once it has been added there.
    fn hand_on(&mut self, source: Source, slot: usize) -> Route {
        if self.gathered(source).is_none() {
            *self.gathered(source) = Some(slot);
            return Route::Handed;
        }
        let target = self.target(source);
        self.free.push(slot);
        Route::To(target)
    }

    fn projections(&mut self, population: &Population, gradients: &mut Gradients) {
        let sum = gradients.sum.slot;
        let mut handed = false;
        // Only the last to read the sum's gradient may hand it on.
        let last = population.projections.len() - 1;
        for (k, projection) in population.projections.iter().enumerate() {
            let mut through = Through { currents: sum, pooled: sum, source: Route::Nowhere };
            if projection.convolution.is_some() {
                if !population.is_single() && changes(population, projection) {
                    through.currents = self.take();
                }
                if projection.source != Source::Input {
                    if projection.pool.is_some() {
                        through.pooled = self.take();
                    }
                    through.source = Route::To(self.target(projection.source));
                    if projection.pool.is_some() {
                        self.free.push(through.pooled);
                    }
                }
                if through.currents != sum {
                    self.free.push(through.currents);
                }
            } else if k == last && !changes(population, projection) && self.gathered(projection.source).is_none() {
                *self.gathered(projection.source) = Some(sum);
                (through.source, handed) = (Route::Handed, true);
            } else {
                through.source = Route::To(self.target(projection.source));
            }
            gradients.projections.push(through);
        }
        if !handed {
            self.free.push(sum);
        }
    }
}

/// Whether the gradient of a projection's currents differs from that of the sum.
fn changes(population: &Population, projection: &Projection) -> bool {
    projection.has_batch_norm() || !projection.is_plain() || projection.steps != population.current_steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan::Volume;
    use crate::network::presets::{Preset, Size};

    fn lifetimes(preset: Preset) -> (Plan, Lifetimes) {
        let input = Volume { h: 32, w: 32, c: 3 };
        let plan = Plan::new(&preset.network(input, 10, &Size::wide(8)), input).expect("a network");
        let lifetimes = Lifetimes::new(&plan);
        (plan, lifetimes)
    }

    #[test]
    fn a_chain_needs_two_buffers_and_a_block_four() {
        let counts = [
            (Preset::Csnn, 2),
            (Preset::Vggsnn, 2),
            // The gradient that is handed on, that of the block's inner output, that of the sum, and a norm's.
            (Preset::Resnet18Cifar, 4),
            (Preset::MsResnet18, 4),
        ];
        for (preset, want) in counts {
            assert_eq!(lifetimes(preset).1.slots, want, "{preset:?}");
        }
    }

    /// Where spikes are added as they are, their gradient stays where the sum's is, and the block's first convolution adds to
    /// it.
    #[test]
    fn a_gradient_is_handed_on_where_spikes_are_added_as_they_are() {
        let (plan, lifetimes) = lifetimes(Preset::Resnet18Cifar);
        let mut handed = 0;
        for (population, gradients) in plan.populations.iter().zip(&lifetimes.populations) {
            let each = population.projections.iter().zip(&gradients.projections);
            for (projection, through) in each.filter(|(projection, _)| projection.convolution.is_none()) {
                assert_eq!(through.source, Route::Handed);
                let Source::Output(source) = projection.source else { unreachable!("spikes are added") };
                assert_eq!(lifetimes.populations[source].output, gradients.sum.slot);
                handed += 1;
            }
        }
        assert_eq!(handed, 5);
    }

    /// No buffer is written while it holds a gradient that is still to be read.
    #[test]
    fn no_gradient_is_overwritten() {
        for preset in [Preset::Resnet18Preact, Preset::SewResnet18, Preset::MsResnet34, Preset::Resnet19] {
            let (plan, lifetimes) = lifetimes(preset);
            // By buffer, the population whose output or sum it holds.
            let mut held = vec![None; lifetimes.slots];
            let last = plan.populations.len() - 1;
            for (i, gradients) in lifetimes.populations.iter().enumerate().rev() {
                assert!(i == last || held[gradients.output] == Some(Source::Output(i)), "{preset:?} {i}");
                held[gradients.output] = None;
                let added = gradients.sum.put == Put::Add;
                assert_eq!(held[gradients.sum.slot], added.then_some(Source::Currents(i)), "{preset:?} {i}");
                held[gradients.sum.slot] = Some(Source::Currents(i));
                if let Some((other, _)) = plan.populations[i].combine {
                    assert_eq!(gradients.other, Route::Handed, "these presets only add spikes");
                    held[gradients.spikes] = Some(Source::Output(other));
                }
                for (projection, through) in plan.populations[i].projections.iter().zip(&gradients.projections) {
                    let free = through.currents == gradients.sum.slot || held[through.currents].is_none();
                    assert!(free, "{preset:?} {i}");
                    if let Route::To(to) = through.source {
                        let want = (to.put == Put::Add).then_some(projection.source);
                        assert_eq!(held[to.slot], want, "{preset:?} {i}");
                        held[to.slot] = Some(projection.source);
                    }
                }
                held[gradients.sum.slot] = None;
                for (projection, through) in plan.populations[i].projections.iter().zip(&gradients.projections) {
                    if through.source == Route::Handed {
                        held[gradients.sum.slot] = Some(projection.source);
                    }
                }
            }
            assert!(held.iter().all(Option::is_none), "{preset:?}: {held:?}");
        }
    }
}
