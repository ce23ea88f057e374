//! The pages of the console, and their addresses.

/// A page of the menu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tab {
    Cluster,
    Sessions,
    Events,
    Locks,
    Health,
}

impl Tab {
    pub(super) const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Cluster, "Cluster", "/cluster"),
        (Self::Sessions, "Sessions", "/sessions"),
        (Self::Events, "Events", "/events"),
        (Self::Locks, "Locks", "/locks"),
        (Self::Health, "Health", "/health"),
    ];
}

/// Bytes of an address that is kept over a sign-in.
const ADDRESS_BYTES_MAX: usize = 2_048;

/// Whether this is the address of a page, below the path of the console. Another text could lead a browser elsewhere.
pub(super) fn is_address(text: &str) -> bool {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let is_session =
        |handle: &str| !handle.is_empty() && handle.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_page = Tab::ALL.iter().any(|(_, _, known)| *known == path)
        || path.strip_prefix("/sessions/").is_some_and(is_session);
    is_page && text.len() <= ADDRESS_BYTES_MAX && query.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_pages_are_kept_over_a_sign_in() {
        for right in
            ["/cluster", "/sessions?user=42", "/sessions?label=a%20b", "/sessions/3fa9c1d2?values=true"]
        {
            assert!(is_address(right), "{right}");
        }
        let long = format!("/sessions?user={}", "4".repeat(ADDRESS_BYTES_MAX));
        for wrong in [
            "",
            "/",
            "//evil.example",
            "//evil.example/cluster",
            "/\\evil.example",
            "https://evil.example/cluster",
            "@evil.example/cluster",
            "/sign-out",
            "/stream?page=cluster",
            "/sessions/",
            "/sessions/../../elsewhere",
            "/sessions/%2e%2e",
            "/cluster\r\nset-cookie: a=b",
            "/sessions?user=4\r\n2",
            "/sessions?user=ü",
            &long,
        ] {
            assert!(!is_address(wrong), "{wrong}");
        }
    }
}
