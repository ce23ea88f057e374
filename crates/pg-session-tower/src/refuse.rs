//! Refusals as responses: the status, the sentence, and what the application makes of both.

use std::any::Any;

use axum_core::body::Body;
use axum_core::response::IntoResponse;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use pg_session_web::{Answer, Refusal, SessionConfig};

/// The response of an extractor or a handler's error. It carries a refusal, so that the layer can [`customize`] it.
pub(crate) fn respond(answer: Answer) -> axum_core::response::Response {
    let (refusal, header) = match answer {
        Answer::Redirect(page) => return redirect(&page),
        Answer::Refuse(refusal, header) => (refusal, header),
    };
    let mut response: axum_core::response::Response = refuse(refusal.clone());
    response.extensions_mut().insert(refusal);
    if let Some((name, value)) = header {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Status 303 to a page of this site.
fn redirect(page: &str) -> axum_core::response::Response {
    match HeaderValue::from_str(page) {
        Ok(page) => (StatusCode::SEE_OTHER, [(LOCATION, page)]).into_response(),
        // A local path has only visible ASCII.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A response with the sentence, if the body is axum's; of another type, only the empty body is known.
pub(crate) fn refuse<R: Default + 'static>(refusal: Refusal) -> Response<R> {
    let mut response = Response::new(R::default());
    put(&mut response, refusal);
    response
}

/// Replaces what a handler or an extractor has refused by what the application wants to answer.
pub(crate) fn customize<R: Default + 'static>(response: &mut Response<R>, sessions: &SessionConfig) {
    let refusal = response.extensions().get().and_then(|refusal| sessions.customize(refusal));
    if let Some(refusal) = refusal {
        put(response, refusal);
    }
}

fn put<R: 'static>(response: &mut Response<R>, refusal: Refusal) {
    *response.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body: Box<dyn Any> = Box::new(Body::from(refusal.body));
    let Ok(body) = body.downcast::<R>() else { return };
    *response.body_mut() = *body;
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(CONTENT_ENCODING);
    if let Ok(content_type) = HeaderValue::from_str(&refusal.content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
}
