//! A user's roles change: they are dropped from all of the user's sessions in one statement, on every node, and each
//! session computes them again with its next request. No user is logged out.
//!
//! ```text
//! cargo run --example role_change                     # on a private PostgreSQL that goes away again
//! cargo run --example role_change -- postgres://…     # on yours: makes the tables in the schema example_role_change
//! ```

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionId, SessionManager, UpdateError, UserId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Alive until the end of `main`, if no server was given.
    let (url, _sandbox) = match std::env::args().nth(1) {
        Some(url) => (url, None),
        None => {
            let sandbox = Sandbox::start()?;
            (sandbox.url(), Some(sandbox))
        }
    };
    let mut config = Config::default();
    config.schema = "example_role_change".to_owned();
    config.migrations = Migrations::Apply;
    let (a, b) =
        (SessionManager::connect(&url, config.clone()).await?, SessionManager::connect(&url, config).await?);
    let (staff, ann) = (Staff::default(), UserId::named("ann"));

    let laptop = a.create(ann).set("device", "laptop").await?.id();
    let phone = a.create(ann).set("device", "phone").await?.id();
    println!("laptop, on a: {:?}", roles(&a, laptop, &staff).await?);
    println!("phone, on b: {:?}", roles(&b, phone, &staff).await?);
    println!("computed {} times, and read from memory from now on", staff.computed());

    staff.demote();
    println!("dropped from {} sessions", a.user(ann).remove_attribute("roles").await?);
    b.catch_up().await?; // the other node learns of it within milliseconds; here we want to be sure

    println!("laptop, on a: {:?}", roles(&a, laptop, &staff).await?);
    println!("phone, on b: {:?}", roles(&b, phone, &staff).await?);
    println!("phone, on b again: {:?}", roles(&b, phone, &staff).await?);
    println!("computed {} times", staff.computed());
    Ok(())
}

/// What the user of this session may do: from the session if it is there.
async fn roles(node: &SessionManager, id: SessionId, staff: &Staff) -> Result<Vec<String>, Box<dyn Error>> {
    loop {
        let mut session = node.get(id).await?.ok_or("logged out")?;
        if let Some(roles) = session.get("roles")? {
            return Ok(roles);
        }
        let (roles, revision) = staff.roles();
        session.set("roles", &roles)?;
        match node.save(&mut session).check_attributes().await {
            // Saved, then looked at again: a change that came after this look drops what was saved.
            Ok(()) if staff.revision() == revision => return Ok(roles),
            Ok(()) => {
                session.remove("roles");
                node.save(&mut session).await?;
            }
            Err(UpdateError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Represents the application's own tables: who may do what, how often that changed, how often it was asked.
#[derive(Default)]
struct Staff(Mutex<Table>);

#[derive(Default)]
struct Table {
    revision: u32,
    computed: u32,
}

impl Staff {
    fn roles(&self) -> (Vec<String>, u32) {
        let mut table = self.table();
        table.computed += 1;
        let roles: &[&str] = if table.revision == 0 { &["reader", "editor", "admin"] } else { &["reader"] };
        (roles.iter().map(ToString::to_string).collect(), table.revision)
    }

    fn demote(&self) {
        self.table().revision += 1;
    }

    fn revision(&self) -> u32 {
        self.table().revision
    }

    fn computed(&self) -> u32 {
        self.table().computed
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
