//! `cargo bench --bench norm_spike_backward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("norm_spike_backward")
}
