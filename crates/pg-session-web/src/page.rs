//! Pages of the application: the login page, and [`NextPage`], where a user goes after the login.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Error;

/// The longest path and query that is remembered for after a login, in bytes. It travels in an address.
pub const NEXT_PAGE_BYTES_MAX: usize = 2_048;

/// Where to go after a login: a path of this site, perhaps with a query. **Anything else becomes `/`**: an address that
/// another site wrote into a link to the login page never leads to that site.
///
/// The guards append it to the login page as `next`. Read it with the form, and redirect to it:
///
/// ```
/// use pg_session_web::NextPage;
///
/// #[derive(serde::Deserialize)]
/// struct LoginForm {
///     name: String,
///     #[serde(default)]
///     next: NextPage,
/// }
///
/// assert_eq!(NextPage::new("/orders?page=2").as_str(), "/orders?page=2");
/// assert_eq!(NextPage::new("https://evil.example/").as_str(), "/");
/// assert_eq!(NextPage::new("//evil.example/").as_str(), "/");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct NextPage(String);

impl NextPage {
    /// Takes `text` if it is a path of this site of at most [`NEXT_PAGE_BYTES_MAX`] bytes, otherwise `/`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if is_local(text) { Self(text.to_owned()) } else { Self::default() }
    }

    /// The path, with its query. Fit for a `Location` header. In HTML, escape it like every text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NextPage {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl fmt::Display for NextPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for NextPage {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A text that is no path of this site is `/`, not an error.
impl<'de> Deserialize<'de> for NextPage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// Whether a browser resolves `text` to this very host. Browsers read `\` as `/`, and drop tabs and line ends.
///
/// Nor does a path with dot segments pass. A proxy, or a script with `new URL`, makes
/// `//evil.example` of `/.//evil.example` before the redirect. Browsers send no such path.
pub(crate) fn is_local(text: &str) -> bool {
    let rest = text.strip_prefix('/');
    rest.is_some_and(|rest| !rest.starts_with('/'))
        && text.len() <= NEXT_PAGE_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && !text.split(['?', '#']).next().is_some_and(|path| path.split('/').any(is_dots))
}

/// Whether a segment of a path is `.` or `..`. A dot may be percent-encoded.
fn is_dots(segment: &str) -> bool {
    segment.starts_with(['.', '%'])
        && matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..")
}

/// Checks the path of a page that a setting names.
pub(crate) fn check_page(path: &str, message: &'static str) -> Result<(), Error> {
    if is_local(path) && !path.contains(['?', '#']) { Ok(()) } else { Err(Error::config(message)) }
}

/// `page` with parameters appended. What is not of a path's usual characters is percent-encoded.
pub(crate) fn with_parameters<'a>(
    page: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut address = page.to_owned();
    for (number, (name, value)) in parameters.into_iter().enumerate() {
        address.push(if number == 0 { '?' } else { '&' });
        address.push_str(name);
        address.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                address.push(char::from(byte));
            } else {
                address.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    /// Of what addresses are made that browsers read otherwise than they look.
    fn hostile() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            prop::sample::select(vec![
                "/", "//", "\\", ".", "..", "/.", "/..", "%2e", "%2E", "%2f", "%5c", "%09"
            ]),
            prop::sample::select(vec![
                "?", "#", "@", ":", ";", "\t", "\n", " ", "\u{ff0f}", "\u{3002}", "\0"
            ]),
            prop::sample::select(vec![
                "evil.example",
                "https:",
                "javascript:",
                "a",
                "[::1]",
                "%",
                "&",
                "\u{ad}"
            ]),
        ];
        prop::collection::vec(part, 1..9).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// The rules of browsers decide: the page, and the path of the page that a script takes out of it.
        #[test]
        fn a_browser_stays_on_this_site(text in hostile()) {
            let site = Url::parse("https://shop.example/login/form?next=a").expect("an address");
            for text in [text.clone(), format!("/{text}")] {
                let next = NextPage::new(&text);
                let page = site.join(next.as_str()).expect("an address");
                prop_assert_eq!(page.origin(), site.origin());
                let again = site.join(page.path()).expect("an address");
                prop_assert_eq!(again.origin(), site.origin(), "{}", next);
            }
        }
    }

    #[test]
    fn the_next_page_never_leads_to_another_site() {
        for own in [
            "/",
            "/a",
            "/a/b?c=d/../&e=%2F%2F",
            "/a#b/./",
            "/a//b",
            "/@evil.example",
            "/.well-known/...",
            "/:80",
        ] {
            assert_eq!(NextPage::new(own).as_str(), own);
        }
        let long = format!("/{}", "a".repeat(NEXT_PAGE_BYTES_MAX));
        for foreign in [
            "",
            "a",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/a\\..\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/\r\nset-cookie: a=b",
            "\t//evil.example",
            " //evil.example",
            "/ /evil.example",
            "/.//evil.example",
            "/a/..//evil.example",
            "/%2e//evil.example",
            "/a/%2E.//evil.example?b",
            "/a/..#b",
            "/a b",
            "/\u{e9}",
            "/\u{ff0f}evil.example",
            "/\0",
            "https://evil.example",
            "https:evil.example",
            "HTTPS://evil.example/a",
            "javascript:alert(1)",
            "data:text/html,x",
            "?next=//evil.example",
            "#a",
            "@evil.example",
            &long,
        ] {
            assert_eq!(NextPage::new(foreign).as_str(), "/", "{foreign:?}");
        }
    }

    #[test]
    fn a_form_with_a_foreign_page_is_read() {
        let read = |json: &str| serde_json::from_str::<NextPage>(json).map(|page| page.to_string());
        assert_eq!(read(r#""/orders""#).unwrap(), "/orders");
        assert_eq!(read(r#""//evil.example""#).unwrap(), "/");
    }

    #[test]
    fn parameters_are_encoded() {
        let page = with_parameters("/login", [("next", "/a b?c=%20&d=\"#é")]);
        assert_eq!(page, "/login?next=/a%20b%3Fc%3D%2520%26d%3D%22%23%C3%A9");
        assert_eq!(with_parameters("/sudo", [("a", "b"), ("c", "d")]), "/sudo?a=b&c=d");
        assert_eq!(with_parameters("/login", []), "/login");
    }
}
