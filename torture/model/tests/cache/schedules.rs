//! Every story as it is, which must hold in all schedules that are tried, and without a guard, which must fail in one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

use crate::stories;

/// Schedules of each kind for a story that must hold.
const SCHEDULES: usize = 20_000;
/// Schedules of each kind until a story without a guard has failed; it takes far fewer.
const SCHEDULES_MAX: usize = 400_000;
/// Forced switches of a PCT schedule: the races here take two or three.
const DEPTH: usize = 4;

/// Returns the number of schedules until the first that failed.
fn first_failure(scheduler: impl Scheduler + 'static, story: fn()) -> Option<usize> {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let runner = Runner::new(scheduler, config);
    let run = move || {
        runner.run(move || {
            count.fetch_add(1, Ordering::Relaxed);
            story();
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
fn holds(story: fn()) {
    assert_eq!(first_failure(random(SCHEDULES), story), None, "at random");
    assert_eq!(first_failure(pct(SCHEDULES), story), None, "with few switches");
}

#[track_caller]
fn fails(name: &str, story: fn()) {
    let at = first_failure(random(SCHEDULES_MAX), story).or_else(|| first_failure(pct(SCHEDULES_MAX), story));
    let at = at.expect("nothing fails without the guard: it guards nothing, or the story does not try it");
    println!("{name}: schedule {at} fails");
}

macro_rules! stories {
    ($($story:ident { $($copy:ident)+ })+) => {
        const TRIED: &[&str] = &[$($(stringify!($copy)),+),+];

        $(
        mod $story {
            use super::*;

            #[test]
            fn holds() {
                super::holds(stories::$story::<crate::as_it_is::cache::Cache>);
            }

            $(
                #[test]
                fn $copy() {
                    fails(concat!(stringify!($story), " ", stringify!($copy)), stories::$story::<crate::$copy::cache::Cache>);
                }
            )+
        }
        )+
    };
}

stories! {
    a_load_is_overtaken_by_invalidations { without_ticket without_stripe_first }
    an_invalidation_is_forgotten { without_forgotten }
    a_publish_comes_after_a_newer_version_was_shown { without_writing }
    all_are_evicted_when_a_write_has_just_begun { without_writing }
    a_load_is_overtaken_by_a_publish { without_publish_note }
    two_publishes_come_out_of_order { without_publish_order }
    a_publish_comes_after_a_load_that_found_nothing { without_discard_note }
    the_user_is_dropped_during_installs { without_owner_dropped without_bump_first }
    the_group_is_dropped_during_installs { without_taking_back }
    all_are_dropped_during_installs { without_generation }
    the_indices_are_kept_through_evictions { without_counting }
    an_update_is_missed_while_the_connection_is_lost { without_tickets_epoch }
    a_load_leaves_while_nobody_listens { without_listening }
    all_are_dropped_while_the_memory_is_verified { without_generation }
    a_write_without_a_mark_is_published_after_a_newer_version_was_shown { without_forward }
}

/// A copy that no story tries would show nothing.
#[test]
fn every_copy_is_tried() {
    for copy in crate::WITHOUT {
        assert!(TRIED.contains(&copy), "{copy}");
    }
}
