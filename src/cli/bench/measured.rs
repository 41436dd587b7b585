//! Operations measured on a device.

use super::super::progress::target;
use super::super::{End, command_line, is_quiet, is_unheard, say};
use super::BenchArguments;
use crate::backend::Backend;
use crate::bench::ceilings::Ceilings;
use crate::bench::measure::{COPIES, Copies};
use crate::bench::operation::Operation;
use crate::bench::record::{Failure, Measured};
use crate::bench::report::{Report, figure, table};
use crate::bench::roofline::roofline;
use crate::bench::shape::{LayerShape, Part};
use crate::bench::tensors::Layer;
use crate::compare::report::machine;
use crate::compare::train_step::{Stepped, train_steps};
use crate::files::output::Output;
use crate::input_error;
use crate::kernels::COMPILER;
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Bench<'a, B> {
    pub arguments: &'a BenchArguments,
    pub backend: &'a B,
    pub baseline: Option<&'a Report>,
    pub json: Option<Output>,
    pub svg: Option<Output>,
    pub stop: &'a AtomicBool,
}

impl<B: Backend> Bench<'_, B> {
    pub fn run(&mut self, operations: &[Operation], stepped: Option<&Stepped>) -> Result<End> {
        let ceilings = Ceilings::measure(self.backend)?;
        self.say(|| {
            let device = self.arguments.device.describe(self.backend);
            let (copy, products) = (figure(ceilings.copy / 1e9), figure(ceilings.products / 1e9));
            format!("device    {device}\nceilings  copy {copy} GB/s, products {products} GFLOP/s")
        })?;
        let mut measured = Measured::default();
        let ended = self.measure(operations, stepped, &ceilings, &mut measured);
        let Measured { records: results, failures } = measured;
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let report = Report {
            command: command_line(),
            version: env!("CARGO_PKG_VERSION").into(),
            machine: machine(),
            device: self.backend.describe(),
            compiler: COMPILER.map(String::from),
            time: time.map_or(0, |time| time.as_secs()),
            ceilings,
            results,
            failures,
        };
        if let Some(json) = &self.json {
            json.write(report.to_json()?.as_bytes())?;
        }
        if let Some(svg) = &self.svg {
            svg.write(roofline(&report)?.as_bytes())?;
        }
        ended?;
        let (failed, all) = (report.failures.len(), report.failures.len() + report.results.len());
        if let Some(Failure { operation, error, .. }) = report.failures.first() {
            bail!("{failed} of {all} operations failed, first {operation}: {error}");
        }
        Ok(if self.stop.load(Ordering::Relaxed) { End::Interrupted } else { End::Done })
    }

    fn measure(
        &self,
        operations: &[Operation],
        stepped: Option<&Stepped>,
        ceilings: &Ceilings,
        all: &mut Measured,
    ) -> Result<()> {
        let cases = self.arguments.cases(operations, self.backend.skips_silence());
        if !self.arguments.shape.is_empty() {
            cases.iter().try_for_each(|(shape, operations)| self.fits(*shape, operations))?;
        }
        let bar = self.bar(cases.len());
        for (shape, operations) in cases {
            bar.tick();
            let mut measured = Measured::default();
            for part in Part::ALL {
                let of_part: Vec<_> = operations.iter().copied().filter(|operation| operation.part() == part).collect();
                if !of_part.is_empty() {
                    measured.extend(self.operations(shape, &of_part, ceilings).unwrap_or_else(|error| {
                        let failures = of_part.iter().map(|operation| Failure::of(*operation, shape, &error));
                        Measured { records: Vec::new(), failures: failures.collect() }
                    }));
                }
            }
            bar.suspend(|| self.show(&shape.to_string(), &measured))?;
            all.extend(measured);
            bar.inc(1);
            // Without a reader or a file nobody would see the figures.
            if self.stop.load(Ordering::Relaxed) || (is_unheard() && self.json.is_none() && self.svg.is_none()) {
                return Ok(());
            }
        }
        bar.finish_and_clear();
        if let Some(stepped) = stepped
            && let Some(records) = train_steps(self.backend, stepped, &self.arguments.step.surrogate, self.stop)?
        {
            let title = format!("{} ({})", records[0].shape, self.arguments.step.network);
            let measured = Measured { records, failures: Vec::new() };
            self.show(&title, &measured)?;
            all.extend(measured);
        }
        Ok(())
    }

    /// Measures operations on copies of one layer.
    ///
    /// # Errors
    /// If the layer cannot be created, so that no operation can run.
    fn operations(&self, shape: LayerShape, operations: &[Operation], ceilings: &Ceilings) -> Result<Measured> {
        self.fits(shape, operations)?;
        let mut copies = Copies::new(self.backend, shape, operations, self.arguments.firing_rate, COPIES)?;
        // Alternatives that are compared take turns; others run one after the other.
        let together = if self.arguments.surrogates { operations.len() } else { 1 };
        let mut all = Measured::default();
        for operations in operations.chunks(together) {
            match copies.measure(operations, ceilings, self.arguments.rounds, self.stop) {
                Some(measured) => all.extend(measured),
                None => break,
            }
        }
        Ok(all)
    }

    /// A titled table, followed by the failures.
    fn show(&self, title: &str, Measured { records, failures }: &Measured) -> Result<()> {
        let rate = records.first().map_or(String::new(), |first| format!("  {:.1} % spike", 100.0 * first.firing_rate));
        if !records.is_empty() || !failures.is_empty() {
            self.say(|| format!("\n{title}{rate}"))?;
        }
        if !records.is_empty() {
            self.say(|| table(records, self.baseline).indented(2).trim_end().to_string())?;
        }
        for Failure { operation, variant, error, .. } in failures {
            let name = [operation.as_str(), variant.as_str()].join(" ");
            self.say(|| format!("  {}  failed: {error}", name.trim_end()))?;
        }
        for record in records {
            if let Some(images) = record.images_per_second {
                self.say(|| format!("  {}: {images:.0} images/s", record.variant))?;
            }
        }
        Ok(())
    }

    fn say(&self, line: impl FnOnce() -> String) -> Result<()> {
        if is_quiet() { Ok(()) } else { say(line()) }
    }

    fn bar(&self, cases: usize) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(cases as u64), target());
        let style = ProgressStyle::with_template("{bar:10} {pos}/{len}  {elapsed}");
        bar.set_style(style.expect("the template is well-formed").progress_chars("━╸─"));
        bar
    }

    /// Checks that the device has room for one copy of a layer.
    fn fits(&self, shape: LayerShape, operations: &[Operation]) -> Result<()> {
        let needed = Layer::size(self.backend, shape, &Operation::parts(operations));
        match self.backend.available_memory() {
            Some(free) if needed > free => Err(input_error!(
                "shape {shape} needs about {} MB, and {} MB are free; take fewer samples N",
                needed / 1_000_000,
                free / 1_000_000
            )),
            _ => Ok(()),
        }
    }
}
