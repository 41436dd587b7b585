//! `cargo bench --bench pack_weight`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("pack_weight")
}
