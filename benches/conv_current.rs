//! `cargo bench --bench conv_current`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("conv_current")
}
