//! `cargo bench --bench vote_spikes`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("vote_spikes")
}
