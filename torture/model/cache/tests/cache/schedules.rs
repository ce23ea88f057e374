//! Runs each story with all guards, where it must hold in every schedule tried, and without one, where a schedule must
//! fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

use pg_session_model_cache::Missing;

use crate::stories;

/// Schedules of each kind for a story that must hold.
const SCHEDULES: usize = 20_000;
/// Schedules of each kind within which a story without a guard must fail. It takes far fewer.
const SCHEDULES_MAX: usize = 400_000;
/// Forced switches of a PCT schedule: the races here take two or three.
const DEPTH: usize = 4;

type Story = fn(Option<Missing>);

/// Returns the number of schedules until the first that failed.
fn first_failure(
    scheduler: impl Scheduler + 'static,
    story: Story,
    missing: Option<Missing>,
) -> Option<usize> {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let runner = Runner::new(scheduler, config);
    let run = move || {
        runner.run(move || {
            count.fetch_add(1, Ordering::Relaxed);
            story(missing);
        })
    };
    catch_unwind(AssertUnwindSafe(run)).err().map(|_| begun.load(Ordering::Relaxed))
}

fn random(schedules: usize) -> RandomScheduler {
    RandomScheduler::new(schedules)
}

fn pct(schedules: usize) -> PctScheduler {
    PctScheduler::new(DEPTH, schedules)
}

#[track_caller]
fn holds(story: Story) {
    assert_eq!(first_failure(random(SCHEDULES), story, None), None, "at random");
    assert_eq!(first_failure(pct(SCHEDULES), story, None), None, "with few switches");
}

#[track_caller]
fn fails(name: &str, story: Story, missing: Missing) {
    let missing = Some(missing);
    let at = first_failure(random(SCHEDULES_MAX), story, missing)
        .or_else(|| first_failure(pct(SCHEDULES_MAX), story, missing));
    let at = at.expect(
        "no schedule fails without the guard: either it guards nothing, or the story does not try it",
    );
    println!("{name} {missing:?}: schedule {at} fails");
}

macro_rules! stories {
    ($($story:ident { $($control:ident $missing:ident)+ })+) => {
        const TRIED: &[Missing] = &[$($(Missing::$missing),+),+];

        $(
        mod $story {
            use super::*;

            #[test]
            fn holds() {
                super::holds(stories::$story);
            }

            $(
                #[test]
                fn $control() {
                    fails(stringify!($story), stories::$story, Missing::$missing);
                }
            )+
        }
        )+
    };
}

stories! {
    load_overtaken_by_invalidations {
        fails_without_fill_ticket FillTicket
        fails_if_entry_goes_before_tickets TicketsBeforeEntry
    }
    invalidation_forgotten_by_stripe { fails_without_trace_of_forgotten Forgotten }
    publish_after_newer_version_was_read { fails_without_write_mark WriteMark }
    drop_all_between_write_mark_and_ticket { fails_without_write_mark WriteMark }
    load_overtaken_by_publish { fails_if_publish_revokes_no_ticket PublishRevokes }
    publishes_out_of_order { fails_without_publish_order PublishOrder }
    publish_after_load_found_nothing { fails_if_absence_revokes_no_ticket AbsenceRevokes }
    absent_load_overtaken_by_creation { fails_without_ended_ticket EndedTicket }
    user_dropped_during_fills {
        fails_if_drop_revokes_no_ticket OwnerRevokes
        fails_if_entries_go_before_tickets OwnerTicketsFirst
    }
    group_dropped_during_fills { fails_without_index_rollback IndexRollback }
    all_dropped_during_fills { fails_without_generation Generation }
    indices_consistent_under_evictions { fails_without_index_count IndexCount }
    update_missed_while_disconnected { fails_without_ticket_epoch TicketEpoch }
    load_begun_while_not_listening { fails_without_fill_ticket FillTicket }
    all_dropped_during_verification { fails_without_generation Generation }
    unmarked_publish_after_newer_version_was_read { fails_without_look_at_newer_entry NewerEntry }
}

/// A guard that no story tries would prove nothing.
#[test]
fn every_guard_is_tried() {
    for missing in Missing::ALL {
        assert!(TRIED.contains(&missing), "{missing:?}");
    }
}
