//! Copies the library's cache, as it stands, with shuttle's locks and atomics in place of the standard ones; and once
//! more for each guard that is taken away, with that edit.
//!
//! Copies, so that the library itself needs no feature and no shim for this, and is not slower by a test's hook. An edit
//! whose text is not found, or found twice, fails the build: the guard has moved, and its edit has to follow.

use std::path::Path;
use std::{env, fs};

/// Below `crates/pg-session/src`: what the cache uses, as it is.
const USED: [&str; 12] = [
    "clock.rs",
    "error.rs",
    "id.rs",
    "probes.rs",
    "version.rs",
    "session/attribute.rs",
    "session/attributes.rs",
    "session/changes.rs",
    "session/expiry.rs",
    "session/packed.rs",
    "session/place.rs",
    "session/record.rs",
];
const CACHE: [&str; 4] = ["mod.rs", "fill.rs", "index.rs", "stats.rs"];

/// `(file, text, what stands there instead)`
type Edit = (&'static str, &'static str, &'static str);

/// In every copy: shuttle decides who runs, and two stripes and shards are shared as often as they can be.
const EVERYWHERE: [Edit; 8] = [
    ("mod.rs", "use std::sync::atomic::{", "use shuttle::sync::atomic::{"),
    ("mod.rs", "{Mutex, MutexGuard, PoisonError};", "PoisonError;\nuse shuttle::sync::{Mutex, MutexGuard};"),
    (
        "index.rs",
        "{Mutex, MutexGuard, PoisonError};",
        "PoisonError;\nuse shuttle::sync::{Mutex, MutexGuard};",
    ),
    ("mod.rs", "const STRIPES: usize = 1_024;", "const STRIPES: usize = 2;"),
    ("index.rs", "const SHARDS: usize = 64;", "const SHARDS: usize = 2;"),
    ("mod.rs", "#[cfg(test)]\nmod tests;\n", ""),
    ("index.rs", "    #[cfg(test)]\n    pub(super) fn len", "    pub(super) fn len"),
    // What the tests have to see and do beside the library's own calls.
    (
        "mod.rs",
        "impl std::fmt::Debug for Cache {",
        "impl Cache {
    /// As an eviction does, without the stripe's lock.
    pub(crate) fn evict(&self, id: SessionId) {
        self.take(id);
    }

    pub(crate) fn indexed(&self) -> (usize, usize) {
        (self.users.len(), self.groups.len())
    }
}

impl std::fmt::Debug for Cache {",
    ),
];

/// The guards that are taken away, each in a copy of its own.
const WITHOUT: [(&str, &[Edit]); 15] = [
    ("without_ticket", &[("mod.rs", "\n                && stripe.admits(ticket, id, version));", ");")]),
    (
        "without_stripe_first",
        &[
            (
                "mod.rs",
                "        stripe.note(id, version, self.next());\n        if self.slots.peek",
                "        drop(stripe);\n        if self.slots.peek",
            ),
            (
                "mod.rs",
                "        self.stats.add(Count::Invalidation);\n    }\n\n    /// `id` does not exist",
                "        self.stripe(id).note(id, version, self.next());\n    }\n\n    /// `id` does not exist",
            ),
        ],
    ),
    ("without_forgotten", &[("fill.rs", "self.forgotten = out.sequence;", "")]),
    ("without_writing", &[("fill.rs", "*seen = version.max(*seen);", "let _ = (seen, version);")]),
    (
        "without_publish_note",
        &[(
            "mod.rs",
            "        stripe.note(id, version, self.next());\n        if !self.probes",
            "        let _ = &mut stripe;\n        if !self.probes",
        )],
    ),
    ("without_publish_order", &[("mod.rs", "if !self.probes.holds(Guard::PublishOrder) {", "if true {")]),
    (
        "without_discard_note",
        &[(
            "mod.rs",
            "        stripe.note(id, Version::DELETED, self.next());\n        self.take",
            "        let _ = &mut stripe;\n        self.take",
        )],
    ),
    ("without_owner_dropped", &[("index.rs", "if shard.dropped_at > ticket.sequence {", "if false {")]),
    (
        "without_bump_first",
        &[
            (
                "mod.rs",
                "        index.refuse_older(owner, || {",
                "        index.list(owner, SessionId::from_uuid(Uuid::nil()), 9).into_iter().for_each(|id| self.forget(id));
        index.refuse_older(owner, || {",
            ),
            ("mod.rs", "Dropping { cache: self, index, owner, first:", "Dropping { cache: self, index, owner: Uuid::max(), first:"),
        ],
    ),
    (
        "without_generation",
        &[(
            "mod.rs",
            "self.epoch.fetch_add(Epoch::GENERATION, Ordering::AcqRel);",
            "self.slots.drain().for_each(|(id, slot)| self.unindex(id, &slot.record));",
        )],
    ),
    (
        "without_counting",
        &[(
            "index.rs",
            "*shard.counts.entry(key(owner, id)).or_insert(0) += 1;",
            "shard.counts.insert(key(owner, id), 1);",
        )],
    ),
    (
        "without_taking_back",
        &[("mod.rs", "                self.users.remove(user.as_uuid(), row.id);\n", "")],
    ),
    (
        "without_tickets_epoch",
        &[(
            "mod.rs",
            "record: SharedRecord::clone(record), epoch: ticket.epoch",
            "record: SharedRecord::clone(record), epoch: self.epoch()",
        )],
    ),
    (
        "without_listening",
        &[(
            "mod.rs",
            "(ticket.epoch.is_listening()\n                && ticket.epoch",
            "(ticket.epoch",
        )],
    ),
    (
        "without_forward",
        &[(
            "mod.rs",
            "|old| old.record.row.version > version && old.epoch >= ticket.epoch)",
            "|old| old.epoch > ticket.epoch && false)",
        )],
    ),
];

fn main() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/pg-session/src");
    let out = env::var("OUT_DIR").expect("cargo names the directory");
    let out = Path::new(&out);
    println!("cargo::rerun-if-changed=build.rs");
    for file in USED {
        let text = read(&library.join(file)).replace("#[cfg(test)]", "#[cfg(any())]");
        write(&out.join("library").join(file), &text);
    }
    let module =
        |name: &str| format!("#[path = {:?}]\nmod {name};\n", out.join("library").join(format!("{name}.rs")));
    let inner = |name: &str| module(&format!("session/{name}")).replace("mod session/", "pub(crate) mod ");
    let copies: Vec<&str> = WITHOUT.iter().map(|(name, _)| *name).collect();
    let mut root = format!("const WITHOUT: [&str; {}] = {copies:?};\n", copies.len());
    root += &["clock", "error", "id", "probes", "version"].map(module).concat();
    root += "mod session {\npub(crate) use self::expiry::IdleLimit;\n";
    root +=
        &["attribute", "attributes", "changes", "expiry", "packed", "place", "record"].map(inner).concat();
    root += "}\n";
    for (name, edits) in [("as_it_is", &[] as &[Edit])].iter().chain(&WITHOUT) {
        for file in CACHE {
            let mut text = read(&library.join("cache").join(file));
            for (_, from, to) in EVERYWHERE.iter().chain(*edits).filter(|edit| edit.0 == file) {
                assert_eq!(
                    text.matches(from).count(),
                    1,
                    "{name}: the edit of cache/{file} has to follow: {from}"
                );
                text = text.replace(from, to);
            }
            write(&out.join(name).join("cache").join(file), &text.replace("#[cfg(test)]", "#[cfg(any())]"));
        }
        let path = out.join(name).join("cache/mod.rs");
        root += &format!("mod {name} {{\n#[path = {path:?}]\npub(crate) mod cache;\n}}\n");
    }
    write(&out.join("library.rs"), &root);
}

fn read(path: &Path) -> String {
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
    }
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
