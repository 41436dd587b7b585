//! `cargo bench --bench input`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("input")
}
