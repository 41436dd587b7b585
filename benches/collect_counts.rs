//! `cargo bench --bench collect_counts`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("collect_counts")
}
