//! `cargo bench --bench max_pool_forward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("max_pool_forward")
}
