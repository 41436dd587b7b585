//! `cargo bench --bench tune_bounds`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("tune_bounds")
}
