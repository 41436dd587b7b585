//! `cargo bench --bench loss`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("loss")
}
