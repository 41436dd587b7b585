//! Configurations, networks and plans in TOML: any text is read, or refused in one line as a user error.
#![no_main]

use adali::compare::plan::PlanFile;
use adali::error::exit_code;
use adali::network::spec::NetworkSpec;
use adali::train::Config;
use adali::train::config::parse_checked;
use adali::train::schema::Document;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let configuration = Config::parse(text, "fuzz").map(|config| drop(config.to_toml()));
    let network = parse_checked::<NetworkSpec>(Document::Network, text, "fuzz").map(drop);
    let plan = PlanFile::parse(text, "fuzz").and_then(|plan| plan.runs()).map(drop);
    for error in [configuration, network, plan].into_iter().filter_map(Result::err) {
        assert!(exit_code(&error) == 2 && !format!("{error:#}").contains('\n'), "{error:?}");
    }
});
