//! `cargo bench --bench vote_currents`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("vote_currents")
}
