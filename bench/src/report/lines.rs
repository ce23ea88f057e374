//! Line charts as SVG: figures that grow, both axes logarithmic, so that a line's steepness is its exponent.

use std::fmt::Write;

use super::human;
use super::svg::{STYLE, escape};
use crate::curves::Point;

#[derive(Debug)]
pub(crate) struct LineChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    /// What grows from left to right.
    pub(crate) across: &'a str,
    pub(crate) lines: Vec<Drawn<'a>>,
}

#[derive(Debug)]
pub(crate) struct Drawn<'a> {
    pub(crate) label: String,
    pub(crate) points: &'a [Point],
    pub(crate) slope: f64,
    /// The same number, the same colour.
    pub(crate) colour: usize,
    /// Of another run than the first.
    pub(crate) dashed: bool,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 360.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 44.0;
const LEGEND_ROW: f64 = 24.0;
/// Distinct on light and on dark pages. More lines than these begin again.
const COLOURS: [&str; 4] = ["#0969da", "#cf222e", "#1a7f37", "#8250df"];

impl LineChart<'_> {
    /// The whole document.
    pub(crate) fn render(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\"><title>{title}</title><style>{STYLE}\
             .grid{{stroke:#9198a1;stroke-width:.5}}.line{{fill:none;stroke-width:2}}</style>\n\
             <text x=\"8\" y=\"22\" class=\"title\">{title}</text>\
             <text x=\"8\" y=\"40\" class=\"unit\">{unit} (both axes logarithmic)</text>\n",
            title = escape(self.title),
            unit = escape(self.unit),
        );
        self.render_axes(&mut svg);
        for (number, line) in self.lines.iter().enumerate() {
            self.render_line(&mut svg, number, line);
        }
        svg.push_str("</svg>\n");
        svg
    }

    // Writing to a string cannot fail.

    fn render_axes(&self, svg: &mut String) {
        for decade in decades(self.bounds(|point| [point.spread.min, point.spread.max])) {
            let y = self.y(decade);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{x2}\" y1=\"{y:.1}\" y2=\"{y:.1}\" class=\"grid\"/>\
                 <text x=\"{x}\" y=\"{text:.1}\" text-anchor=\"end\">{figure}</text>",
                x2 = WIDTH - RIGHT,
                x = LEFT - 8.0,
                text = y + 4.5,
                figure = human(decade),
            );
        }
        let mut places: Vec<f64> =
            self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.at)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        for at in places {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{at}</text>",
                x = self.x(at),
                y = HEIGHT - BOTTOM + 18.0,
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" class=\"unit\">{across}</text>",
            x = f64::midpoint(LEFT, WIDTH - RIGHT),
            y = HEIGHT - 8.0,
            across = escape(self.across),
        );
    }

    fn render_line(&self, svg: &mut String, number: usize, line: &Drawn<'_>) {
        let colour = COLOURS[line.colour % COLOURS.len()];
        let dash = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let places: Vec<(f64, f64)> =
            line.points.iter().map(|point| (self.x(point.at), self.y(point.spread.median))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" class=\"line\" stroke=\"{colour}\"{dash}/>",
            path.join(" ")
        );
        for (point, (x, y)) in line.points.iter().zip(&places) {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{}</title></circle>",
                human(point.spread.median)
            );
        }
        #[allow(clippy::cast_precision_loss, reason = "a handful of lines")]
        let y = TOP + LEGEND_ROW * number as f64 + 10.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{x1}\" x2=\"{x2}\" y1=\"{y}\" y2=\"{y}\" class=\"line\" stroke=\"{colour}\"{dash}/>\
             <text x=\"{text}\" y=\"{below}\">{label}, slope {slope:.2}</text>",
            x1 = WIDTH - RIGHT + 16.0,
            x2 = WIDTH - RIGHT + 40.0,
            text = WIDTH - RIGHT + 48.0,
            below = y + 4.5,
            label = escape(&line.label),
            slope = line.slope,
        );
    }

    fn bounds(&self, of: fn(&Point) -> [f64; 2]) -> (f64, f64) {
        let all = self.lines.iter().flat_map(|line| line.points).flat_map(of);
        all.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), figure| (low.min(figure), high.max(figure)))
    }

    fn x(&self, at: f64) -> f64 {
        let (low, high) = self.bounds(|point| [point.at, point.at]);
        LEFT + 24.0 + share(at, low, high) * (WIDTH - RIGHT - LEFT - 48.0)
    }

    fn y(&self, figure: f64) -> f64 {
        let (low, high) = self.bounds(|point| [point.spread.min, point.spread.max]);
        let (low, high) = (decade_below(low), decade_below(high) * 10.0);
        HEIGHT - BOTTOM - share(figure, low, high) * (HEIGHT - BOTTOM - TOP)
    }
}

/// Where a figure lies between two others, in logarithms.
fn share(figure: f64, low: f64, high: f64) -> f64 {
    if high > low { (figure / low).ln() / (high / low).ln() } else { 0.5 }
}

fn decade_below(figure: f64) -> f64 {
    10_f64.powf(figure.log10().floor())
}

fn decades((low, high): (f64, f64)) -> Vec<f64> {
    let (mut decade, last) = (decade_below(low), decade_below(high) * 10.0);
    let mut all = Vec::new();
    while decade <= last * 1.001 {
        all.push(decade);
        decade *= 10.0;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Spread;

    #[test]
    fn powers_are_straight_lines_inside_the_chart() {
        let points = [4.0, 16.0, 64.0].map(|at| Point { at, spread: Spread::of(&[at * at]) });
        let line = Drawn { label: "a & b".to_owned(), points: &points, slope: 2.0, colour: 0, dashed: false };
        let chart = LineChart { title: "t", unit: "u", across: "n", lines: vec![line] };
        let places = points.map(|point| (chart.x(point.at), chart.y(point.spread.median)));
        let steps = [0, 1].map(|at| (places[at + 1].0 - places[at].0, places[at + 1].1 - places[at].1));
        assert!((steps[0].0 - steps[1].0).abs() < 1e-9 && (steps[0].1 - steps[1].1).abs() < 1e-9);
        assert!(
            places.iter().all(|&(x, y)| (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT).contains(&y))
        );
        assert!(chart.render().contains("a &amp; b, slope 2.00"));
    }

    #[test]
    fn decades_surround_the_figures() {
        assert_eq!(decades((3.0, 250.0)), [1.0, 10.0, 100.0, 1_000.0]);
    }
}
