//! Pins of a node whose pool leads to a copy of the database for a while.

use pg_session::Closed;
use pg_session::testing::Point;

use crate::fixtures::{in_time, read};
use crate::poolers::Redirected;
use crate::support::{World, eventually};

/// ```text
/// pooler   database A ┊ A's copy B, where one session lives, and the other one is gone ┊ A
/// A                   ┊ the first one is gone, and the other one lives                 ┊
/// node     pins       ┊ looks both up on B                                             ┊ looks both up on A
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_another_database_end_and_prove_no_pin() {
    let redirected = Redirected::new(|_| ()).await;
    let Redirected { node, deleted: [gone, ..], kept, observer, .. } = &redirected;
    let pin = in_time("it is pinned", node.pin(&read(node, *kept).await)).await.unwrap();
    let on_copy = World { url: redirected.copy.url(), schema: redirected.schema.clone() }.client().await;
    let delete = "DELETE FROM sessions WHERE id = $1";
    assert_eq!(on_copy.execute(delete, &[&kept.expose()]).await.unwrap(), 1);
    redirected.lead_to_copy();
    let late = in_time("it is pinned", node.pin(gone)).await.unwrap();
    assert_eq!(late.check(), Err(Closed::Unproved), "that it lives on the copy proves nothing");
    eventually("trust ends", async || !redirected.trusts()).await;

    let lookup = node.probes().close(Point::LookedUp);
    // An access that goes back is notified.
    let change =
        "UPDATE sessions SET last_accessed_at = last_accessed_at - interval '1 second' WHERE id = $1";
    observer.batch_execute("SET pg_session.direct_writes = ''").await.unwrap();
    assert_eq!(observer.execute(change, &[&kept.expose()]).await.unwrap(), 1);
    in_time("it is looked up", lookup.arrived(1)).await;
    lookup.open();
    in_time("it is looked up again", lookup.arrived(2)).await;
    assert_eq!(pin.check(), Ok(()), "that it is gone on the copy ends nothing");

    redirected.lead_to_original().await;
    in_time("the end on the original is found", late.ended()).await;
    eventually("the other one is looked up", async || node.doubted_pins() == 0).await;
    assert_eq!(pin.check(), Ok(()));
}
