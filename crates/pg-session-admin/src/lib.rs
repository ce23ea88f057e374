#![doc = include_str!("../README.md")]
#![allow(
    clippy::disallowed_methods,
    reason = "times for people, and the end of sign-ins to the console; sessions and trust are the library's decision"
)]

mod api;
mod audit;
mod console;
mod head;
mod observed;
mod operator;
mod revoke;
mod secret;
/// What the commands of the program show alike. Not part of the API.
#[doc(hidden)]
pub mod shared;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use pg_session::{Builder as NodeBuilder, SessionManager};
use tokio_util::sync::CancellationToken;

use self::audit::Audit;
pub use self::audit::{By, Change};
use self::console::Console;
use self::observed::Observed;
pub use self::operator::Operator;
pub use self::secret::{Secret, WeakSecret};

/// The console and the admin API of one node. Clones are the same.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    manager: SessionManager,
    /// Without it, the API refuses all, and only the host application signs operators in.
    token: Option<Secret>,
    console: Console,
    audit: Audit,
    observed: Arc<Observed>,
    stop: CancellationToken,
}

/// What an [`Admin`] is made with.
#[must_use]
pub struct Builder {
    manager: SessionManager,
    token: Option<Secret>,
    allow_changes: bool,
    hosts: Vec<String>,
    diagnose: Option<Diagnose>,
    on_change: Option<OnChange>,
}

type Diagnose = Box<dyn Fn() -> Result<NodeBuilder, String> + Send + Sync>;
type OnChange = Box<dyn Fn(&Change) + Send + Sync>;

impl Admin {
    /// Shows and ends the sessions of this node's database.
    pub fn builder(manager: SessionManager) -> Builder {
        Builder {
            manager,
            token: None,
            allow_changes: false,
            hosts: Vec::new(),
            diagnose: None,
            on_change: None,
        }
    }

    /// The pages of the console, to be nested below a path without parameters.
    ///
    /// A request with an [`Operator`] in its extensions is signed in. Any other needs the token: without
    /// [`Builder::token`], it gets 401.
    pub fn console(&self) -> Router {
        console::router(self)
    }

    /// The operations of the admin API, to be nested below `/api/v1` or another path without parameters. Every request needs the
    /// token, also one with an [`Operator`]: browsers send cookies to an API from any page.
    pub fn api(&self) -> Router {
        api::router(self)
    }

    /// Ends the streams of open pages. Without it, a graceful shutdown of the server waits for them.
    pub fn close(&self) {
        self.0.stop.cancel();
    }
}

impl Builder {
    /// Operators and programs that know this text are let in. Without it, the API refuses all requests.
    pub fn token(mut self, token: Secret) -> Self {
        self.token = Some(token);
        self
    }

    /// Operators who sign in with the token may end sessions in the console. Default: they may only look. Programs may with
    /// the token in any case, and an [`Operator`] says it itself.
    pub fn allow_changes(mut self) -> Self {
        self.allow_changes = true;
        self
    }

    /// A host name under which browsers open the console. With a token, `localhost` is one. Without a token, every host is,
    /// until one is named here.
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// How a node of the application is made, for the page *Health*: the doctor starts one for each look.
    pub fn doctor<E: fmt::Display>(
        mut self,
        node: impl Fn() -> Result<NodeBuilder, E> + Send + Sync + 'static,
    ) -> Self {
        self.diagnose = Some(Box::new(move || node().map_err(|error| error.to_string())));
        self
    }

    /// Is called with each change, also with one that failed. Default: an event of `tracing`, with the target
    /// `pg_session_admin::audit`.
    pub fn on_change(mut self, record: impl Fn(&Change) + Send + Sync + 'static) -> Self {
        self.on_change = Some(Box::new(record));
        self
    }

    /// Begins to observe the events of the node, until it is shut down.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn build(self) -> Admin {
        let events = self.manager.events();
        let has_token = self.token.is_some();
        let observed = Arc::new(Observed::default());
        let observer = Arc::clone(&observed);
        tokio::spawn(async move { observer.run(events).await });
        Admin(Arc::new(Parts {
            manager: self.manager,
            token: self.token,
            console: Console::new(self.allow_changes, self.hosts, has_token, self.diagnose),
            audit: Audit::new(self.on_change),
            observed,
            stop: CancellationToken::new(),
        }))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("token", &self.token)
            .field("allow_changes", &self.allow_changes)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}
