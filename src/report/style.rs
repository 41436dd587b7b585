//! What the figures share: the page, text, colours and the frame of a panel.

use super::axis::Axis;
use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Drawing units per SVG pixel: plotters rounds to whole units, which would show as steps in curves.
const UNITS: f64 = 4.0;
/// Space around a plot for ticks and names, in pixels.
const FRAME_LEFT: f64 = 66.0;
const FRAME_RIGHT: f64 = 14.0;
const FRAME_BOTTOM: f64 = 40.0;
const FAMILY: &str = "sans-serif";
/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
/// Secondary text.
pub(super) const MUTED: RGBColor = RGBColor(95, 95, 95);
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Blue: training.
pub(super) const TRAIN: RGBColor = RGBColor(0, 114, 178);
/// Vermillion: validation.
pub(super) const VALIDATION: RGBColor = RGBColor(213, 94, 0);
/// Vermillion: problems of a layer.
pub(super) const WARNING: RGBColor = RGBColor(213, 94, 0);
/// Sky blue: potentials below the threshold.
pub(super) const SILENT: RGBColor = RGBColor(86, 180, 233);
/// Orange: potentials that spike.
pub(super) const SPIKING: RGBColor = RGBColor(230, 159, 0);
/// Bluish green: the surrogate's window.
pub(super) const WINDOW: RGBColor = RGBColor(0, 158, 115);

/// A part of the page.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A panel ready for its data.
pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Converts SVG pixels to drawing units.
pub(super) fn px(pixels: f64) -> i32 {
    (pixels * UNITS).round() as i32
}

/// A stroke `pixels` wide.
pub(super) fn stroke(colour: impl Into<RGBAColor>, pixels: f64) -> ShapeStyle {
    ShapeStyle { color: colour.into(), filled: false, stroke_width: px(pixels) as u32 }
}

