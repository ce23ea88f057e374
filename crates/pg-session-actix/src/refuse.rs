//! Refusals as responses: the status, the sentence, and what the application makes of both.

use actix_web::HttpResponse;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION,
};
use pg_session_web::{Answer, Refusal, SessionConfig};

/// The response of an extractor or a handler's error. It carries a refusal, so that the middleware can [`customize`] it.
pub(crate) fn respond(answer: Answer) -> HttpResponse {
    let (refusal, header) = match answer {
        Answer::Redirect(page) => return HttpResponse::SeeOther().insert_header((LOCATION, page)).finish(),
        Answer::Refuse(refusal, header) => (refusal, header),
    };
    let mut response = refuse(refusal.clone());
    response.extensions_mut().insert(refusal);
    if let Some((name, value)) = header {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// The status of an answer.
pub(crate) fn status_of(answer: &Answer) -> StatusCode {
    StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(crate) fn refuse(refusal: Refusal) -> HttpResponse {
    HttpResponse::build(status(&refusal)).content_type(refusal.content_type).body(refusal.body)
}

/// Replaces what a handler or an extractor has refused by what the application wants to answer.
pub(crate) fn customize<B: MessageBody>(
    response: ServiceResponse<B>,
    sessions: &SessionConfig,
) -> ServiceResponse<EitherBody<B>> {
    let custom = response.response().extensions().get().and_then(|refusal| sessions.customize(refusal));
    let Some(refusal) = custom else { return response.map_into_left_body() };
    let status = status(&refusal);
    let mut response =
        response.map_body(|_, _| EitherBody::right(actix_web::body::BoxBody::new(refusal.body)));
    *response.response_mut().status_mut() = status;
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(CONTENT_ENCODING);
    if let Ok(content_type) = HeaderValue::from_str(&refusal.content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    response
}

fn status(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
