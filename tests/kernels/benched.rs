//! Every operation that `adali bench` times, with the check that precedes the timing.

use crate::launch;
use crate::oracle::Rng;
use adali::backend::gpu::tile::Card;
use adali::backend::gpu::{Gpu, Precision};
use adali::bench::ceilings::Ceilings;
use adali::bench::measure::Copies;
use adali::bench::operation::Operation;
use std::sync::atomic::AtomicBool;

#[test]
fn operations_are_right_as_they_are_timed() {
    let mut rng = Rng::fresh("benched operations");
    let ceilings = Ceilings { copy: 1.0, products: 1.0 };
    let mut measured = 0;
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let driver = launch::open(rng.next_u64());
        let card = launch::card(&driver, Card { multiprocessors: 2, shared: 99 * 1024 });
        let gpu = Gpu::new(driver, card, precision, "under test".into(), true);
        let operations: Vec<_> = Operation::all().into_iter().chain(Operation::surrogates()).collect();
        let shape = "T=2,N=2,C=33,H=4,K=41".parse().unwrap();
        let mut copies = Copies::new(&gpu, shape, &operations, 0.2, 1).unwrap();
        let records = copies.measure(&operations, &ceilings, 1, &AtomicBool::new(false)).unwrap().sound().unwrap();
        assert!(records.iter().all(|record| record.compared > 0));
        measured += records.len();
        assert!(precision == Precision::F32 || records.len() == operations.len(), "{}", records.len());
    }
    assert!(measured >= 3 * 37, "{measured}");
}
