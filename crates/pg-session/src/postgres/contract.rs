//! Calls of the SQL contract's functions, for the application's own transactions.

use std::fmt;

use super::names::Names;
use crate::cause::Cause;
use crate::config::Config;
use crate::error::Error;
use crate::id::{GroupId, SessionId, UserId};
use crate::label::Label;

/// Ends one session, named by any of its ids. The statement returns whether it was alive, as `boolean`.
pub fn end(session: SessionId) -> EndSessions {
    EndSessions { function: "session_end", id: Some(session.expose().to_string()), cause: Cause::Sql }
}

/// Ends the sessions of a user. The statement returns how many were alive, as `bigint`.
pub fn end_user(user: impl Into<UserId>) -> EndSessionsOf {
    EndSessionsOf { of: Of::User(user.into()), except: None, cause: Cause::Sql }
}

/// Ends the sessions of a group. The statement returns how many were alive, as `bigint`.
pub fn end_group(group: impl Into<GroupId>) -> EndSessions {
    let id = Some(group.into().as_uuid().to_string());
    EndSessions { function: "session_end_group", id, cause: Cause::Sql }
}

/// Ends the sessions that have a label. The statement returns how many were alive, as `bigint`.
pub fn end_label(label: impl Into<String>) -> EndSessionsOf {
    EndSessionsOf { of: Of::Label(label.into()), except: None, cause: Cause::Sql }
}

/// Ends all sessions. The statement returns how many were alive, as `bigint`.
pub fn end_all() -> EndSessions {
    EndSessions { function: "session_end_all", id: None, cause: Cause::Sql }
}

/// Ends a session, those of a group, or all; made by [`end`], [`end_group`] and [`end_all`].
#[derive(Clone)]
#[must_use = "it is a description: the application sends its statement"]
pub struct EndSessions {
    function: &'static str,
    id: Option<String>,
    cause: Cause,
}

impl EndSessions {
    /// Why they end. Default [`Cause::Sql`]. The function refuses [`Cause::Cap`], [`Cause::Rotated`], [`Cause::Expired`] and
    /// [`Cause::Idle`].
    pub fn cause(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// The statement, for the tables of this configuration (`schema` and `table_prefix`).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for names that PostgreSQL cannot hold.
    pub fn statement(self, config: &Config) -> Result<Statement, Error> {
        let id = self.id.map(|id| (Some(id), UUID));
        let cause = (Some(self.cause.name().to_owned()), TEXT);
        Statement::new(config, self.function, id.into_iter().chain([cause]))
    }
}

/// Ends the sessions of a user or of a label; made by [`end_user`] and [`end_label`].
#[derive(Clone)]
#[must_use = "it is a description: the application sends its statement"]
pub struct EndSessionsOf {
    of: Of,
    except: Option<SessionId>,
    cause: Cause,
}

#[derive(Clone)]
enum Of {
    User(UserId),
    Label(String),
}

impl EndSessionsOf {
    /// Spares this session. Its retired ids end, unless this is one of them.
    pub fn except(mut self, session: SessionId) -> Self {
        self.except = Some(session);
        self
    }

    /// As [`EndSessions::cause`].
    pub fn cause(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// As [`EndSessions::statement`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for names that PostgreSQL cannot hold,
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a label that no session can have.
    pub fn statement(self, config: &Config) -> Result<Statement, Error> {
        let (function, of) = match self.of {
            Of::User(user) => ("session_end_user", (Some(user.as_uuid().to_string()), UUID)),
            Of::Label(label) => {
                Label::new(&label)?;
                ("session_end_label", (Some(label), TEXT))
            }
        };
        let except = self.except.map(|id| id.expose().to_string());
        Statement::new(config, function, [of, (except, UUID), (Some(self.cause.name().to_owned()), TEXT)])
    }
}

const UUID: &str = "::pg_catalog.uuid";
const TEXT: &str = "";

/// SQL text and its parameters, for any driver. **A parameter may be a session id**, so `Debug` shows none.
#[derive(Clone)]
pub struct Statement {
    text: String,
    parameters: Vec<Option<String>>,
}

impl Statement {
    /// Every argument has its exact type, so that no function of another role fits better.
    fn new(
        config: &Config,
        function: &str,
        arguments: impl IntoIterator<Item = (Option<String>, &'static str)>,
    ) -> Result<Self, Error> {
        let (column, function) = (function, Names::new(config)?.function(function));
        let (parameters, casts): (Vec<_>, Vec<_>) = arguments.into_iter().unzip();
        let casts = casts.iter().zip(1..).map(|(cast, n)| format!("${n}::pg_catalog.text{cast}"));
        let arguments = casts.collect::<Vec<_>>().join(", ");
        // The column has the same name with any `table_prefix`: diesel finds its value by it.
        Ok(Self { text: format!("SELECT {function}({arguments}) AS {column}"), parameters })
    }

    /// The text, with `$1`, `$2` and so on. Its column has the name of the function without the prefix.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parameters in their order, each of the type `text`.
    #[must_use]
    pub fn parameters(&self) -> &[Option<String>] {
        &self.parameters
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("text", &self.text).finish_non_exhaustive()
    }
}

impl fmt::Debug for EndSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndSessions").field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl fmt::Debug for EndSessionsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of: _, except, cause } = self;
        let fields = &mut f.debug_struct("EndSessionsOf");
        fields.field("except", except).field("cause", cause).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_has_one_parameter_for_each_argument() {
        let config = Config::default().with(|config| config.table_prefix = "a\"b_".to_owned());
        let id = SessionId::random();
        for (statement, function, count) in [
            (end(id).statement(&config), "session_end", 2),
            (end_user(1).statement(&config), "session_end_user", 3),
            (end_group(1).cause(Cause::Admin).statement(&config), "session_end_group", 2),
            (end_label("tenant:7").except(id).statement(&config), "session_end_label", 3),
            (end_all().statement(&config), "session_end_all", 1),
        ] {
            let statement = statement.unwrap();
            assert!(statement.text().starts_with(&format!("SELECT \"public\".\"a\"\"b_{function}\"($1::")));
            assert!(statement.text().ends_with(&format!(" AS {function}")));
            assert_eq!(statement.text().matches('$').count(), count);
            assert_eq!(statement.parameters().len(), count);
        }
    }

    #[test]
    fn no_debug_output_of_a_statement_shows_an_id() {
        let id = SessionId::random();
        let ends = (end(id), end_user(1).except(id), end_label("tenant:7").except(id));
        let shown = format!("{ends:?} {:?}", ends.1.clone().statement(&Config::default()).unwrap());
        assert!(!shown.contains(&id.expose().to_string()[..8]), "{shown}");
    }
}
