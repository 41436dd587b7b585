//! `cargo bench --bench spike_backward`

mod criterion;

fn main() -> anyhow::Result<()> {
    criterion::bench("spike_backward")
}
