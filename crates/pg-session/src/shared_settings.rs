//! The settings that all nodes of an application must share, as the registry of nodes holds them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Config;

/// The name under which a tool finds the revocation bound.
const TRUST_WINDOW: &str = "trust_window_ms";

impl Config {
    /// A JSON object of numbers and texts. Durations are in milliseconds.
    pub(crate) fn shared_settings(&self) -> String {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_string();
        let settings: BTreeMap<&str, String> = [
            (TRUST_WINDOW, millis(self.trust_window)),
            ("absolute_timeout_ms", millis(self.absolute_timeout)),
            ("idle_timeout_ms", millis(self.idle_timeout)),
            ("rotation_grace_ms", millis(self.rotation_grace)),
            ("sessions_per_user_max", self.sessions_per_user_max.to_string()),
            ("on_session_limit", format!("{:?}", self.on_session_limit)),
            ("attribute_key_bytes_max", self.attribute_key_bytes_max.to_string()),
            ("attribute_value_bytes_max", self.attribute_value_bytes_max.to_string()),
            ("attributes_max", self.attributes_max.to_string()),
            ("session_bytes_max", self.session_bytes_max.to_string()),
            ("notify_updates", self.notify_updates.to_string()),
        ]
        .into();
        serde_json::json!(settings).to_string()
    }

    /// Takes the longest trust window of the running nodes. Otherwise a tool could take a trusted node for silent.
    /// Without a node, or with unreadable rows, it stays.
    pub(crate) fn adopt_trust_window<'a>(&mut self, settings: impl Iterator<Item = &'a str>) {
        let millis = settings.filter_map(|settings| {
            let settings: BTreeMap<String, String> = serde_json::from_str(settings).ok()?;
            settings.get(TRUST_WINDOW)?.parse().ok()
        });
        if let Some(millis) = millis.max() {
            self.trust_window = Duration::from_millis(millis);
        }
    }
}

/// The names of the settings that differ, and the values.
pub(crate) fn differences(texts: &[&str]) -> Vec<String> {
    let nodes: Vec<BTreeMap<String, String>> =
        texts.iter().map(|text| serde_json::from_str(text).unwrap_or_default()).collect();
    let names: std::collections::BTreeSet<&String> = nodes.iter().flat_map(BTreeMap::keys).collect();
    let differs = |name: &&&String| nodes.iter().any(|node| node.get(**name) != nodes[0].get(**name));
    names.iter().filter(differs).map(|name| (**name).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_named() {
        let one = Config::default();
        let mut other = Config::default();
        assert!(differences(&[&one.shared_settings(), &other.shared_settings()]).is_empty());
        other.idle_timeout = Duration::from_secs(3_600);
        other.cache_sessions_max = 7;
        assert_eq!(differences(&[&one.shared_settings(), &other.shared_settings()]), ["idle_timeout_ms"]);
        assert!(differences(&[]).is_empty());
    }

    #[test]
    fn a_tool_waits_as_long_as_the_slowest_node() {
        let (mut tool, mut node) = (Config::default(), Config::default());
        node.trust_window = Duration::from_secs(30);
        tool.adopt_trust_window([&*node.shared_settings(), "no JSON"].into_iter());
        assert_eq!(tool.trust_window, node.trust_window);
        tool.adopt_trust_window(std::iter::empty());
        assert_eq!(tool.trust_window, node.trust_window);
    }
}
