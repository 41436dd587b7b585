//! Random neurons.

use super::layers::random_neuron;
use crate::oracle::Rng;
use adali::network::NetworkSpec;
use adali::neuron::ResetKind;
use adali::surrogate::{Surrogate, SurrogateKind};

pub const RESETS: [(ResetKind, bool); 4] =
    [(ResetKind::Soft, false), (ResetKind::Soft, true), (ResetKind::Hard, false), (ResetKind::Hard, true)];

/// A random neuron with any reset, and a random surrogate.
pub fn vary(mut spec: NetworkSpec, rng: &mut Rng) -> NetworkSpec {
    let (reset, detach) = RESETS[rng.below(4)];
    spec.neuron = random_neuron(reset, detach, rng);
    spec.surrogate = Surrogate::new(SurrogateKind::all()[rng.below(SurrogateKind::all().len())]);
    if rng.below(3) == 0 && spec.surrogate.needs_membrane() {
        spec.surrogate.sharpness = Some(rng.uniform(0.7, 3.0) as f32);
    }
    spec
}
