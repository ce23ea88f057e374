//! Finding PostgreSQL's programs: `PG_BIN`, then what `pg_config` says, then the places where distributions put
//! them, newest version first, then `PATH`. `./dev` at the root of the repository searches in the same order.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    error::{Error, ErrorKind},
    version::ServerVersion,
};

/// What a sandbox needs; they live side by side.
const NEEDED: [&str; 2] = ["initdb", "postgres"];

/// Directories whose entries carry a version: `parent/prefix<version>/tail`.
const VERSIONED: [(&str, &str, &str); 8] = [
    ("usr/lib/postgresql", "", "bin"),                          // Debian, Ubuntu
    ("usr", "pgsql-", "bin"),          // PostgreSQL's own packages for Red Hat and kin
    ("usr/lib", "postgresql", "bin"),  // openSUSE
    ("usr/libexec", "postgresql", ""), // Alpine
    ("opt/homebrew/opt", "postgresql@", "bin"), // Homebrew on Apple silicon
    ("usr/local/opt", "postgresql@", "bin"), // Homebrew on Intel
    ("home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"), // Homebrew on Linux
    ("Applications/Postgres.app/Contents/Versions", "", "bin"), // Postgres.app
];

/// Directories without a version in their name.
const PLAIN: [&str; 2] = ["opt/homebrew/bin", "usr/local/pgsql/bin"];

/// How to install what is missing.
const INSTALL: &str = "install it: `apt-get install postgresql` (Debian, Ubuntu), \
     `dnf install postgresql-server` (Fedora, Red Hat), `apk add postgresql` (Alpine), `pacman -S postgresql` (Arch), \
     `zypper install postgresql-server` (openSUSE), `brew install postgresql@17` (macOS); \
     or set PG_BIN to the directory that holds initdb and postgres";

/// The directory that holds `initdb` and `postgres`, and what they are.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    dir: PathBuf,
    version: ServerVersion,
}

impl Binaries {
    /// Finds them.
    ///
    /// # Errors
    /// [`ErrorKind::BinariesMissing`] if they are nowhere, or if `PG_BIN` names a directory without
    /// them. A wrong `PG_BIN` is an error, or a test would run on another server than its author
    /// meant.
    pub(crate) fn find() -> Result<Self, Error> {
        Search::of_this_machine().run()
    }

    pub(crate) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    pub(crate) fn version(&self) -> &ServerVersion {
        &self.version
    }

    fn open(dir: PathBuf) -> Result<Self, Error> {
        let postgres = dir.join("postgres");
        let output =
            Command::new(&postgres).arg("--version").stdin(Stdio::null()).output().map_err(|error| {
                Error::caused(
                    ErrorKind::BinariesMissing,
                    format!("could not run {}", postgres.display()),
                    error,
                )
            })?;
        let answer = String::from_utf8_lossy(&output.stdout);
        match ServerVersion::parse(&answer) {
            Some(version) => Ok(Self { dir, version }),
            None => Err(Error::new(
                ErrorKind::BinariesMissing,
                format!("{} --version answered {:?}: {INSTALL}", postgres.display(), answer.trim()),
            )),
        }
    }
}

/// Where to look.
#[derive(Debug)]
struct Search {
    pg_bin: Option<PathBuf>,
    path: Vec<PathBuf>,
    /// `/`, but for tests.
    root: PathBuf,
}

impl Search {
    fn of_this_machine() -> Self {
        Self {
            pg_bin: env::var_os("PG_BIN").filter(|value| !value.is_empty()).map(PathBuf::from),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            root: PathBuf::from("/"),
        }
    }

    fn run(&self) -> Result<Binaries, Error> {
        if let Some(dir) = &self.pg_bin {
            if holds_binaries(dir) {
                return Binaries::open(dir.clone());
            }
            let message = format!(
                "PG_BIN is {}, which does not hold initdb and postgres: correct it, or {INSTALL}",
                dir.display()
            );
            return Err(Error::new(ErrorKind::BinariesMissing, message));
        }
        let places = self.said_by_pg_config().into_iter().chain(self.versioned()).chain(self.plain());
        match places.chain(self.path.iter().cloned()).find(|dir| holds_binaries(dir)) {
            Some(dir) => Binaries::open(dir),
            None => Err(Error::new(
                ErrorKind::BinariesMissing,
                format!("PostgreSQL's server programs (initdb, postgres) were not found: {INSTALL}"),
            )),
        }
    }

