//! The store's own promises.

use std::collections::HashMap;

use actix_session::storage::{SessionKey, SessionStore};
use actix_web::cookie::time::Duration;
use pg_session::{SessionManager, UserId};
use pg_session_actix::PgSessionStore;

use crate::http::world;

const HOUR: Duration = Duration::HOUR;

/// A node on a schema of its own.
pub async fn node() -> SessionManager {
    world::Site::new(|_, _| panic!("it serves nothing")).await.node
}

fn state(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn key(text: &str) -> SessionKey {
    text.to_owned().try_into().expect("it is short")
}

#[tokio::test]
async fn state_is_loaded_as_saved_and_key_carries_version() {
    let site = world::Site::new(|_, _| panic!("it serves nothing")).await;
    let (here, there) =
        (PgSessionStore::new(site.node.clone()), PgSessionStore::new(site.other_node().await));
    let first = state(&[("cart", r#"["apples",  1]"#), ("n", "1"), ("nothing", "null")]);
    let mut known = here.save(first.clone(), &HOUR).await.unwrap();
    assert_eq!(there.load(&known).await.unwrap(), Some(first), "spaces and all");
    for n in 0..100 {
        let next = state(&[("n", &n.to_string())]);
        known = here.update(known, next.clone(), &HOUR).await.unwrap();
        assert_eq!(there.load(&known).await.unwrap(), Some(next), "at once on the next node");
    }
    assert!(here.save(state(&[("n", "no JSON")]), &HOUR).await.is_err());
}

#[tokio::test]
async fn a_state_that_has_ended_is_not_brought_back_by_anything() {
    let store = PgSessionStore::new(node().await);
    let saved = state(&[("n", "1")]);
    let known = store.save(saved.clone(), &HOUR).await.unwrap();
    let text = known.as_ref().to_owned();
    store.delete(&known).await.unwrap();
    store.update(known, saved.clone(), &HOUR).await.unwrap_err();
    store.update_ttl(&key(&text), &HOUR).await.unwrap();
    store.delete(&key(&text)).await.unwrap();
    assert_eq!(store.load(&key(&text)).await.unwrap(), None);

    let known = store.save(saved.clone(), &HOUR).await.unwrap();
    let text = known.as_ref().to_owned();
    store.update_ttl(&known, &Duration::ZERO).await.unwrap();
    assert_eq!(store.load(&known).await.unwrap(), None, "it has expired");
    store.update_ttl(&known, &HOUR).await.unwrap();
    store.update(known, saved, &HOUR).await.unwrap_err();
    assert_eq!(store.load(&key(&text)).await.unwrap(), None);
}

#[tokio::test]
async fn user_states_are_listed_and_ended_and_login_needs_new_id() {
    let node = node().await;
    let user_of = |state: &HashMap<String, String>| state.get("user")?.parse::<i64>().ok().map(UserId::from);
    let store = PgSessionStore::new(node.clone()).user_of(user_of);
    let laptop = store.save(state(&[("user", "42")]), &HOUR).await.unwrap();
    let phone = store.save(state(&[("user", "42")]), &HOUR).await.unwrap();
    assert_eq!(node.user(42).list().await.unwrap().len(), 2);

    let visitor = store.save(state(&[("cart", "1")]), &HOUR).await.unwrap();
    let refused = store.update(visitor, state(&[("user", "42")]), &HOUR).await.unwrap_err();
    let cause = std::error::Error::source(&refused).expect("a cause").to_string();
    assert!(cause.contains("`renew`"), "{cause}");
    store.update(laptop, state(&[("user", "43")]), &HOUR).await.unwrap_err();

    assert_eq!(node.user(42).delete().await.unwrap(), 2);
    assert_eq!(store.load(&phone).await.unwrap(), None);
}

#[tokio::test]
async fn extensions_of_a_lifetime_write_once_a_minute() {
    let node = node().await;
    let store = PgSessionStore::new(node.clone());
    let saved = state(&[("n", "1")]);
    let known = store.save(saved.clone(), &HOUR).await.unwrap();
    let writes = || node.status().writes.updates;
    let before = writes();
    for _ in 0..10 {
        store.update_ttl(&known, &HOUR).await.unwrap();
    }
    let known = store.update(known, saved, &HOUR).await.unwrap();
    assert_eq!(writes(), before, "the end moves by less than a minute");
    for (written, lifetime) in [(1, HOUR * 2), (2, HOUR), (3, HOUR + Duration::seconds(61))] {
        store.update_ttl(&known, &lifetime).await.unwrap();
        assert_eq!(writes(), before + written, "{lifetime}");
    }
    store.extend_every(std::time::Duration::ZERO).update_ttl(&known, &HOUR).await.unwrap();
    assert_eq!(writes(), before + 4);
}

#[tokio::test]
async fn a_limit_is_reported_by_the_check_and_by_the_save() {
    let store = PgSessionStore::new(node().await);
    let large = "x".repeat(20_000);
    assert!(store.check("cart", &large).unwrap_err().to_string().contains("cart"));
    store.check("cart", "apples").unwrap();
    let refused = store.save(state(&[("cart", &format!("\"{large}\""))]), &HOUR).await.unwrap_err();
    let cause = std::error::Error::source(&refused).expect("a cause").to_string();
    assert!(cause.contains("cart"), "{cause}");
}

#[tokio::test]
async fn what_is_no_key_costs_no_query() {
    let site = world::Site::new(|_, _| panic!("it serves nothing")).await;
    let store = PgSessionStore::new(site.node.clone());
    let before = site.statements();
    for text in ["", "x", "67e55044-10b1-426f-9247-bb680e5fe0c8", &"A".repeat(64)] {
        assert_eq!(store.load(&key(text)).await.unwrap(), None, "{text}");
    }
    assert_eq!(site.statements(), before);
}
