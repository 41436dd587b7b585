//! Chooses the training samples that are held out for validation.

use crate::random::{CounterRng, stream};
use anyhow::Result;

/// The largest share that may be held out.
pub const MAX_SHARE: f64 = 0.5;

/// Divides samples into training and validation, both ascending and determined by the seed.
///
/// Of `N` samples, `round(share * N)` are held out, the same share from each class (largest remainders first),
/// but at least one sample of each class stays in training. A share of 0 holds none out.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if `share` is not in `[0, 0.5]`, or is above 0 but too small for
/// the number of samples.
pub fn hold_out(labels: &[u16], share: f64, seed: u64) -> Result<(Vec<u32>, Vec<u32>)> {
    if !(0.0..=MAX_SHARE).contains(&share) {
        crate::bail_input!("validation share {share} must be at least 0 and at most {MAX_SHARE}");
    }
    let Ok(count) = u32::try_from(labels.len()) else {
        crate::bail_input!("the data set has {} samples, but at most {} are used", labels.len(), u32::MAX);
    };
    let mut classes: Vec<Vec<u32>> = Vec::new();
    for (sample, &label) in (0..count).zip(labels) {
        let label = usize::from(label);
        if classes.len() <= label {
            classes.resize(label + 1, Vec::new());
        }
        classes[label].push(sample);
    }
    let sizes: Vec<usize> = classes.iter().map(Vec::len).collect();
    let mut held = vec![false; labels.len()];
    for (label, take) in apportion(&sizes, share).into_iter().enumerate() {
        CounterRng::new(seed, stream::HOLD_OUT).fork(label as u64).shuffle(&mut classes[label]);
        for &sample in &classes[label][..take] {
            held[sample as usize] = true;
        }
    }
    let (validation, train): (Vec<u32>, Vec<u32>) = (0..count).partition(|&sample| held[sample as usize]);
    if share > 0.0 && validation.is_empty() {
        crate::bail_input!(
            "validation share {share} holds out none of {count} samples; choose 0 or a larger share, or use more samples"
        );
    }
    Ok((train, validation))
}

/// How many of each class are held out: largest remainders, at most all but one.
fn apportion(sizes: &[usize], share: f64) -> Vec<usize> {
    let most = |class: usize| sizes[class].saturating_sub(1);
    let quota = |class: usize| share * sizes[class] as f64;
    let mut takes: Vec<usize> = (0..sizes.len()).map(|class| (quota(class) as usize).min(most(class))).collect();
    let total = (share * sizes.iter().sum::<usize>() as f64).round() as usize;
    let missing = total.saturating_sub(takes.iter().sum());
    let mut open: Vec<usize> = (0..sizes.len()).filter(|&class| takes[class] < most(class)).collect();
    // A stable sort: among equal remainders the lower class comes first.
    open.sort_by(|&a, &b| quota(b).fract().total_cmp(&quota(a).fract()));
    for class in open.into_iter().take(missing) {
        takes[class] += 1;
    }
    takes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InputError;

    fn labels(sizes: &[usize]) -> Vec<u16> {
        let most = sizes.iter().max().copied().unwrap_or(0);
        (0..most).flat_map(|i| (0..sizes.len()).filter(move |&c| i < sizes[c]).map(|c| c as u16)).collect()
    }

    #[test]
    fn every_sample_is_in_one_part_and_every_class_in_both() {
        let labels = labels(&[100, 50, 20, 11]);
        let mut cases = 0;
        for share in [0.1, 0.25, 0.29, 1.0 / 3.0, 0.5] {
            for seed in 0..5 {
                let (train, validation) = hold_out(&labels, share, seed).unwrap();
                assert_eq!((train.clone(), validation.clone()), hold_out(&labels, share, seed).unwrap());
                assert!(train.is_sorted() && validation.is_sorted());
                let mut all = [train, validation.clone()].concat();
                all.sort_unstable();
                assert!(all.into_iter().eq(0..181));
                assert_eq!(validation.len(), (share * 181.0).round() as usize);
                for (class, size) in [100.0, 50.0, 20.0, 11.0].into_iter().enumerate() {
                    let held = validation.iter().filter(|&&i| labels[i as usize] == class as u16).count();
                    assert!((held as f64 - share * size).abs() < 1.0, "{held} of {size} at {share}");
                }
                cases += 1;
            }
        }
        assert_eq!(cases, 25);
        assert_ne!(hold_out(&labels, 0.1, 0).unwrap(), hold_out(&labels, 0.1, 1).unwrap());
    }

    #[test]
    fn nothing_is_held_out_at_zero() {
        assert_eq!(hold_out(&[3, 1], 0.0, 7).unwrap(), (vec![0, 1], vec![]));
        assert_eq!(hold_out(&[], 0.0, 7).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn one_sample_of_a_class_always_trains() {
        let (train, validation) = hold_out(&[0, 1, 2, 2], 0.5, 1).unwrap();
        assert_eq!((train.len(), validation.len()), (3, 1));
        assert!(train.starts_with(&[0, 1]));
    }

    #[test]
    fn a_wrong_share_is_refused() {
        let many = labels(&[10, 10]);
        let mut cases = 0;
        for (labels, share) in [
            (&many[..], -0.1),
            (&many, 0.51),
            (&many, f64::NAN),
            (&many, f64::INFINITY),
            (&many, 0.01),
            (&[0, 1, 2], 0.5),
            (&[], 0.5),
        ] {
            let error = hold_out(labels, share, 0).unwrap_err();
            assert!(error.is::<InputError>() && error.to_string().contains(&share.to_string()), "{error}");
            cases += 1;
        }
        assert_eq!(cases, 7);
    }

    #[test]
    fn the_choice_is_frozen() {
        // So that a run of one version resumes in the next.
        let (_, validation) = hold_out(&[0, 1].repeat(10), 0.2, 42).unwrap();
        assert_eq!(validation, [1, 2, 8, 13]);
    }
}
