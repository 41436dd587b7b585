//! Figures of a training run as SVG documents: curves over the epochs, membrane potentials layer by layer.
//!
//! Text stays `<text>` in a generic sans-serif family, so nothing here needs font files. Colours are Okabe and
//! Ito's colour-blind-safe set; layers take viridis from dark (first) to light (last).

mod axis;
pub mod comparison;
mod curves;
mod events;
mod membranes;
mod populations;
mod style;

pub use curves::curves;
pub use events::events;
pub use membranes::{MembranePanel, membranes};
pub use populations::populations;

#[cfg(test)]
mod tests {
    /// Fails unless every tag of `svg` closes in order, quotes its attributes and escapes its text.
    pub(super) fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg.trim();
        assert!(rest.starts_with("<svg ") && rest.ends_with("</svg>"), "one svg element");
        while let Some(start) = rest.find('<') {
            let (text, tag) = rest.split_at(start);
            assert!(!text.contains('>'), "a bare > in {text:?}");
            assert_escaped(text);
            let end = tag.find('>').expect("a tag ends");
            let inner = &tag[1..end];
            rest = &tag[end + 1..];
            if let Some(name) = inner.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "tags nest");
                continue;
            }
            assert!(!inner.contains('<'), "a bare < in {inner:?}");
            assert_eq!(inner.matches('"').count() % 2, 0, "attributes are quoted in {inner:?}");
            assert_escaped(inner);
            if !inner.ends_with('/') {
                open.push(inner.split(' ').next().expect("a tag has a name"));
            }
        }
        assert!(open.is_empty(), "{open:?} stays open");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "every coordinate is a number");
        let allowed = |c: char| c == '\n' || !c.is_control();
        assert!(svg.chars().all(allowed), "XML holds no control characters");
    }

    fn assert_escaped(text: &str) {
        for entity in text.split('&').skip(1) {
            let known = ["lt;", "gt;", "amp;", "quot;", "apos;"].iter().any(|e| entity.starts_with(e));
            assert!(known, "a bare & before {entity:?}");
        }
    }
}
