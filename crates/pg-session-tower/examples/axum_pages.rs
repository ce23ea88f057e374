//! A site with pages on axum: a login form with a token, "stay signed in", a page for users only, and a message.
//!
//! `DATABASE_URL=postgres://… cargo run --example axum_pages`, then open the address. Ann's password is `secret`.

use std::{env, error::Error, net::SocketAddr};

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use maud::{DOCTYPE, Markup, html};
use pg_session_tower::prelude::*;
use serde::Deserialize;

/// A row of the application's own table.
struct User {
    id: i64,
    name: &'static str,
}

/// In place of a table and a comparison of password hashes.
fn check_password(name: &str, password: &str) -> Option<User> {
    (name == "ann" && password == "secret").then_some(User { id: 1, name: "Ann" })
}

async fn find_user(id: UserId) -> Result<Option<User>, std::convert::Infallible> {
    Ok((id == UserId::from(1)).then_some(User { id: 1, name: "Ann" }))
}

fn page(title: &str, content: &Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { (title) } }
            body { h1 { (title) } (content) }
        }
    };
    Html(page.into_string())
}

async fn home(session: Session, user: Option<CurrentUser<User>>) -> Result<Html<String>, SessionError> {
    let notice: Option<String> = session.take_flash("notice").await?;
    Ok(page(
        "Home",
        &html! {
            @if let Some(notice) = notice { p { (notice) } }
            p { "Hello " (user.as_ref().map_or("visitor", |user| user.name)) "." }
            a href="/account" { "Your account" }
        },
    ))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    next: NextPage,
}

async fn login_page(session: Session, Query(asked): Query<Asked>) -> Result<Html<String>, SessionError> {
    form(&session, &asked.next, None).await
}

async fn form(session: &Session, next: &NextPage, fault: Option<&str>) -> Result<Html<String>, SessionError> {
    let token = session.csrf_token().await?;
    Ok(page(
        "Log in",
        &html! {
            @if let Some(fault) = fault { p { (fault) } }
            form method="post" {
                input type="hidden" name="token" value=(token);
                input type="hidden" name="next" value=(next);
                label { "Name " input name="name" autocomplete="username"; }
                label { "Password " input type="password" name="password" autocomplete="current-password"; }
                label { input type="checkbox" name="remember" value="yes"; " Stay signed in" }
                button { "Log in" }
            }
        },
    ))
}

#[derive(Deserialize)]
struct Login {
    token: String,
    #[serde(default)]
    next: NextPage,
    name: String,
    password: String,
    remember: Option<String>,
}

async fn login(session: Session, Form(login): Form<Login>) -> Result<Response, SessionError> {
    session.check_csrf_token(&login.token).await?;
    let Some(user) = check_password(&login.name, &login.password) else {
        let form = form(&session, &login.next, Some("Name or password is wrong.")).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, form).into_response());
    };
    session.login(user.id).remember(login.remember.is_some()).await?;
    session.flash("notice", "You are signed in.").await?;
    Ok(Redirect::to(login.next.as_str()).into_response())
}

async fn logout(session: Session) -> Result<Redirect, SessionError> {
    session.logout().await?;
    Ok(Redirect::to("/"))
}

async fn account(user: CurrentUser<User>) -> Html<String> {
    page(
        "Account",
        &html! {
            p { "This is the account of " (user.name) "." }
            form method="post" action="/logout" { button { "Log out" } }
        },
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let url = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let manager = SessionManager::connect(&url, config).await?;
    let sessions = SessionConfig::from_env(manager)?.login_page("/login")?.load_user(find_user);
    let app = Router::new()
        .route("/", get(home))
        .route("/account", get(account))
        .route("/login", get(login_page).post(login))
        .route("/logout", post(logout))
        .layer(SessionLayer::from(sessions));
    let address = env::var("ADDRESS").unwrap_or("127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}
