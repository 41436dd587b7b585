//! `cargo bench --bench dropout_floats`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("dropout_floats")
}
