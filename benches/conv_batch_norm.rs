//! `cargo bench --bench conv_batch_norm`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("conv_batch_norm")
}
