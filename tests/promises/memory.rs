//! Memory: misuse is found by the software GPU, whose memory size a test can choose.

use super::*;

#[test]
fn a_slot_that_launches_may_still_read_is_not_filled() {
    if on_card() {
        return; // a real GPU does not check this
    }
    let mut ran = 0;
    for slot in 0..SLOTS {
        for replayed in [false, true] {
            for released in [false, true] {
                let driver = launch::open(ran);
                let sums = Sums::new(&driver, 5000);
                let bytes = pattern(3, 4 * sums.count);
                let graph = sums.record(|| sums.add());
                let fill = || driver.upload_beside(slot, &sums.added, 0, &[&bytes]);
                // Room for more copies than follow: if the driver has to allocate, it waits for everything.
                let much = put(&driver, &pattern(1, 10 * bytes.len()));
                driver.upload_beside(slot, &much, 0, &[&pattern(2, 10 * bytes.len())]).expect("an upload");
                driver.release(slot).expect("a release");
                fill().expect("an upload");
                match replayed {
                    true => replay(&driver, &graph).expect("a replay"),
                    false => sums.add(),
                }
                if released {
                    driver.release(slot).expect("a release");
                }
                let found = fill().and_then(|()| driver.synchronize()).err().map(|error| error.to_string());
                let race = found.as_ref().is_some_and(|error| error.contains("without order what another"));
                assert_eq!((race, found.is_some()), (!released, !released), "slot {slot}: {found:?}");
                ran += 1;
            }
        }
    }
    assert_eq!(ran, 8);
}

#[test]
fn memory_has_an_end_and_is_given_back() {
    if on_card() {
        return; // a test cannot choose its size
    }
    let mut ran = 0;
    for limit in [2, 1000, 1 << 20] {
        let driver = launch::open_with(3, limit);
        let before = driver.available_memory().expect("a card knows");
        for _ in 0..2 {
            let half = driver.allocate(before / 2).expect("memory");
            let error = driver.allocate(before).err().expect("there is half of it").to_string();
            let left = before - before / 2;
            let words = format!("has no room for {before} bytes: {left} bytes are free");
            assert!(error.ends_with(&words), "{error}");
            assert_eq!(driver.available_memory(), Some(left));
            let rest = driver.allocate(left).expect("the rest");
            assert_eq!(driver.available_memory(), Some(0));
            assert!(driver.allocate(1).is_err() && driver.allocate(usize::MAX).is_err());
            drop(half);
            driver.synchronize().expect("no fault");
            assert_eq!(driver.available_memory(), Some(before / 2));
            drop(rest);
            driver.synchronize().expect("no fault");
            ran += 1;
        }
        // A buffer may outlive its device.
        let buffer = driver.allocate(1).expect("memory");
        drop(driver);
        assert_eq!(buffer.len(), 1);
    }
    assert_eq!(ran, 6);
}
