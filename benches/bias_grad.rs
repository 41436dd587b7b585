//! `cargo bench --bench bias_grad`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("bias_grad")
}
