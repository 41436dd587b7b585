//! `cargo bench --bench avg_pool_forward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("avg_pool_forward")
}
