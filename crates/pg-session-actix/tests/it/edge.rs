//! The tests' application on actix.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, HttpServer, rt, web};
use pg_session_actix::prelude::*;

use crate::http::app::{Account, Billing, Gate, act};
use crate::http::world::alone;

/// Serves on a free port until the process ends, in a thread of its own.
pub fn serve(sessions: SessionConfig, gate: Arc<Gate>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a port");
    std::thread::spawn(move || {
        // Of a scope that came with a middleware of its own, and another in between that uses the session, too.
        let nested = SessionMiddleware::from(sessions.clone().check_attributes());
        let alone = SessionMiddleware::from(alone(sessions.clone()));
        let sessions = SessionMiddleware::from(sessions);
        let app = move || {
            App::new()
                .app_data(web::Data::from(Arc::clone(&gate)))
                .wrap(sessions.clone())
                .route("/pay", web::to(async |_: Elevated<Billing>| "paid"))
                .route("/account", web::to(async |SignedIn(user): SignedIn| user.to_string()))
                .route("//account", web::to(async |SignedIn(user): SignedIn| user.to_string()))
                .route("/maybe", web::to(maybe))
                .route("/name", web::to(async |user: CurrentUser<Account>| user.name.clone()))
                .route("/maybe-name", web::to(maybe_name))
                .service(
                    web::scope("/inside")
                        .wrap(require_login("/inside/login"))
                        .default_service(web::to(everything)),
                )
                .service(
                    web::scope("/nested")
                        .wrap(nested.clone())
                        .wrap(from_fn(in_between))
                        .default_service(web::to(everything)),
                )
                .service(web::scope("/alone").wrap(alone.clone()).default_service(web::to(everything)))
                .default_service(web::to(everything))
        };
        let server = HttpServer::new(app).workers(1).listen(listener).expect("a socket").run();
        rt::System::new().block_on(server).expect("it serves for ever");
    });
    addr
}

/// The path below the scopes.
fn inside(path: &str) -> &str {
    let scopes = ["/nested", "/inside", "/alone"];
    scopes.iter().find_map(|scope| path.strip_prefix(scope)).unwrap_or(path)
}

async fn maybe(user: Option<SignedIn>) -> String {
    user.map_or_else(|| "nobody".to_owned(), |SignedIn(user)| user.to_string())
}

async fn maybe_name(user: Option<CurrentUser<Account>>) -> String {
    user.map_or_else(|| "nobody".to_owned(), |user| user.name.clone())
}

async fn in_between(
    session: Session,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    session.set("between", request.path()).await.map_err(SessionError::from)?;
    next.call(request).await
}

/// An application that forgot the middleware.
pub fn serve_without_middleware() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a port");
    std::thread::spawn(move || {
        let app = || App::new().route("/user", web::to(async |_: Session| "served"));
        let server = HttpServer::new(app).workers(1).listen(listener).expect("a socket").run();
        rt::System::new().block_on(server).expect("it serves for ever");
    });
    addr
}

async fn everything(
    session: Session,
    gate: web::Data<Gate>,
    request: actix_web::HttpRequest,
) -> Result<HttpResponse, SessionError> {
    let path = request.path();
    let answer = act(&session, &gate, inside(path)).await?;
    let mut response = HttpResponse::build(StatusCode::from_u16(answer.status).expect("a status"));
    for (name, value) in answer.headers {
        response.append_header((name, value));
    }
    Ok(response.body(answer.body))
}
