//! Lists the findings of the doctor.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use pg_session::{Finding, Severity};
use serde::Serialize;

use super::error::ApiError;
use crate::Admin;

#[derive(Serialize)]
pub(super) struct Findings {
    findings: Vec<FindingRow>,
}

#[derive(Serialize)]
struct FindingRow {
    check: &'static str,
    severity: &'static str,
    message: String,
    fix: String,
    page: &'static str,
}

/// At most a minute old.
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Findings>, ApiError> {
    let found = admin.0.console.findings().await;
    let found =
        found.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "this application runs no doctor"))?;
    let found = found.map_err(|why| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
    let row = |Finding { check, severity, message, fix, page, .. }| FindingRow {
        check,
        severity: if severity == Severity::Fault { "fault" } else { "warning" },
        message,
        fix,
        page,
    };
    Ok(Json(Findings { findings: found.into_iter().map(row).collect() }))
}
