//! Progress of a training: a bar during an epoch, lines after it.

use super::is_quiet;
use crate::metrics::EpochMetrics;
use crate::train::Scored;
use crate::train::checkpoint::Progress;
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::io::Result;
use std::time::Instant;

/// Below this share of neuron-steps, a last layer gives the readout nothing to learn from.
const SILENT: f64 = 1e-4;

/// Columns left free after a bar: the terminal writes `^C` there, which must not start a new line.
const FREE: u16 = 4;
const WIDEST_BAR: usize = 28;
const NARROWEST_BAR: usize = 6;

/// Where progress is drawn: on standard error, unless it is not a terminal or `--quiet` is given.
pub fn target() -> ProgressDrawTarget {
    let terminal = Term::buffered_stderr();
    if is_quiet() || !terminal.is_term() {
        return ProgressDrawTarget::hidden();
    }
    ProgressDrawTarget::term_like_with_hz(Box::new(Narrow(terminal)), 8)
}

/// A terminal without its last columns, which indicatif would fill with blanks.
#[derive(Debug)]
struct Narrow(Term);

impl TermLike for Narrow {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(FREE)
    }

    fn move_cursor_up(&self, n: usize) -> Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
}

/// A bar that shows only its message.
pub fn message_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}").expect("the template is well-formed");
    ProgressBar::with_draw_target(None, target()).with_style(style)
}

/// Columns available for a line of progress.
pub fn room() -> usize {
    Narrow(Term::stderr()).width().into()
}

/// A line of progress in `room` columns: `head`, a bar, and the first `fields` that fit.
pub fn line(head: &str, share: f64, fields: &[String], room: usize) -> String {
    let width = |text: &str| text.chars().count();
    let mut tail = String::new();
    for field in fields {
        if width(head) + 1 + NARROWEST_BAR + width(&tail) + 2 + width(field) > room {
            break;
        }
        tail += &format!("  {field}");
    }
    let left = room.saturating_sub(width(head) + width(&tail) + 1).min(WIDEST_BAR);
    if left < NARROWEST_BAR {
        return format!("{head}{tail}").chars().take(room).collect();
    }
    let full = (share.clamp(0.0, 1.0) * left as f64) as usize;
    format!("{head} {}{}{tail}", "━".repeat(full), "─".repeat(left - full))
}

/// The remaining time of work of which `share` was done since `begin`, in words.
pub fn time_left(begin: Instant, share: f64) -> String {
    let seconds = begin.elapsed().as_secs_f64() * (1.0 - share) / share.max(1e-9);
    match seconds.ceil() as u64 {
        s if s < 100 => format!("{s} s left"),
        s if s < 6000 => format!("{} min left", s.div_ceil(60)),
        s => format!("{} h left", s.div_ceil(3600)),
    }
}

/// The bar of the current epoch, on standard error.
pub struct Bar {
    bar: ProgressBar,
    epochs: u32,
    current: u32,
    /// When this process began the epoch, and the share that was done before.
    begin: Instant,
    before: f64,
}

impl Bar {
    pub fn new(epochs: u32) -> Self {
        Self { bar: message_bar(), epochs, current: 0, begin: Instant::now(), before: 0.0 }
    }

    /// Shows one more step.
    pub fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress) {
        let share = done as f64 / total as f64;
        if epoch != self.current {
            self.current = epoch;
            self.begin = Instant::now();
            self.before = done.saturating_sub(1) as f64 / total as f64;
        }
        let totals = &progress.totals;
        let samples = totals.samples.max(1) as f64;
        let since = (share - self.before) / (1.0 - self.before);
        let fields = [
            format!("{done}/{total}"),
            format!("loss {:.4}", totals.loss / samples),
            format!("{:.2} %", 100.0 * totals.correct as f64 / samples),
            time_left(self.begin, since),
            format!("{:.0} images/s", totals.samples as f64 / progress.seconds.max(1e-9)),
        ];
        self.bar.set_message(line(&format!("epoch {epoch}/{}", self.epochs), share, &fields, room()));
    }

    /// Shows how many samples have been scored.
    pub fn scored(&mut self, done: usize, total: usize, what: Scored) {
        let head = match what {
            Scored::HeldOut(epoch) => format!("epoch {epoch}/{} held out", self.epochs),
            Scored::Test => "test".into(),
        };
        let share = done as f64 / total.max(1) as f64;
        self.bar.set_message(line(&head, share, &[format!("{done}/{total}")], room()));
    }

    /// Runs `f` with the bar hidden.
    pub fn suspend<R>(&self, f: impl FnOnce() -> R) -> R {
        self.bar.suspend(f)
    }

    /// Removes the bar.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// One line for an epoch, and one for each spiking layer.
pub fn epoch_lines(metrics: &EpochMetrics, epochs: u32, improved: bool) -> String {
    let width = epochs.to_string().len();
    let mut lines = format!(
        "epoch {:width$}/{epochs}  loss {:.4} {:6.2} %",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_fits_its_room() {
        let fields = ["1234/1875", "loss 0.1234", "92.13 %", "12 s left", "12345 images/s"].map(String::from);
        let at = |room| line("epoch 12/20", 0.5, &fields, room);
        for room in 0..200 {
            assert!(at(room).chars().count() <= room);
        }
        let bar = |half: usize| "━".repeat(half) + &"─".repeat(half);
        assert_eq!(at(76), format!("epoch 12/20 {}  1234/1875  loss 0.1234  92.13 %  12 s left", bar(10)));
        assert_eq!(at(46), format!("epoch 12/20 {}  1234/1875  loss 0.1234", bar(5)));
        assert!(at(120).contains("12345 images/s"));
    }
}
