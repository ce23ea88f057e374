//! (next)
use super::stage::Stage;
use super::teller::{Teller, Trouble};
use tokio_util::sync::CancellationToken;
pub(super) async fn run(_stage: &Stage, _teller: &Teller, stop: &CancellationToken) -> Result<(), Trouble> {
    stop.cancelled().await;
    Ok(())
}
