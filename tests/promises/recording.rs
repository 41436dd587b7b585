//! Launches that are recorded and replayed.

use super::*;

#[test]
fn replay_equals_launches() {
    fn case(driver: &Cuda) -> usize {
        let mut ran = 0;
        for count in [1, 32, 300] {
            for replays in [0, 1, 3] {
                let (direct, recorded) = (Sums::new(driver, count), Sums::new(driver, count));
                let launches = |sums: &Sums<_>| {
                    sums.add();
                    driver.clear(&sums.unused).expect("a clear");
                    sums.add();
                };
                let graph = recorded.record(|| launches(&recorded));
                for _ in 0..replays {
                    launches(&direct);
                    replay(driver, &graph).expect("a replay");
                }
                // In order with direct launches.
                direct.add();
                recorded.add();
                assert_eq!(recorded.read(), direct.read(), "{count} numbers, {replays} replays");
                assert_eq!(recorded.read(), recorded.after(2 * replays + 1), "{count} numbers, {replays} replays");
                ran += 1;
            }
        }
        ran
    }
    on_each_device(case, 9);
}

#[test]
fn clears_are_recorded() {
    fn case(driver: &Cuda) -> usize {
        let sums = Sums::new(driver, 100);
        let graph = sums.record(|| {
            driver.clear(&sums.sums).expect("a clear");
            sums.add();
        });
        for replays in 0..3 {
            sums.add();
            sums.add();
            assert_ne!(sums.read(), sums.after(1), "{replays} replays");
            replay(driver, &graph).expect("a replay");
            assert_eq!(sums.read(), sums.after(1), "{replays} replays");
        }
        3
    }
    on_each_device(case, 3);
}

#[test]
fn nothing_runs_while_it_is_recorded() {
    fn case(driver: &Cuda) -> usize {
        let sums = Sums::new(driver, 77);
        sums.add();
        let mut ran = 0;
        for clears in [false, true] {
            let graph = sums.record(|| {
                sums.add();
                if clears {
                    driver.clear(&sums.sums).expect("a clear");
                }
            });
            assert_eq!(sums.read(), sums.after(1), "clears: {clears}");
            drop(graph);
            assert_eq!(sums.read(), sums.after(1), "clears: {clears}");
            ran += 1;
        }
        ran
    }
    on_each_device(case, 2);
}

#[test]
fn other_calls_are_refused_in_a_recording() {
    fn case(driver: &Cuda) -> usize {
        let sums = Sums::new(driver, 40);
        let earlier = sums.record(|| sums.add());
        let mut reading = driver.start_reading(&sums.sums).expect("a reading");
        assert!(driver.end_recording().is_err(), "nothing is recorded");
        driver.begin_recording().expect("a recording");
        sums.add();
        let refused = [
            ("allocate", driver.allocate(4).is_err()),
            ("upload", driver.upload(&sums.sums, 0, &[1]).is_err()),
            ("upload_beside", driver.upload_beside(0, &sums.sums, 0, &[&[1]]).is_err()),
            ("release", driver.release(0).is_err()),
            ("download", driver.download(&sums.sums).is_err()),
            ("start_reading", driver.start_reading(&sums.sums).is_err()),
            ("finish_reading", driver.finish_reading(&mut reading).is_err()),
            ("synchronize", driver.synchronize().is_err()),
            ("begin_recording", driver.begin_recording().is_err()),
            ("replay", replay(driver, &earlier).is_err()),
        ];
        for (call, refused) in refused {
            assert!(refused, "{call}");
        }
        sums.add();
        let graph = driver.end_recording().expect("a graph all the same");
        assert_eq!(finish(driver, &mut reading), sums.after(0));
        replay(driver, &graph).expect("a replay");
        replay(driver, &earlier).expect("a replay");
        assert_eq!(sums.read(), sums.after(3));
        driver.synchronize().expect("no fault");
        refused.len()
    }
    on_each_device(case, 10);
}

#[test]
fn a_refused_launch_spoils_its_recording_alone() {
    fn case(driver: &Cuda) -> usize {
        let sums = Sums::new(driver, 8);
        let extents = Launch::over(8, 256, 256);
        let mut ran = 0;
        for (kernel, threads) in [("no_such_kernel", 256), ("fold_affine", 4096)] {
            driver.begin_recording().expect("a recording");
            sums.add();
            let launched = launch::launch(driver, kernel, Launch { threads, ..extents }, &[0; size_of::<FoldAffine>()]);
            let error = launched.expect_err("no such launch").to_string();
            assert!(error.contains(kernel), "{error}");
            let error = driver.end_recording().err().expect("it is spoilt").to_string();
            assert!(error.contains(kernel), "{error}");
            let graph = sums.record(|| sums.add());
            replay(driver, &graph).expect("a replay");
            ran += 1;
            assert_eq!(sums.read(), sums.after(ran));
        }
        ran
    }
    on_each_device(case, 2);
}

#[test]
fn buffers_and_graphs_may_be_dropped_in_a_recording() {
    fn case(driver: &Cuda) -> usize {
        let sums = Sums::new(driver, 50);
        let dropped: Vec<_> = (0..3).map(|i| put(driver, &pattern(i, 100_000))).collect();
        let earlier = sums.record(|| sums.add());
        let reading = driver.start_reading(&sums.sums).expect("a reading");
        let graph = sums.record(|| {
            sums.add();
            drop((dropped, earlier, reading));
            sums.add();
        });
        let after: Vec<_> = (0..3).map(|i| put(driver, &pattern(i, 100_000))).collect();
        replay(driver, &graph).expect("a replay");
        assert_eq!(sums.read(), sums.after(2));
        for (i, buffer) in after.iter().enumerate() {
            assert_eq!(driver.download(buffer).expect("a download"), pattern(i, 100_000));
        }
        after.len()
    }
    on_each_device(case, 3);
}
