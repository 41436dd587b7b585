//! `cargo bench --bench conv_weight_grad`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("conv_weight_grad")
}
