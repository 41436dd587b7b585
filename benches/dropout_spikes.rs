//! `cargo bench --bench dropout_spikes`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("dropout_spikes")
}
