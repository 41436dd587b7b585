//! `cargo bench --bench weight_norm_backward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("weight_norm_backward")
}
