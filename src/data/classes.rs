//! Checks that both parts of a data set have samples of every class.

use super::files::some_of;
use super::{Dataset, Samples};
use anyhow::Result;

/// Notes the classes for which a part has no sample.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if a part has no samples at all.
pub(super) fn check(data: &mut Dataset) -> Result<()> {
    for (part, samples) in [("training", &data.train), ("test", &data.test)] {
        if samples.is_empty() {
            crate::bail_input!("{} has no {part} sample in {}; add some", data.name, data.source);
        }
    }
    let absent = |samples: &Samples| {
        let mut absent = vec![true; data.classes()];
        samples.labels.iter().for_each(|&label| absent[usize::from(label)] = false);
        absent
    };
    let (unlearned, untested) = (absent(&data.train), absent(&data.test));
    let lost = data.test.labels.iter().filter(|&&label| unlearned[usize::from(label)]).count();
    let mut notes = Vec::new();
    if let Some(names) = named(data, &unlearned) {
        let part = if lost == 0 { String::new() } else { format!(", but {lost} of {} test samples", data.test.len()) };
        notes.push(format!("{}: no training sample of class {names}{part}", data.source));
    }
    if let Some(names) = named(data, &untested) {
        notes.push(format!("{}: no test sample of class {names}", data.source));
    }
    data.notes.extend(notes);
    Ok(())
}

/// The names of the chosen classes, if any.
fn named(data: &Dataset, chosen: &[bool]) -> Option<String> {
    let names: Vec<&str> =
        data.class_names.iter().zip(chosen).filter(|class| *class.1).map(|class| &class.0[..]).collect();
    (!names.is_empty()).then(|| some_of(&names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SampleShape;

    fn data(train: &[u16], test: &[u16]) -> Dataset {
        let shape = SampleShape { frames: 1, height: 1, width: 1, channels: 1 };
        let part = |labels: &[u16]| Samples { shape, values: vec![0; labels.len()].into(), labels: labels.into() };
        Dataset {
            name: "n-mnist".into(),
            source: "here".into(),
            class_names: (0..10).map(|class| format!("c{class}")).collect(),
            full_scale: 1.0,
            mean: vec![0.0],
            std: vec![1.0],
            train: part(train),
            test: part(test),
            notes: Vec::new(),
        }
    }

    #[test]
    fn classes_without_samples_are_noted() {
        let all: Vec<u16> = (0..10).collect();
        for (train, test, expected) in [
            (&all[..], &all[..], &[][..]),
            (&all[..9], &all[..], &["no training sample of class c9, but 1 of 10 test samples"]),
            (&all[2..], &all[2..], &["no training sample of class c0, c1", "no test sample of class c0, c1"]),
            (&all[..], &[1, 1], &["no test sample of class c0, c2, c3 and 6 more"]),
        ] {
            let mut data = data(train, test);
            check(&mut data).unwrap();
            let expected: Vec<String> = expected.iter().map(|text| format!("here: {text}")).collect();
            assert_eq!(data.notes, expected);
        }
        for (train, test, part) in [(&all[..], &[][..], "no test sample"), (&[], &all, "no training sample")] {
            let error = check(&mut data(train, test)).unwrap_err();
            assert!(error.is::<crate::error::InputError>() && error.to_string().contains(part), "{error}");
        }
    }
}
