//! Copies to the device, on it and back.

use super::*;

#[test]
fn readings_give_what_was_there_when_they_began() {
    fn case(driver: &Cuda) -> usize {
        let sums = Sums::new(driver, 1000);
        let mut readings: Vec<_> = (0..12)
            .map(|_| {
                sums.add();
                driver.start_reading(&sums.sums).expect("a reading")
            })
            .collect();
        for _ in 0..5 {
            sums.add();
        }
        // Read in reverse order.
        for (i, reading) in readings.iter_mut().enumerate().rev() {
            assert_eq!(finish(driver, reading), sums.after(i + 1), "reading {i}");
            assert!(driver.finish_reading(reading).is_err(), "once only");
        }
        // A reading that nobody waits for, and its memory reused.
        drop(driver.start_reading(&sums.sums).expect("a reading"));
        let mut reading = driver.start_reading(&sums.sums).expect("a reading");
        assert_eq!(finish(driver, &mut reading), sums.after(17));
        let mut nothing = driver.start_reading(&put(driver, &[])).expect("a reading");
        assert!(finish(driver, &mut nothing).is_empty());
        readings.len() + 2
    }
    on_each_device(case, 14);
}

#[test]
fn readings_may_have_to_be_waited_for() {
    let in_vain = |seed| {
        let driver = launch::open(seed);
        let sums = Sums::new(&driver, 10);
        (0..5).for_each(|_| sums.add());
        let mut reading = driver.start_reading(&sums.sums).expect("a reading");
        let at_once = driver.finish_reading(&mut reading).expect("no fault");
        let waited = at_once.is_none();
        assert_eq!(at_once.unwrap_or_else(|| finish(&driver, &mut reading)), sums.after(5));
        waited
    };
    let waited = (0..20).filter(|&seed| in_vain(seed)).count();
    assert!(on_card() || waited > 0, "none of 20");
}

#[test]
fn clear_zeroes_a_whole_buffer_alone() {
    fn case(driver: &Cuda) -> usize {
        let lengths = [0, 1, 3, 4, 31, 4096, 100_003];
        let buffers = lengths.map(|len| [0, 1, 2].map(|_| put(driver, &vec![0xa5; len])));
        for [_, cleared, _] in &buffers {
            driver.clear(cleared).expect("a clear");
        }
        let fresh = driver.allocate(70).expect("memory");
        driver.clear(&fresh).expect("a clear");
        assert_eq!(driver.download(&fresh).expect("all of it is written"), [0; 70]);
        for (len, buffers) in lengths.iter().zip(&buffers) {
            for (buffer, byte) in buffers.iter().zip([0xa5, 0, 0xa5]) {
                assert_eq!(driver.download(buffer).expect("a download"), vec![byte; *len], "{len} bytes");
            }
        }
        lengths.len()
    }
    on_each_device(case, 7);
}

#[test]
fn uploads_are_in_order_and_let_go_of_their_bytes() {
    fn case(driver: &Cuda) -> usize {
        let lengths = [1, 262_143, 262_144, 262_145, 3_000_001];
        for len in lengths {
            let buffer = put(driver, &vec![9; len + 5]);
            let mut bytes = pattern(len, len);
            driver.upload(&buffer, 3, &bytes).expect("an upload");
            bytes.fill(0);
            let mut expected = vec![9; len + 5];
            expected[3..len + 3].copy_from_slice(&pattern(len, len));
            assert!(driver.download(&buffer).expect("a download") == expected, "{len} bytes");
            assert!(driver.upload(&buffer, 6, &bytes).is_err(), "{len} bytes");
            assert!(driver.upload(&buffer, usize::MAX, &bytes).is_err(), "{len} bytes");
        }
        // Many small uploads, each seen by the launch after it.
        let sums = Sums::new(driver, 64);
        let mut total = 0;
        for i in 0..40 {
            driver.upload(&sums.added, 0, bytemuck::cast_slice(&[i as f32; 64])).expect("an upload");
            sums.add();
            total += i;
        }
        assert_eq!(sums.read(), bytemuck::cast_slice::<f32, u8>(&[total as f32; 64]));
        lengths.len() + 40
    }
    on_each_device(case, 45);
}

#[test]
fn uploads_beside_take_turns_with_launches() {
    fn case(driver: &Cuda) -> usize {
        const COUNT: usize = 5000;
        const STEPS: usize = 20;
        let sums = Sums::new(driver, COUNT);
        let values = |step: usize| (0..COUNT).map(|i| (step * 3 + i % 7) as f32).collect::<Vec<f32>>();
        // A batch in three parts, after 8 other bytes; and the operand of a launch, with the parts swapped.
        let batches = [0; SLOTS].map(|_| put(driver, &pattern(1, 8 + 4 * COUNT)));
        let turned = [0; SLOTS].map(|_| driver.allocate(4 * COUNT).expect("memory"));
        let fill = |step: usize| {
            let (slot, values) = (step % SLOTS, values(step));
            let (first, second) = bytemuck::cast_slice(&values).split_at(4 * 301);
            driver.upload_beside(slot, &batches[slot], 8, &[&first[..5], &[], &first[5..], second]).expect("an upload");
            driver.upload_beside(slot, &turned[slot], 0, &[second, first]).expect("an upload");
        };
        // Each starts slowly, so that a copy could overtake it.
        let graphs = turned.each_ref().map(|turned| {
            sums.record(|| {
                (0..30).for_each(|_| driver.clear(&sums.unused).expect("a clear"));
                sums.add_from(turned);
            })
        });
        fill(0);
        for step in 0..STEPS {
            replay(driver, &graphs[step % SLOTS]).expect("a replay");
            driver.release(step % SLOTS).expect("a release");
            if step + 1 < STEPS {
                fill(step + 1);
            }
        }
        let mut expected = vec![0f32; COUNT];
        for step in 0..STEPS {
            let mut values = values(step);
            values.rotate_left(301);
            expected.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        assert_eq!(sums.read(), bytemuck::cast_slice::<f32, u8>(&expected));
        let last = driver.download(&batches[(STEPS - 1) % SLOTS]).expect("a download");
        assert_eq!(last, [pattern(1, 8), bytemuck::cast_slice(&values(STEPS - 1)).to_vec()].concat());
        assert!(driver.upload_beside(SLOTS, &turned[0], 0, &[&[1]]).is_err(), "no such slot");
        assert!(driver.release(SLOTS).is_err(), "no such slot");
        assert!(driver.upload_beside(0, &turned[0], 4 * COUNT - 1, &[&[1], &[2]]).is_err(), "no room");
        STEPS
    }
    on_each_device(case, 20);
}

#[test]
fn an_upload_beside_finds_new_memory() {
    fn case(driver: &Cuda) -> usize {
        let sums = Sums::new(driver, 3000);
        for round in 0..6 {
            // The memory's previous contents are still being written and freed when the copy is requested.
            for byte in 0..20 {
                drop(put(driver, &vec![byte; 4 * sums.count]));
                sums.add();
            }
            let fresh = driver.allocate(4 * sums.count).expect("memory");
            if round % 2 == 1 {
                driver.clear(&fresh).expect("a clear");
            }
            driver.upload_beside(round % SLOTS, &fresh, 0, &[&pattern(round, 4 * sums.count)]).expect("an upload");
            sums.add();
            assert_eq!(driver.download(&fresh).expect("a download"), pattern(round, 4 * sums.count), "round {round}");
            driver.release(round % SLOTS).expect("a release");
        }
        assert_eq!(sums.read(), sums.after(6 * 21));
        6
    }
    on_each_device(case, 6);
}