    /// `pg_config` also comes with the client's development package alone: what it says is looked at, not trusted.
    fn said_by_pg_config(&self) -> Option<PathBuf> {
        let program = self.path.iter().map(|dir| dir.join("pg_config")).find(|program| program.is_file())?;
        let output = Command::new(program).arg("--bindir").stdin(Stdio::null()).output().ok()?;
        let dir = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| PathBuf::from(dir.trim_end()))
    }

    fn versioned(&self) -> impl Iterator<Item = PathBuf> {
        VERSIONED.iter().flat_map(|(parent, prefix, tail)| {
            let mut found: Vec<(Vec<u32>, PathBuf)> = Vec::new();
            for entry in fs::read_dir(self.root.join(parent)).into_iter().flatten().flatten() {
                let version = entry.file_name().to_str().and_then(|name| numbers(name.strip_prefix(prefix)?));
                found.extend(version.map(|version| (version, entry.path().join(tail))));
            }
            found.sort_by(|a, b| b.0.cmp(&a.0));
            found.into_iter().map(|(_, dir)| dir)
        })
    }

    fn plain(&self) -> impl Iterator<Item = PathBuf> {
        PLAIN.iter().map(|dir| self.root.join(dir))
    }
}

fn holds_binaries(dir: &Path) -> bool {
    NEEDED.iter().all(|name| dir.join(name).is_file())
}

/// `9.6` is 9 and 6, below 10: versions are compared as numbers, not as text.
fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Directory;

    /// A file system of our own, so that what is installed here does not matter.
    struct Machine {
        root: Directory,
        search: Search,
    }

    impl Machine {
        fn new() -> Self {
            let root = Directory::choose(None);
            fs::create_dir(root.path()).unwrap();
            let path = vec![root.path().join("path")];
            let search = Search { pg_bin: None, path, root: root.path().to_owned() };
            Self { root, search }
        }

        fn program(&self, path: &str, says: &str) {
            let program = self.root.path().join(path);
            // Written by another process. If this one has the file open while another test forks, the kernel does not
            // execute it ("text file busy").
            let write =
                r#"mkdir -p "${1%/*}" && printf '#!/bin/sh\necho "%s"\n' "$2" >"$1" && chmod 755 "$1""#;
            let status =
                Command::new("sh").args(["-c", write, "sh"]).arg(program).arg(says).status().unwrap();
            assert!(status.success());
        }

        fn install(&self, dir: &str, version: &str) {
            self.program(&format!("{dir}/initdb"), "");
            self.program(&format!("{dir}/postgres"), &format!("postgres (PostgreSQL) {version}"));
        }

        fn found(&self) -> String {
            self.search.run().unwrap().version().to_string()
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            fs::remove_dir_all(self.root.path()).unwrap();
        }
    }

    #[test]
    fn the_first_place_wins_and_the_newest_version_in_it() {
        let mut machine = Machine::new();
        machine.install("path", "11.1");
        assert_eq!(machine.found(), "11.1");
        machine.install("opt/homebrew/opt/postgresql@16/bin", "16.1");
        assert_eq!(machine.found(), "16.1");
        machine.install("usr/lib/postgresql/9.6/bin", "9.6");
        assert_eq!(machine.found(), "9.6");
        machine.install("usr/lib/postgresql/14/bin", "14.1");
        assert_eq!(machine.found(), "14.1");
        machine.install("configured", "13.1");
        machine.program("path/pg_config", &machine.root.path().join("configured").display().to_string());
        assert_eq!(machine.found(), "13.1");
        machine.install("chosen", "12.1");
        machine.search.pg_bin = Some(machine.root.path().join("chosen"));
        assert_eq!(machine.found(), "12.1");
    }

    #[test]
    fn a_pg_config_without_a_server_is_passed_over() {
        let machine = Machine::new();
        machine.program("path/pg_config", "/nowhere");
        machine.install("usr/lib/postgresql/15/bin", "15.1");
        assert_eq!(machine.found(), "15.1");
    }

    #[test]
    fn missing_binaries_error_names_package_of_each_platform() {
        let error = Machine::new().search.run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BinariesMissing);
        for hint in ["apt-get install postgresql", "dnf", "apk", "pacman", "zypper", "brew", "PG_BIN"] {
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn a_wrong_pg_bin_is_an_error_and_not_passed_over() {
        let mut machine = Machine::new();
        machine.install("usr/lib/postgresql/15/bin", "15.1");
        machine.search.pg_bin = Some(PathBuf::from("/nowhere"));
        let error = machine.search.run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BinariesMissing);
        assert!(error.to_string().starts_with("PG_BIN is /nowhere"), "{error}");
    }
}
