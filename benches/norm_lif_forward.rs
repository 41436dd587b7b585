//! `cargo bench --bench norm_lif_forward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("norm_lif_forward")
}
