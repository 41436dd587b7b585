//! `cargo bench --bench conv_lif_forward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("conv_lif_forward")
}
