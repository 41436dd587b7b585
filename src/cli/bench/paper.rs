//! `adali bench --card`

use super::super::{End, command_line, is_quiet, say};
use super::BenchArguments;
use crate::bail_input;
use crate::bench::card::NamedCard;
use crate::bench::ceilings::Ceilings;
use crate::bench::counters::Counters;
use crate::bench::operation::Operation;
use crate::bench::paper::{Paper, counted, counter_table, table as paper_table};
use crate::bench::report::figure;
use crate::files::output::Output;
use crate::kernels::COMPILER;
use anyhow::Result;

/// Prints and writes plans.
pub fn on_paper(
    arguments: &BenchArguments,
    card: NamedCard,
    operations: &[Operation],
    json: Option<Output>,
) -> Result<End> {
    if operations.is_empty() {
        bail_input!("a plan for a card has no train_step; name operations of a layer, or none for all");
    }
    let precision = arguments.device.precision.into();
    let counters = arguments.counters.as_deref().map(Counters::read).transpose()?;
    let estimates = counters.is_some();
    let mut paper = Paper::new(card, precision, counters)?;
    let (name, Ceilings { copy, products }) = (card.name(), card.ceilings(precision));
    if !is_quiet() {
        let (copy, products) = (figure(copy / 1e9), figure(products / 1e9));
        say(format!("{name}, on paper, not measured: {copy} GB/s, {products} GFLOP/s by its data sheet"))?;
    }
    let mut plans = Vec::new();
    for (shape, operations) in arguments.cases(operations, false) {
        let planned = paper.plan(shape, &operations, arguments.firing_rate)?;
        if !is_quiet() {
            say(format!("\n{shape}\n{}", paper_table(&planned).indented(2).trim_end()))?;
        }
        if estimates && !is_quiet() {
            let (counted, launches) = counted(&planned);
            say(format!(
                "\n{counted} of {launches} launches were counted: thousands of PTX instructions of warps, sectors of 32 bytes and\n\
                 wavefronts per access, each with the minimum, and an estimated (not measured) time\n{}",
                counter_table(&planned).indented(2).trim_end()
            ))?;
        }
        plans.extend(planned);
    }
    if !paper.reads_code() && !is_quiet() {
        say("\nno machine code was looked at: cuobjdump is not found (`make cuda` fetches it)")?;
    }
    if let Some(json) = json {
        let plan = serde_json::json!({
            "command": command_line(),
            "version": env!("CARGO_PKG_VERSION"),
            "card": name,
            "measured": false,
            "compiler": COMPILER,
            "plans": plans,
        });
        json.write((serde_json::to_string_pretty(&plan)? + "\n").as_bytes())?;
    }
    Ok(End::Done)
}