/// A white page of `width` by `height` pixels as an SVG document.
pub(super) fn page(width: u32, height: u32, draw: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    let (wide, high) = (px(f64::from(width)), px(f64::from(height)));
    {
        let area = SVGBackend::with_string(&mut svg, (wide as u32, high as u32)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    // The view box keeps the drawing units; round joins stop noisy curves from growing spikes.
    let drawn = format!("width=\"{wide}\" height=\"{high}\"");
    let shown = format!("width=\"{width}\" height=\"{height}\" stroke-linejoin=\"round\"");
    Ok(svg.replacen(&drawn, &shown, 1))
}

/// The style of a line of text. Sizes are in pixels.
#[derive(Clone, Copy)]
pub(super) struct Text {
    pub size: f64,
    pub colour: RGBColor,
    pub bold: bool,
    pub anchor: HPos,
}

impl Text {
    pub const TITLE: Self = Self { size: 17.0, colour: INK, bold: true, anchor: HPos::Left };
    pub const PANEL: Self = Self { size: 13.0, colour: INK, bold: true, anchor: HPos::Left };
    pub const BODY: Self = Self { size: 11.0, colour: INK, bold: false, anchor: HPos::Left };
    pub const NOTE: Self = Self { size: 10.0, colour: MUTED, bold: false, anchor: HPos::Left };
    pub const FLAG: Self = Self { size: 11.0, colour: WARNING, bold: true, anchor: HPos::Left };

    pub fn anchored(self, anchor: HPos) -> Self {
        Self { anchor, ..self }
    }

    pub fn coloured(self, colour: RGBColor) -> Self {
        Self { colour, ..self }
    }

    /// Width of `text` in pixels, with some reserve for the usual sans-serif fonts.
    pub fn width(self, text: &str) -> f64 {
        let em = if self.bold { 0.66 } else { 0.58 };
        text.chars().count() as f64 * em * self.size
    }

    /// `text` without characters forbidden in XML, cut to `width` pixels.
    pub fn fit(self, text: &str, width: f64) -> String {
        let forbidden = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
        let mut text: String = text.chars().map(|c| if forbidden(c) { ' ' } else { c }).collect();
        if self.width(&text) > width {
            let whole = (width / self.width("x")) as usize;
            text = text.chars().take(whole.saturating_sub(1)).collect();
            text.push('…');
        }
        text
    }

    /// Draws `text` with its middle line at `y`; pixels from the area's corner.
    pub fn draw(self, area: &Area, (x, y): (f64, f64), text: &str) -> Result<()> {
        Ok(area.draw_text(text, &self.style(), (px(x), px(y)))?)
    }

    fn style(self) -> TextStyle<'static> {
        let face = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        // plotters-svg divides sizes by 1.24.
        let at = Pos::new(self.anchor, VPos::Center);
        let style = TextStyle::from((FAMILY, self.size * UNITS * 1.24, face)).pos(at);
        TextStyle { color: self.colour.to_backend_color(), ..style }
    }
}

/// The frame of a panel: axes with ticks, names and horizontal grid lines. It fills `area`.
pub(super) fn frame<'a, 'b>(area: &'a Area<'b>, x: &Axis, y: &Axis) -> Result<Chart<'a, 'b>> {
    const NAME: Text = Text { anchor: HPos::Center, ..Text::BODY };
    let mut chart = ChartBuilder::on(area)
        .margin_right(px(FRAME_RIGHT))
        .x_label_area_size(px(FRAME_BOTTOM))
        .y_label_area_size(px(FRAME_LEFT))
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(stroke(GRID, 0.75))
        .axis_style(stroke(INK, 1.0))
        .set_all_tick_mark_size(px(4.0))
        .label_style(Text { size: 10.5, ..Text::BODY }.style())
        .draw()?;
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (f64::from(width) / UNITS, f64::from(height) / UNITS);
    NAME.draw(area, ((width + FRAME_LEFT - FRAME_RIGHT) / 2.0, height - 9.0), &x.name)?;
    let upright = NAME.style().transform(FontTransform::Rotate270);
    area.draw_text(&y.name, &upright, (px(14.0), px((height - FRAME_BOTTOM) / 2.0)))?;
    Ok(chart)
}

/// Draws `text` in the middle of an empty panel.
pub(super) fn draw_in_middle(area: &Area, text: &str) -> Result<()> {
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (f64::from(width) / UNITS, f64::from(height) / UNITS);
    let middle = ((width + FRAME_LEFT - FRAME_RIGHT) / 2.0, (height - FRAME_BOTTOM) / 2.0 - 8.0);
    Text::BODY.coloured(MUTED).anchored(HPos::Center).draw(area, middle, text)
}

/// Colour of layer `index` of `count`: viridis without its lightest part, dark first.
pub(super) fn depth_colour(index: usize, count: usize) -> RGBColor {
    const STOPS: [[f64; 3]; 6] =
        [[68., 1., 84.], [64., 67., 135.], [41., 120., 142.], [34., 167., 132.], [121., 209., 81.], [189., 223., 38.]];
    let at = index as f64 / count.saturating_sub(1).max(1) as f64 * (STOPS.len() - 1) as f64;
    let stop = (at as usize).min(STOPS.len() - 2);
    let mix = |c: usize| (STOPS[stop][c] + (at - stop as f64) * (STOPS[stop + 1][c] - STOPS[stop][c])).round() as u8;
    RGBColor(mix(0), mix(1), mix(2))
}

/// A share in percent with one decimal, never rounded to 0 or 100 unless exact.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        p if p == 0.0 || p == 100.0 => format!("{p:.0} %"),
        p if p < 0.1 => "< 0.1 %".into(),
        p if p > 99.9 => "> 99.9 %".into(),
        p => format!("{p:.1} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_do_not_round_to_none_or_all() {
        assert_eq!([0.0, 1e-5, 0.123, 0.9999, 1.0].map(percent), ["0 %", "< 0.1 %", "12.3 %", "> 99.9 %", "100 %"]);
    }

    #[test]
    fn long_text_is_cut_and_control_characters_go() {
        assert_eq!(Text::BODY.fit("short\u{7}", 200.0), "short ");
        let cut = Text::BODY.fit(&"x".repeat(100), 200.0);
        assert!(cut.ends_with('…') && Text::BODY.width(&cut) <= 200.0);
    }

    #[test]
    fn layers_have_colours_of_their_own() {
        let colours: Vec<_> = (0..12).map(|i| depth_colour(i, 12)).collect();
        assert!((1..12).all(|i| colours[i] != colours[i - 1]));
        assert_eq!(depth_colour(0, 1), RGBColor(68, 1, 84));
    }
}
