//! Networks that branch; part of `tests/network_matches_oracle.rs`.

use super::within;
use crate::oracle::Rng;
use crate::support::branches::{COUNT, branches, vary_norms};
use crate::support::layers::network;
use crate::support::lists::random_input;
use crate::support::structures::vary;
use crate::support::{Case, Outcome, draw};

/// Every structure as it is written, then with random norms.
#[test]
fn branching_structures_match() {
    let mut rng = Rng::fresh("branching structures");
    let mut outcome = Outcome::default();
    let mut cases = 0;
    for (name, layers) in branches() {
        for batch in [5, 1, 2, 3] {
            let mut layers = layers.clone();
            if batch < 5 {
                vary_norms(&mut layers, &mut rng);
            }
            let mut spec = vary(network(1 + rng.below(5), layers), &mut rng);
            spec.input = random_input(&mut rng);
            let mut case = Case::new(spec, [3, 9, 8], batch);
            case.capacity = batch + rng.below(3);
            case.per_channel = rng.below(2) == 0;
            // A batch norm after a linear layer needs a few values per channel.
            case.batch_statistics = batch * case.spec.steps >= 8;
            case.batch_statistics &= !draw(&case, &mut rng.clone()).is_degenerate();
            outcome.add(within(name, &case, &mut rng));
            cases += 1;
        }
    }
    assert_eq!(cases, 4 * COUNT);
    outcome.report("branching structures", cases);
}
