//! What a person sees of a training: a bar while an epoch runs, lines when it has ended.

use crate::train::checkpoint::Progress;
use crate::train::metrics::EpochMetrics;
use crate::train::session::Scored;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A last layer that fires less, a share of neuron-steps, gives the readout nothing to learn from.
const SILENT: f64 = 1e-4;

/// The bar of the current epoch, on standard error.
pub struct Bar {
    bar: ProgressBar,
    epochs: u32,
    current: u32,
}

impl Bar {
    /// A bar, or none when `quiet` or when nobody watches.
    pub fn new(epochs: u32, quiet: bool) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8))
        };
        let style = ProgressStyle::with_template("{prefix} {bar:28} {pos}/{len}  {msg}  {eta} left");
        bar.set_style(style.expect("the template is well-formed").progress_chars("━╸─"));
        Self { bar, epochs, current: 0 }
    }

    /// Shows one more step.
    pub fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress) {
        if epoch != self.current {
            self.current = epoch;
            self.bar.set_length(total);
            self.bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
            self.bar.set_position(done.saturating_sub(1));
            self.bar.reset_elapsed();
            self.bar.reset_eta();
        }
        self.bar.set_position(done);
        let totals = &progress.totals;
        let samples = totals.samples.max(1) as f64;
        self.bar.set_message(format!(
            "loss {:.4}  accuracy {:.2} %  {:.0} images/s",
            totals.loss / samples,
            100.0 * totals.correct as f64 / samples,
            totals.samples as f64 / progress.seconds.max(1e-9),
        ));
    }

    /// Shows how many samples are scored.
    pub fn scored(&mut self, done: usize, total: usize, what: Scored) {
        let prefix = match what {
            Scored::HeldOut(epoch) => format!("epoch {epoch}/{} held out", self.epochs),
            Scored::Test => "test".into(),
        };
        if self.bar.prefix() != prefix {
            // The next epoch begins a bar of its own.
            self.current = 0;
            self.bar.set_prefix(prefix);
            self.bar.set_message("");
            self.bar.set_position(0);
            self.bar.reset_elapsed();
            self.bar.reset_eta();
        }
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    /// Runs `f` with the bar out of the way.
    pub fn suspend<R>(&self, f: impl FnOnce() -> R) -> R {
        self.bar.suspend(f)
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// An epoch in one line, and a line for each spiking layer.
pub fn epoch_lines(metrics: &EpochMetrics, epochs: u32, improved: bool) -> String {
    let width = epochs.to_string().len();
    let mut lines = format!(
        "epoch {:width$}/{epochs}  loss {:.4}  accuracy {:6.2} %",
        metrics.epoch,
        metrics.train_loss,
        100.0 * metrics.train_accuracy
    );
    if let (Some(loss), Some(accuracy)) = (metrics.validation_loss, metrics.validation_accuracy) {
        let best = if improved { " *" } else { "  " };
        lines += &format!("  held out {loss:.4} {:6.2} %{best}", 100.0 * accuracy);
    }
    lines += &format!("  {:.0} images/s", metrics.images_per_second);
    for layer in &metrics.layers {
        lines += &format!("\n      {:10}", layer.name);
        if let Some(b) = layer.bounds {
            lines += &format!("  L {:.3}  R {:.3}", b.left, b.right);
        }
        lines += &format!("  fires {:5.2} %", 100.0 * layer.firing_rate);
        if let Some(inside) = layer.inside {
            lines += &format!("  inside {:5.2} %", 100.0 * inside);
        }
        if !layer.flags.is_empty() {
            lines += &format!("  {}", layer.flags.join(", "));
        }
    }
    if let Some(last) = metrics.layers.last().filter(|last| last.firing_rate < SILENT) {
        lines += &format!(
            "\n      {} almost never spikes, so no layer learns: batch norm, a larger norm_gain or a lower threshold helps",
            last.name
        );
    }
    lines
}
