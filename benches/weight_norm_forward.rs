//! `cargo bench --bench weight_norm_forward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("weight_norm_forward")
}
