//! Bar charts as SVG, readable on light and dark pages: the medians as bars, minimum and maximum as a line over them.

use std::fmt::Write;

use super::human;
use crate::book::Spread;

/// A chart of one metric.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) scale: Scale,
    /// Where a line crosses all bars, if anywhere.
    pub(crate) mark: Option<f64>,
    pub(crate) bars: Vec<Bar>,
}

/// How a figure becomes a length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    Linear,
    /// Each step to the right is ten times as much.
    Log,
}

#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) spread: Spread,
    pub(crate) kind: Kind,
}

/// How a bar is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Ours,
    Peer,
    Floor,
    Missed,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Peer => "peer",
            Self::Floor => "floor",
            Self::Missed => "missed",
        }
    }
}

const WIDTH: f64 = 960.0;
const LABELS: f64 = 420.0;
const FIGURES: f64 = 110.0;
const TOP: f64 = 52.0;
const ROW: f64 = 26.0;
pub(super) const STYLE: &str = "text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}\
.title{font-size:15px;font-weight:600}.unit{fill:#59636e}.ours{fill:#0969da}.peer{fill:#9198a1}.floor{fill:#d4a72c}\
.missed{fill:#cf222e}.spread{stroke:#1f2328;stroke-width:1.5}.mark{stroke:#1a7f37;stroke-width:2;stroke-dasharray:4 3}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.unit{fill:#9198a1}.ours{fill:#4493f8}.peer{fill:#656c76}\
.floor{fill:#bb8009}.missed{fill:#f85149}.spread{stroke:#e6edf3}.mark{stroke:#3fb950}}";

impl Chart<'_> {
    /// The whole document.
    pub(crate) fn render(&self) -> String {
        #[allow(clippy::cast_precision_loss, reason = "a handful of bars")]
        let height = TOP + ROW * self.bars.len() as f64 + 12.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\"><title>{title}</title><style>{STYLE}</style>\n\
             <text x=\"8\" y=\"22\" class=\"title\">{title}</text>\
             <text x=\"8\" y=\"40\" class=\"unit\">{unit}</text>\n",
            title = escape(self.title),
            unit = escape(self.unit),
        );
        let mut y = TOP;
        for bar in &self.bars {
            self.render_bar(&mut svg, bar, y);
            y += ROW;
        }
        if let Some(mark) = self.mark {
            let x = LABELS + self.length(mark);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{y:.1}\" class=\"mark\"/>"
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Writing to a string cannot fail.
    fn render_bar(&self, svg: &mut String, bar: &Bar, y: f64) {
        let Spread { median, min, max } = bar.spread;
        let middle = y + ROW / 2.0;
        let text = middle + 4.5;
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{text:.1}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LABELS}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{thick:.1}\" rx=\"2\" class=\"{class}\"/>\
             <line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" class=\"spread\"/>\
             <text x=\"{after:.1}\" y=\"{text:.1}\">{figure}</text>",
            x = LABELS - 8.0,
            label = escape(&bar.label),
            top = y + 4.0,
            width = self.length(median).max(1.0),
            thick = ROW - 8.0,
            class = bar.kind.class(),
            from = LABELS + self.length(min),
            to = LABELS + self.length(max),
            after = LABELS + self.length(max.max(median)) + 8.0,
            figure = human(median),
        );
    }

    fn length(&self, figure: f64) -> f64 {
        let room = WIDTH - LABELS - FIGURES;
        let largest =
            self.bars.iter().map(|bar| bar.spread.max).chain(self.mark).fold(f64::MIN_POSITIVE, f64::max);
        match self.scale {
            Scale::Linear => (figure / largest).max(0.0) * room,
            Scale::Log => {
                let smallest = self.bars.iter().map(|bar| bar.spread.min).chain(self.mark);
                // The decade below the smallest, so that its bar can be seen.
                let begin = smallest.fold(f64::MAX, f64::min).max(f64::MIN_POSITIVE).log10().floor();
                let begin = if begin < largest.log10() { begin } else { begin - 1.0 };
                (figure.max(f64::MIN_POSITIVE).log10() - begin).max(0.0) / (largest.log10() - begin) * room
            }
        }
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale) -> Chart<'static> {
        let bar = |median: f64| Bar {
            label: format!("a & {median}"),
            spread: Spread { median, min: median / 2.0, max: median * 2.0 },
            kind: Kind::Ours,
        };
        Chart { title: "t", unit: "u", scale, mark: None, bars: vec![bar(10.0), bar(1_000.0)] }
    }

    #[test]
    fn largest_figure_fills_chart_and_decades_have_equal_length() {
        let room = WIDTH - LABELS - FIGURES;
        for scale in [Scale::Linear, Scale::Log] {
            assert!((chart(scale).length(2_000.0) - room).abs() < 1e-9);
        }
        let log = chart(Scale::Log);
        let decade = log.length(100.0) - log.length(10.0);
        assert!((log.length(1_000.0) - log.length(100.0) - decade).abs() < 1e-9);
    }

    #[test]
    fn labels_are_text_and_not_markup() {
        assert!(chart(Scale::Linear).render().contains("a &amp; 10"));
    }
}
