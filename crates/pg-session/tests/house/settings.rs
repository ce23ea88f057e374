//! The page about the configuration: it lists every field with the default in the code, and no other field.

use std::collections::BTreeMap;

use pg_session::Config;

/// The first two columns of every row whose first one is a name in backticks.
fn rows(page: &str) -> BTreeMap<&str, &str> {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        Some((cells.next()?.strip_suffix('`')?, cells.next()?.trim_matches('`')))
    });
    rows.collect()
}

fn fields() -> BTreeMap<String, String> {
    let default = serde_json::to_value(Config::default()).expect("a configuration has a JSON form");
    let fields = default.as_object().expect("a struct").iter();
    fields.map(|(name, value)| (name.clone(), value.to_string())).collect()
}

fn faults(page: &str, fields: &BTreeMap<String, String>) -> Vec<String> {
    let rows = rows(page);
    let mut faults = Vec::new();
    for (name, default) in fields {
        match rows.get(name.as_str()) {
            None => faults.push(format!("`{name}` is missing; its default is `{default}`")),
            Some(shown) if shown != default => {
                faults.push(format!("`{name}`: the page says `{shown}`, the code `{default}`"));
            }
            Some(_) => {}
        }
    }
    let unknown = rows.keys().filter(|name| !fields.contains_key(**name));
    faults.extend(unknown.map(|name| format!("`{name}` is not a field")));
    faults
}

#[test]
fn configuration_page_lists_every_field_with_default() {
    let faults = faults(&crate::papers::read("docs/configuration.md"), &fields());
    assert!(faults.is_empty(), "docs/configuration.md:\n{}", faults.join("\n"));
}

#[test]
fn a_field_that_the_page_has_wrong_or_not_at_all_is_found() {
    let fields = [("a", "1"), ("b", "2"), ("c", "\"x\"")].map(|(name, value)| (name.into(), value.into()));
    let page =
        "| field | default |\n|---|---|\n| `a` | `1` | ok |\n| `b` | `3` | wrong |\n| `d` | `4` | gone |";
    let faults = faults(page, &fields.into());
    assert_eq!(
        faults,
        [
            "`b`: the page says `3`, the code `2`",
            "`c` is missing; its default is `\"x\"`",
            "`d` is not a field"
        ]
    );
}
