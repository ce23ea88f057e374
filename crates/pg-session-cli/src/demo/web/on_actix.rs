//! The shop on actix-web: routes, and nothing else.

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, ContentType};
use actix_web::web::{self, Data, Json, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use actix_ws::CloseReason;
use futures_util::StreamExt;
use pg_session_actix::{Elevated, Session, SessionError, SessionMiddleware};
use pg_session_web::SessionConfig;

use super::shop::{self, Action, Billing, DeviceView, PAGE, Shop, View};
use crate::failure::Failure;

/// Serves until the process ends.
pub(super) async fn serve(
    listener: TcpListener,
    sessions: SessionConfig,
    shop: Arc<Shop>,
) -> Result<(), Failure> {
    let sessions = SessionMiddleware::from(sessions);
    let app = move || {
        App::new()
            .app_data(Data::from(Arc::clone(&shop)))
            .wrap(sessions.clone())
            .route("/", web::get().to(page))
            .route("/api/site", web::get().to(site))
            .route("/api/status", web::get().to(status))
            .route("/api/view", web::get().to(view))
            .route("/api/devices", web::get().to(devices))
            .route("/api/act", web::post().to(act))
            .route("/api/billing", web::get().to(billing))
            .route("/api/feed", web::get().to(feed))
    };
    Ok(HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run().await?)
}

async fn page() -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).content_type(ContentType::html()).body(PAGE)
}

async fn site(shop: Data<Shop>) -> HttpResponse {
    HttpResponse::Ok().json(shop.site())
}

/// For the pages of the other nodes as well.
async fn status(shop: Data<Shop>) -> HttpResponse {
    HttpResponse::Ok().insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*")).json(shop.status())
}

async fn view(session: Session) -> Result<Json<View>, SessionError> {
    Ok(Json(shop::view(&session).await?))
}

async fn devices(session: Session) -> Result<Json<Vec<DeviceView>>, SessionError> {
    Ok(Json(shop::devices(&session).await?))
}

/// Takes JSON only, which another site cannot make a browser send without asking first.
async fn act(session: Session, shop: Data<Shop>, action: Json<Action>) -> Result<Json<View>, SessionError> {
    Ok(Json(shop.act(&session, action.into_inner()).await?))
}

async fn billing(_: Elevated<Billing>, session: Session) -> Result<String, SessionError> {
    Ok(shop::invoice(&session).await?)
}

/// Closes with the session, on any node, with the reason.
async fn feed(
    session: Session,
    shop: Data<Shop>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let Some(mut messages) = session.guard(shop.feed()).await.map_err(SessionError::from)? else {
        return Ok(HttpResponse::Unauthorized().finish());
    };
    let (response, mut socket, mut received) = actix_ws::handle(&request, body)?;
    actix_web::rt::spawn(async move {
        // The browser says nothing, but its frames are to be read.
        actix_web::rt::spawn(async move { while received.next().await.is_some() {} });
        let pin = messages.pin().clone();
        // Dropped soon after the session if the browser does not read.
        let sending = pin.limit(async move {
            while let Some(item) = messages.next().await {
                match item {
                    Ok(text) => socket.text(text).await?, // an error if the browser has gone
                    Err(closed) => {
                        let (code, description) = (closed.close_code().into(), Some(closed.to_string()));
                        return socket.close(Some(CloseReason { code, description })).await;
                    }
                }
            }
            Ok(())
        });
        sending.await
    });
    Ok(response)
}
