//! What a plan refuses.

use crate::network::{NetworkSpec, Plan, Volume};

const A: &str = "type = \"conv\"\nname = \"a\"\nchannels = 4\nkernel = 3\npadding = 1";
const BARE: &str = "type = \"conv\"\nname = \"a\"\nchannels = 4\nkernel = 3\npadding = 1\nneurons = false";
const NEXT: &str = "type = \"conv\"\nchannels = 4\nkernel = 3\npadding = 1";
const READOUT: &str = "type = \"readout\"\nclasses = 10";

/// Plans layers of 8x6x2 samples.
fn plan(layers: &[&str]) -> anyhow::Result<Plan> {
    let layers: String = layers.iter().map(|layer| format!("[[layers]]\n{layer}\n")).collect();
    let spec: NetworkSpec = toml::from_str(&format!("steps = 2\ninput = \"direct\"\n{layers}"))?;
    Plan::new(&spec, Volume { h: 8, w: 6, c: 2 })
}

#[test]
fn what_does_not_fit_is_refused() {
    let pool = |kind: &str| format!("type = \"{kind}\"\nkernel = 2");
    let [max, avg] = ["max_pool", "avg_pool"].map(pool);
    let dropout = "type = \"dropout\"\nprobability = 0.1";
    let with = |layer: &str, more: &str| format!("{layer}\n{more}");
    let shortcut = |keys: &str| with(NEXT, &format!("shortcuts = [{{ from = \"a\"{keys} }}]"));
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![A.into()], "the network has no readout"),
        (vec![READOUT.into(), A.into()], "layer 1 comes after the readout"),
        (vec![max.clone()], "layer 0 (max_pool) must directly follow"),
        (vec![A.into(), avg.clone(), max.clone()], "layer 2 (max_pool) must directly follow"),
        (vec![A.into(), dropout.into(), dropout.into()], "layer 2 (dropout) must follow"),
        (vec![with(A, "stride = 0")], "stride 0x0 must be at least 1"),
        (vec![A.replace("padding = 1", "padding = 2000")], "padding 2000x2000 must be at most"),
        (vec![A.replace("kernel = 3", "kernel = 30")], "does not fit its input 8x6x2"),
        (vec![A.into(), "type = \"avg_pool\"\nkernel = 3\npadding = 2".into()], "at most half the kernel"),
        (vec![with(NEXT, "from = \"a\"")], "there is no layer \"a\" before it; no layer before it has a name"),
        (vec![A.into(), A.into()], "was given to another layer"),
        (vec![A.into(), max.clone(), shortcut(", take = \"currents\"")], "is 8x6x4 (height x width x channels), but"),
        (vec![A.into(), shortcut(", pool = 2")], "has keys of a convolution, but no kernel"),
        (vec![A.into(), with(NEXT, "combine = { from = \"b\", with = \"add\" }")], "no layer \"b\" before it; layers"),
        (
            vec![A.into(), avg.clone(), with(NEXT, "combine = { from = \"a\", with = \"and\" }")],
            "dense values; use add",
        ),
        (vec![A.into(), max.clone(), with(A, "combine = { from = \"a\", with = \"or\" }")], "unknown variant `or`"),
        (vec![A.into(), NEXT.replace('4', "5") + "\ncombine = { from = \"a\", with = \"add\" }"], "they must be equal"),
        (vec![with(A, "sum_norm = \"weight\"")], "a weight norm belongs to a convolution"),
        (vec![with(A, "sum_scale = -1.0")], "sum_scale -1 must be"),
        (vec![with(A, "scale = 0.0")], "scale 0 must be a finite number other than 0"),
        (vec![with(A, "norm = \"batch\"\ngain = 1.0")], "cannot be combined with a batch norm"),
        (vec![with(A, "norm = \"weight\"\nbias = true")], "weight norm has its own bias"),
        (
            vec![A.into(), with(NEXT, "name = \"b\""), with(NEXT, "from = \"a\""), READOUT.into()],
            "layer 1: no layer reads",
        ),
        (vec!["type = \"neurons\"".into()], "layer 0 (neurons) cannot be the first layer"),
        (vec![A.into(), "type = \"neurons\"\ngain = 1.0".into()], "no convolution that gain could multiply"),
        (vec![BARE.into(), max.clone()], "takes the maximum of spikes; use avg_pool"),
        (vec![BARE.into(), dropout.into()], "follows a layer without neurons"),
        (vec![with(BARE, "sum_norm = \"batch\"")], "need neurons"),
        (vec![with(BARE, "sum_scale = 0.5")], "need neurons"),
        (vec![BARE.into(), with(NEXT, "combine = { from = \"a\", with = \"add\" }")], "has no neurons to combine with"),
    ];
    for (layers, expected) in &cases {
        let mut layers: Vec<&str> = layers.iter().map(String::as_str).collect();
        if !layers.contains(&READOUT) && *expected != "the network has no readout" {
            layers.push(READOUT);
        }
        let error = plan(&layers).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}\nnot\n{expected}");
    }
    assert_eq!(cases.len(), 30);
    plan(&[BARE, &avg, dropout, "type = \"neurons\"", &shortcut(""), READOUT]).expect("a network");
}
