//! `cargo bench --bench vote_backward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("vote_backward")
}
