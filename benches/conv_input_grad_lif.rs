//! `cargo bench --bench conv_input_grad_lif`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("conv_input_grad_lif")
}
