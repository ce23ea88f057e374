//! What a session holds: the same attributes for every contender.

/// The attribute that updates change: the number of updates so far, padded to the payload's size. Afterwards the
/// table shows whether every acknowledged update is in it.
pub(crate) const COUNTER: &str = "counter";
/// Bytes of a large value.
const KILOBYTE: usize = 1_000;

/// A kind of session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Payload {
    /// One attribute, for tables of a million sessions.
    Slim,
    /// Five attributes of 2 to 32 bytes: a login's usual content.
    Small,
    /// Twenty attributes of 1 kB.
    Big,
}

impl Payload {
    /// All attributes of a fresh session, as plain text.
    pub(crate) fn attributes(self) -> Vec<(String, String)> {
        let mut attributes = match self {
            Self::Slim => Vec::new(),
            Self::Small => vec![
                ("csrf".to_owned(), "0f8fad5bd9cb469fa16570867728950e".to_owned()),
                ("locale".to_owned(), "en".to_owned()),
                ("name".to_owned(), "Grace Hopper".to_owned()),
                ("theme".to_owned(), "dark".to_owned()),
            ],
            Self::Big => (0..19).map(|number| (format!("attribute-{number:02}"), kilobyte(number))).collect(),
        };
        attributes.push((COUNTER.to_owned(), self.counter(0)));
        attributes
    }

    /// The value of the attribute that updates change.
    pub(crate) fn counter(self, count: u64) -> String {
        match self {
            Self::Slim | Self::Small => format!("{count:08}"),
            // The formatter's padding, a character at a time, took a good part of an update's time.
            Self::Big => {
                let digits = count.to_string();
                let mut text = "0".repeat(KILOBYTE - digits.len());
                text.push_str(&digits);
                text
            }
        }
    }
}

/// Different letters, so that no compression makes it a different contest.
fn kilobyte(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..KILOBYTE).map(|_| random.alphanumeric()).collect()
}
