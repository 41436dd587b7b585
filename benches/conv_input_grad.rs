//! `cargo bench --bench conv_input_grad`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("conv_input_grad")
}
