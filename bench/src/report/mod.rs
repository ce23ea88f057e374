//! What came of a run, for people and for programs.

mod charts;
mod details;
pub(crate) mod json;
mod lines;
pub(crate) mod pages;
mod summary;
mod svg;
pub(crate) mod table;

/// Three digits that count, and no more.
pub(crate) fn human(figure: f64) -> String {
    match figure.abs() {
        large if large >= 1e6 => format!("{:.2}M", figure / 1e6),
        large if large >= 10_000.0 => format!("{:.1}k", figure / 1e3),
        middle if middle >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn figures_keep_the_digits_that_count() {
        let shown = [0.951, 12.34, 123.4, 1_234.5, 12_345.0, 1_234_567.0].map(human);
        assert_eq!(shown, ["0.95", "12.3", "123", "1234", "12.3k", "1.23M"]);
    }
}
