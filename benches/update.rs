//! `cargo bench --bench update`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("update")
}
