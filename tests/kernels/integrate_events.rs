//! Event frames from their nonzero entries.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::integrate_events::integrate_events;
use adali::backend::gpu::params::IntegrateEvents;
use adali::backend::gpu::{Buffer, Launch};
use adali::data::events::counts::EventCounts;

/// Cells of a few samples, the last of them crowded: half of its events fall into one word of four cells.
fn events(rng: &mut Rng, samples: usize, cells: usize, most: usize) -> Vec<Vec<u32>> {
    let sample = |n: usize| {
        let count = if n + 1 == samples { 4 * most } else { rng.below(most + 1) };
        let cell =
            |i: usize| if n + 1 == samples && i.is_multiple_of(2) { rng.below(cells.min(4)) } else { rng.below(cells) };
        (0..count).map(cell).map(|cell| cell as u32).collect()
    };
    (0..samples).map(sample).collect()
}

/// Runs the kernel on entries of samples that come after `first` others, over frames with the bytes `before`.
fn run(rng: &mut Rng, entries: &[u32], ends: &[u32], first: usize, cells: usize, before: &[u8], grid: u32) -> Vec<u8> {
    let device = Device::new(rng.next_u64());
    let (of_entries, of_ends, frames) = (device.put(entries), device.put(ends), device.put(before));
    let params = IntegrateEvents {
        entries: of_entries.address(),
        ends: of_ends.address(),
        frames: frames.address(),
        first: first as u64,
        samples: ends.len() as u32,
        cells: cells as u32,
    };
    device.run("integrate_events", Launch { grid: [grid, 1, 1], threads: 64, shared: 0 }, &params);
    device.get::<u8>(&frames)
}

#[test]
fn integrate_events_matches() {
    let mut rng = Rng::fresh("integrate_events");
    let mut cases = 0;
    for (samples, cells) in [(1, 1), (3, 7), (5, 34), (4, 2 * 5 * 7 * 2), (2, 999)] {
        for first in [0, 3] {
            for grid in [1, 2, 7] {
                let drawn = events(&mut rng, samples, cells, 150);
                let mut counts = EventCounts::default();
                drawn.iter().for_each(|cells| counts.push(cells.clone()));
                let want = integrate_events(counts.clone().into(), cells).expect("frames").to_vec();

                let size = ((first + samples) * cells).next_multiple_of(4);
                let behind = |frames: Vec<u8>| {
                    let (others, rest) = frames.split_at(first * cells);
                    let (ours, padding) = rest.split_at(samples * cells);
                    assert!(others.iter().chain(padding).all(|&byte| byte == 0), "bytes of others were changed");
                    ours.to_vec()
                };
                // Counted cells, as in a data set.
                let ends: Vec<u32> = counts.ends().iter().map(|&end| end as u32).collect();
                let got = run(&mut rng, counts.entries(), &ends, first, cells, &vec![0; size], grid);
                assert!(behind(got) == want, "{samples} samples of {cells} cells behind {first}");
                // Event by event, in any order: the sums saturate in the same way.
                let one_by_one: Vec<u32> = drawn.concat().iter().map(|cell| cell | 1 << 24).collect();
                let lengths = drawn.iter().map(|cells| cells.len() as u32);
                let ends: Vec<u32> = lengths
                    .scan(0, |end, length| {
                        *end += length;
                        Some(*end)
                    })
                    .collect();
                let got = run(&mut rng, &one_by_one, &ends, first, cells, &vec![0; size], grid);
                assert!(behind(got) == want, "events of {samples} samples of {cells} cells behind {first}");
                cases += 2;
            }
        }
    }
    assert_eq!(cases, 5 * 2 * 3 * 2);
}
