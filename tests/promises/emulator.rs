//! What the emulator has that a card has not: misuse is found, memory has any size.

use super::*;

#[test]
fn the_emulator_refuses_to_fill_a_slot_that_launches_may_read() {
    let (mut ran, bytes) = (0, &[0u8; 4][..]);
    for slot in 0..SLOTS {
        for replayed in [false, true] {
            for waits in [None, Some(false), Some(true)] {
                let driver = Emulator::new(1);
                let sums = Sums::new(&driver, 16);
                let graph = sums.record(|| sums.add());
                let fill = || driver.upload_beside(slot, &sums.added, 0, &[bytes]);
                sums.add();
                fill().expect("a first upload");
                fill().expect("more of it");
                match replayed {
                    true => replay(&driver, &graph).expect("a replay"),
                    false => sums.add(),
                }
                assert!(fill().is_err(), "slot {slot}");
                driver.upload_beside(1 - slot, &sums.added, 0, &[bytes]).expect("the other slot is free");
                driver.start_reading(&sums.sums).expect("a reading, which waits for nothing");
                driver.release(1 - slot).expect("a release");
                assert!(fill().is_err(), "slot {slot}");
                match waits {
                    None => driver.release(slot).expect("a release"),
                    Some(false) => driver.synchronize().expect("no fault"),
                    Some(true) => drop(sums.read()),
                }
                fill().expect("all that read it is over");
                ran += 1;
            }
        }
    }
    assert_eq!(ran, 12);
}

#[test]
fn the_emulators_memory_has_an_end_and_is_given_back() {
    let mut ran = 0;
    for limit in [0, 1, 1000, 1 << 20] {
        let driver = Emulator::with_memory(3, Some(limit));
        for _ in 0..2 {
            assert_eq!(driver.available_memory(), Some(limit));
            let half = driver.allocate(limit / 2).expect("memory");
            let error = driver.allocate(limit).err();
            assert_eq!(error.is_some(), limit / 2 > 0, "limit {limit}");
            let left = limit - limit / 2;
            if let Some(error) = error.map(|error| error.to_string()) {
                assert!(
                    error.contains(&format!("no {limit} bytes")) && error.contains(&format!("{left} of")),
                    "{error}"
                );
            }
            assert_eq!(driver.available_memory(), Some(left));
            let rest = driver.allocate(left).expect("the rest");
            assert_eq!(driver.available_memory(), Some(0));
            assert!(driver.allocate(1).is_err() && driver.allocate(usize::MAX).is_err());
            drop(half);
            assert_eq!(driver.available_memory(), Some(limit / 2));
            drop(rest);
            ran += 1;
        }
    }
    // A buffer may outlive its device.
    let buffer = Emulator::with_memory(3, Some(8)).allocate(8).expect("memory");
    assert_eq!(buffer.len(), 8);
    let unlimited = Emulator::with_memory(3, None);
    assert_eq!(unlimited.available_memory(), None);
    assert!(unlimited.allocate(usize::MAX).is_err(), "more than the machine has");
    assert_eq!(Emulator::new(3).available_memory(), None);
    assert!(!unlimited.synchronous());
    assert_eq!(ran, 8);
}
